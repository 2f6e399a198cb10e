//! Defects of the Python system that must not come back, each on the whole program.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant};

use netpulse_simulator::{Device, Plan, Running, Simulator};
use serde_json::{Value, json};
use support::Server;

const CLOCK: &str = "Value TIME (\\d+:\\d+\\S*)\n\nStart\n  ^.*\\s${TIME} -> Record\n";

fn device() -> Running {
    Simulator::start(Plan::of("cisco_ios", 1)).unwrap()
}

fn body(device: &Device, command: &str) -> Value {
    let at = device.ssh.unwrap();
    json!({"driver": "netmiko", "command": command, "connection_args": {"device_type": "cisco_ios",
        "host": at.ip().to_string(), "port": at.port(), "username": "admin", "password": "admin"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_a_job_behind_a_stopped_worker_is_served() {
    let (running, server) = (device(), Server::start(""));
    let query = body(running.device(0), "show clock");
    let job = server.exec(&query).await;
    let name = job["worker"].as_str().unwrap().to_owned();
    let (status, _) = server.delete(&format!("/workers/{name}")).await;
    assert_eq!(status, 200);
    let job = server.exec(&query).await;
    assert_eq!(job["status"], "finished", "{job}");
    assert_eq!(server.delete("/workers/nobody").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_killed_server_serves_its_devices_again_at_once() {
    let (running, mut server) = (device(), Server::start(""));
    let query = body(running.device(0), "show clock");
    assert_eq!(server.exec(&query).await["status"], "finished");
    server.kill();
    let began = Instant::now();
    server.launch();
    assert_eq!(server.exec(&query).await["status"], "finished");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_d18_what_is_parsed_stands_beside_the_text() {
    let (running, server) = (device(), Server::start(""));
    let mut query = body(running.device(0), "show clock");
    query["parsing"] = json!({"name": "textfsm", "template": CLOCK});
    let job = server.exec(&query).await;
    let item = &job["result"]["retval"][0];
    assert!(item["stdout"].is_string() && item["parsed"][0]["TIME"].is_string(), "{job}");
    let mut query = body(running.device(0), "show clock");
    query["driver_args"] = json!({"use_textfsm": true, "textfsm_template": CLOCK});
    let job = server.exec(&query).await;
    let item = &job["result"]["retval"][0];
    assert!(item["stdout"].is_string() && item["parsed"][0]["TIME"].is_string(), "{job}");
    // A template that is wrong fails the job and keeps the text.
    let mut query = body(running.device(0), "show clock");
    query["parsing"] = json!({"name": "textfsm", "template": "no template"});
    let job = server.exec(&query).await;
    assert_eq!(
        (&job["status"], &job["result"]["error"]["type"]),
        (&json!("failed"), &json!("parse_failed")),
        "{job}"
    );
    assert!(job["result"]["retval"][0]["stdout"].is_string(), "{job}");
    let (status, rows) =
        server.post("/template/parse/textfsm", &json!({"template": CLOCK, "context": "at 12:30:01\n"})).await;
    assert_eq!((status, rows), (200, json!([{"TIME": "12:30:01"}])));
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_rendering_works_for_one_device_and_for_many() {
    let (running, server) = (device(), Server::start(""));
    let mut one = body(running.device(0), "");
    one.as_object_mut().unwrap().remove("command");
    one["config"] = json!({"n": 31});
    one["rendering"] =
        json!({"name": "jinja2", "template": "interface Loopback{{ n }}\n description from a template"});
    one["connection_args"]["secret"] = json!("enable");
    let job = server.exec(&one).await;
    assert_eq!(job["result"]["outcome"], "applied", "{job}");
    assert_eq!(
        job["result"]["retval"].as_array().unwrap().len(),
        2,
        "a rendered text is sent line by line: {job}"
    );
    let mut many = one.clone();
    many["devices"] =
        json!([{"host": one["connection_args"]["host"], "port": one["connection_args"]["port"]}]);
    many["config"] = json!({"n": 32});
    let (status, bulk) = server.post("/device/bulk?wait=30", &many).await;
    assert_eq!((status, &bulk["succeeded"][0]["result"]["outcome"]), (201, &json!("applied")), "{bulk}");
    assert!(running.device(0).running_config().contains("Loopback32"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_s3_templates_reach_neither_the_machine_nor_the_network() {
    let server = Server::start("");
    for template in [
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ''.__class__.__mro__ }}",
        "file:///etc/passwd",
        "http://127.0.0.1:1/template",
        "{% include '/etc/passwd' %}",
    ] {
        let (status, answer) =
            server.post("/template/render", &json!({"template": template, "context": {}})).await;
        let text = answer.to_string();
        assert!(
            !text.contains("root:") && !text.contains("uid=") && !text.contains("<class"),
            "{template}: {text}"
        );
        assert!(status == 400 || answer == json!(""), "{template}: {status} {text}");
    }
    let (_, answer) = server.post("/template/render", &json!({"template": "file:///etc/passwd"})).await;
    assert!(answer.to_string().contains("template.dirs"), "does not name the key: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_s5_no_file_of_the_server_can_be_named() {
    let (running, server) = (device(), Server::start(""));
    for (key, value) in
        [("staged_file_id", json!("/etc/passwd")), ("file_transfer", json!({"operation": "download"}))]
    {
        let mut query = body(running.device(0), "show clock");
        query[key] = value;
        let (status, answer) = server.post("/device/exec", &query).await;
        assert!((400..500).contains(&status), "{key}: {answer}");
    }
    let mut query = body(running.device(0), "show clock");
    query["connection_args"]["session_log"] = json!("/tmp/anywhere");
    let (status, answer) = server.post("/device/exec", &query).await;
    assert_eq!(status, 400, "{answer}");
    let (status, _) = server.get("/storage/fetch/../../etc/passwd").await;
    assert!(status >= 400);
}
