//! A real router: FRR's vtysh as the login shell of OpenSSH, driven through REST.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use serde_json::{Value, json};
use support::{Frr, Server};

fn query(frr: &Frr, device_type: &str, command: &Value) -> Value {
    json!({"driver": "netmiko", "connection_args": frr.sshd.netmiko(device_type), "command": command})
}

fn config(frr: &Frr, lines: &Value) -> Value {
    json!({"driver": "netmiko", "connection_args": frr.sshd.netmiko("cisco_ios"), "config": lines})
}

#[tokio::test]
async fn queries_over_a_kept_session() {
    let (frr, server) = (Frr::start(), Server::start(""));
    for device_type in ["cisco_ios", "frr"] {
        let body = query(&frr, device_type, &json!(["show version", "show running-config"]));
        for reused in [false, true] {
            let job = server.exec(&body).await;
            assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
            assert_eq!(job["result"]["type"], 1);
            let items = job["result"]["retval"].as_array().unwrap();
            assert_eq!(items.len(), 2);
            let version = items[0]["stdout"].as_str().unwrap();
            assert!(version.starts_with("FRRouting"), "echo or prompt left in {version:?}");
            assert!(!version.contains("show version") && !version.trim_end().ends_with('#'), "{version:?}");
            assert!(items[1]["stdout"].as_str().unwrap().contains("hostname"), "{job}");
            assert_eq!(items[0]["metadata"]["session_reused"], reused, "{job}");
            assert_eq!(items[0]["metadata"]["host"], "127.0.0.1");
        }
    }
}

#[tokio::test]
async fn d4_a_config_that_sets_the_hostname_is_applied_and_reported_so() {
    let (frr, server) = (Frr::start(), Server::start(""));
    let job = server
        .exec(&config(&frr, &json!(["hostname edge-77", "router bgp 65001", "bgp router-id 192.0.2.77"])))
        .await;
    assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
    assert_eq!(job["result"]["outcome"], "applied");
    assert_eq!(job["result"]["retval"].as_array().unwrap().len(), 3);
    assert!(job["duration"].as_f64().unwrap() < 5.0, "a changed prompt cost time: {job}");
    let running = frr.show("show running-config");
    assert!(running.contains("192.0.2.77"), "{running}");
    // The session knows its new prompt; the name itself belongs to this vtysh.
    let after = server.exec(&query(&frr, "cisco_ios", &json!("show running-config"))).await;
    assert_eq!(after["status"], "finished", "{after}");
    assert!(after["result"]["retval"][0]["stdout"].as_str().unwrap().contains("hostname edge-77"), "{after}");
}

#[tokio::test]
async fn promise_4_d5_a_rejected_line_stops_the_rest() {
    let (frr, server) = (Frr::start(), Server::start(""));
    let job = server
        .exec(&config(
            &frr,
            &json!([
                "ip prefix-list A seq 5 permit 192.0.2.0/24",
                "bogus command",
                "ip prefix-list B seq 5 permit any"
            ]),
        ))
        .await;
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(job["result"]["error"]["type"], "line_rejected");
    assert_eq!(job["result"]["outcome"], "partial");
    let exits: Vec<i64> = job["result"]["retval"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["exit_status"].as_i64().unwrap())
        .collect();
    assert_eq!(exits, [0, 1, 1], "{job}");
    let running = frr.show("show running-config");
    assert!(running.contains("prefix-list A") && !running.contains("prefix-list B"), "{running}");
}

#[tokio::test]
async fn d2_d19_save_saves_and_the_session_serves_on() {
    let (frr, server) = (Frr::start(), Server::start(""));
    let mut body = config(&frr, &json!(["ip prefix-list KEPT seq 5 permit 192.0.2.0/24"]));
    body["save"] = json!(true);
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
    assert!(frr.saved().contains("prefix-list KEPT"), "not saved: {}", frr.saved());
    let after = server.exec(&query(&frr, "cisco_ios", &json!("show running-config"))).await;
    let text = after["result"]["retval"][0]["stdout"].as_str().unwrap();
    assert!(text.contains("prefix-list KEPT") && !text.contains("(config)"), "{text}");
}

#[tokio::test]
async fn d3_enable_mode_leaves_no_trace_on_the_session() {
    let (frr, server) = (Frr::start(), Server::start(""));
    let mut body = query(&frr, "cisco_ios", &json!("show version"));
    body["enable_mode"] = json!(true);
    assert_eq!(server.exec(&body).await["status"], "finished");
    let job = server.exec(&config(&frr, &json!(["ip prefix-list D3 seq 5 permit 192.0.2.0/24"]))).await;
    assert_eq!(job["status"], "finished", "{job}");
}

#[tokio::test]
async fn d6_a_dropped_session_costs_one_retry() {
    let (frr, server) = (Frr::start(), Server::start(""));
    let body = query(&frr, "cisco_ios", &json!("show version"));
    assert_eq!(server.exec(&body).await["status"], "finished");
    // Every connection of this router's sshd drops at once.
    let pids = std::process::Command::new("pgrep").args(["-f", "vtysh --vty_socket"]).output().unwrap();
    for pid in String::from_utf8(pids.stdout).unwrap().split_whitespace() {
        let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if cmdline.contains(&frr.socket_dir()) {
            let _ = std::process::Command::new("kill").arg("-9").arg(pid).status();
        }
    }
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
    assert_eq!(job["result"]["retval"][0]["exit_status"], 0);
    assert!(job["duration"].as_f64().unwrap() < 5.0, "{job}");
}
