//! A real Linux server: OpenSSH, driven through REST by both drivers that reach it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use serde_json::{Value, json};
use support::{Server, Sshd};

fn paramiko(sshd: &Sshd, what: &str, lines: &Value) -> Value {
    json!({"driver": "paramiko", "connection_args": sshd.args(), what: lines})
}

#[tokio::test]
async fn promise_5_an_exit_status_is_a_result_and_not_a_failure() {
    let (sshd, server) = (Sshd::start(None), Server::start(""));
    let job = server.exec(&paramiko(&sshd, "command", &json!(["echo out; echo err >&2", "exit 3"]))).await;
    assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
    let items = job["result"]["retval"].as_array().unwrap();
    assert_eq!((&items[0]["stdout"], &items[0]["stderr"]), (&json!("out\n"), &json!("err\n")), "{job}");
    assert_eq!((&items[0]["exit_status"], &items[1]["exit_status"]), (&json!(0), &json!(3)), "{job}");
    assert_eq!(job["queue"], "FifoQ");
}

#[tokio::test]
async fn d14_the_working_directory_and_environment_hold_for_plain_commands() {
    let (sshd, server) = (Sshd::start(None), Server::start(""));
    let mut body = paramiko(&sshd, "command", &json!("pwd; echo $NP_SEEN"));
    body["driver_args"] = json!({"working_directory": "/usr", "environment": {"NP_SEEN": "it's here"}});
    let job = server.exec(&body).await;
    assert_eq!(job["result"]["retval"][0]["stdout"], "/usr\nit's here\n", "{job}");
}

#[tokio::test]
async fn d21_megabytes_on_both_streams_come_whole() {
    let (sshd, server) = (Sshd::start(None), Server::start(""));
    let command = "head -c 3000000 /dev/zero | tr '\\0' o; head -c 3000000 /dev/zero | tr '\\0' e >&2";
    let job = server.exec(&paramiko(&sshd, "command", &json!(command))).await;
    assert_eq!(job["status"], "finished", "{}", job["result"]["error"]);
    let item = &job["result"]["retval"][0];
    assert_eq!(item["stdout"].as_str().unwrap().len(), 3_000_000);
    assert_eq!(item["stderr"].as_str().unwrap().len(), 3_000_000);
}

#[tokio::test]
async fn a_change_stops_at_the_line_that_fails() {
    let (sshd, server) = (Sshd::start(None), Server::start(""));
    let mark = server.dir.join("changed");
    let lines = json!([
        format!("echo one >> {}", mark.display()),
        "false",
        format!("echo two >> {}", mark.display())
    ]);
    let job = server.exec(&paramiko(&sshd, "config", &lines)).await;
    assert_eq!((&job["status"], &job["result"]["outcome"]), (&json!("failed"), &json!("partial")), "{job}");
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "one\n");
}

#[tokio::test]
async fn s1_a_pinned_session_serves_only_whoever_opened_it() {
    let (sshd, other, server) = (Sshd::start(None), Sshd::start(None), Server::start(""));
    let mut body = paramiko(&sshd, "command", &json!("echo in"));
    body["queue_strategy"] = json!("pinned");
    for reused in [false, true] {
        let job = server.exec(&body).await;
        assert_eq!(job["result"]["retval"][0]["metadata"]["session_reused"], reused, "{job}");
    }
    // The same device with a key that does not open it: the live session is not for it.
    body["connection_args"]["pkey"] = json!(other.private_key);
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(job["result"]["error"]["type"], "authentication_failed", "{job}");
}

#[tokio::test]
async fn the_netmiko_driver_speaks_to_a_shell_too() {
    let (sshd, server) = (Sshd::start(None), Server::start(""));
    let body = json!({"driver": "netmiko", "connection_args": sshd.netmiko("linux"), "command": ["echo one two", "uname -s"]});
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
    assert_eq!(job["result"]["retval"][0]["stdout"], "one two", "{job}");
    assert_eq!(job["result"]["retval"][1]["stdout"], "Linux", "{job}");
}
