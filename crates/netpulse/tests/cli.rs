//! The binary as a person runs it, against a small server that answers as the API does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

const KEY: &str = "k-0123456789";
const ID: &str = "6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55";
const OTHER: &str = "7c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55";

/// What the server was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, Value)>>>);

impl Asked {
    fn note(&self, what: impl Into<String>, body: Value) {
        self.0.lock().unwrap().push((what.into(), body));
    }

    fn last(&self, what: &str) -> Value {
        let asked = self.0.lock().unwrap();
        let found = asked.iter().rev().find(|(asked, _)| asked.starts_with(what));
        found.unwrap_or_else(|| panic!("{what} was not asked: {asked:?}")).1.clone()
    }
}

fn job(id: &str, host: &str, status: &str, result: Value) -> Value {
    json!({"id": id, "status": status, "created_at": "2026-02-03T04:05:06.789012+00:00",
        "enqueued_at": "2026-02-03T04:05:06.791000+00:00", "started_at": null, "ended_at": null,
        "queue": format!("HostQ_{host}"), "worker": null, "result": result, "task_id": null,
        "device_name": host, "command": ["show clock", "vlan 5000"], "duration": 0.42, "queue_time": 0.002})
}

fn retval(command: &str, stdout: &str, stderr: &str, exit_status: i32) -> Value {
    json!({"command": command, "stdout": stdout, "stderr": stderr, "exit_status": exit_status,
        "download_url": null, "metadata": {"host": "h", "duration_seconds": 0.1, "session_reused": false},
        "parsed": null})
}

/// The result is by host: `bad*` fails, `slow*` never ends, all else finishes.
fn ended(id: &str, host: &str) -> Value {
    if host.starts_with("slow") {
        return job(id, host, "started", Value::Null);
    }
    if host.starts_with("bad") {
        let error = json!({"type": "line_rejected", "message": "line 2 of 2 was refused: % Invalid input"});
        let result = json!({"type": 2, "error": error, "outcome": "not_applied", "retval":
            [retval("show clock", "04:05:09", "", 0), retval("vlan 5000", "", "% Invalid input", 1)]});
        return job(id, host, "failed", result);
    }
    let result =
        json!({"type": 1, "error": null, "retval": [retval("show clock", "04:05:09.120 UTC", "", 0)]});
    job(id, host, "finished", result)
}

fn refuse(status: u16, detail: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), json!({"detail": detail}).to_string()).into_response()
}

fn events(host: &str) -> String {
    let event = |n: u32, more: Value| {
        let mut event = json!({"id": n, "at": "2026-02-03T04:05:06Z", "job": ID, "device": host});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("id: {n}\nevent: x\ndata: {event}\n\n")
    };
    let line = |n, index, command: &str, stdout: &str, stderr: &str, status: i32| {
        event(
            n,
            json!({"event": "line", "index": index, "total": 2, "command": command, "stdout": stdout,
            "stderr": stderr, "exit_status": status}),
        )
    };
    let mut text = event(1, json!({"event": "started", "worker": "w", "attempt": 1}));
    text += &line(2, 0, "show clock", "04:05:09", "", 0);
    if host.starts_with("bad") {
        text += &line(3, 1, "vlan 5000", "", "% Invalid input", 1);
        text += &event(
            4,
            json!({"event": "ended", "status": "failed", "outcome": "not_applied", "message": "refused"}),
        );
    } else if !host.starts_with("slow") {
        text += &event(4, json!({"event": "ended", "status": "finished"}));
    }
    text
}

/// Serves until the test ends; the current host decides what jobs come to.
struct Server {
    url: String,
    asked: Asked,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

type Shared = (Asked, Arc<Mutex<std::collections::HashMap<String, String>>>);

fn server() -> Server {
    let asked = Asked::default();
    let state: Shared = (asked.clone(), Arc::default());
    let exec = |State((asked, hosts)): State<Shared>, body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let host = body["connection_args"]["host"].as_str().unwrap_or_default().to_owned();
        asked.note("exec", body);
        match host.as_str() {
            "full" => {
                return (
                    StatusCode::TOO_MANY_REQUESTS,
                    [("retry-after", "7")],
                    json!({"detail": "the queue is full"}).to_string(),
                )
                    .into_response();
            }
            "wrong" => return refuse(400, "'host' in connection_args is required"),
            _ => {}
        }
        let queued = job(ID, &host, "queued", Value::Null);
        hosts.lock().unwrap().insert(ID.to_owned(), host);
        (StatusCode::CREATED, queued.to_string()).into_response()
    };
    let bulk = |State((asked, hosts)): State<Shared>, body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
        for (n, device) in body["devices"].as_array().unwrap().iter().enumerate() {
            let host = device["host"].as_str().unwrap().to_owned();
            if host.starts_with("refused") {
                failed.push(json!({"host": host, "reason": "no such platform"}));
                continue;
            }
            let id = format!("{n:08x}{}", &ID[8..]);
            succeeded.push(job(&id, &host, "queued", Value::Null));
            hosts.lock().unwrap().insert(id, host);
        }
        asked.note("bulk", body);
        (StatusCode::CREATED, json!({"succeeded": succeeded, "failed": failed}).to_string())
    };
    let one = |State((_, hosts)): State<Shared>,
               Path(id): Path<String>,
               Query(query): Query<std::collections::HashMap<String, String>>| async move {
        let Some(host) = hosts.lock().unwrap().get(&id).cloned() else {
            return refuse(404, &format!("Job {id} not found"));
        };
        if host.starts_with("slow") && query.contains_key("wait") {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        }
        ended(&id, &host).to_string().into_response()
    };
    let follow = |State((_, hosts)): State<Shared>, Path(id): Path<String>| async move {
        let Some(host) = hosts.lock().unwrap().get(&id).cloned() else {
            return refuse(404, &format!("Job {id} not found"));
        };
        ([("content-type", "text/event-stream")], events(&host)).into_response()
    };
    let list = |State((asked, _)): State<Shared>, Query(query): Query<Value>| async move {
        let second = query.get("cursor").is_some();
        asked.note(if second { "jobs 2" } else { "jobs" }, query);
        let mut headers = HeaderMap::new();
        if !second {
            headers.insert("x-next-cursor", "c2".parse().unwrap());
        }
        let page = if second { json!([ended(OTHER, "bad1")]) } else { json!([ended(ID, "sw1")]) };
        (headers, page.to_string())
    };
    let cancel = |State((asked, _)): State<Shared>, Path(id): Path<String>| async move {
        asked.note("cancel", json!(id));
        if id == ID {
            json!({"id": id, "canceled": "before_start"}).to_string().into_response()
        } else {
            refuse(404, &format!("Job {id} not found or not in queued state"))
        }
    };
    let cancel_waiting = |State((asked, _)): State<Shared>, Query(query): Query<Value>| async move {
        asked.note("cancel waiting", query);
        json!([ID, OTHER]).to_string()
    };
    let test = |State((asked, _)): State<Shared>, body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let bad = body["connection_args"]["host"].as_str().unwrap().starts_with("bad");
        asked.note("test", body);
        let answer = if bad {
            json!({"success": false, "latency": null, "error": "the device refused user or password",
                "error_type": "authentication_failed", "result": null, "timestamp": "2026-02-03T04:05:06+00:00"})
        } else {
            json!({"success": true, "latency": 0.31, "error": null, "timestamp": "2026-02-03T04:05:06+00:00",
                "result": {"driver": "netmiko", "prompt": "sw1#"}})
        };
        answer.to_string()
    };
    let workers = |State((asked, _)): State<Shared>, Query(query): Query<Value>| async move {
        asked.note("workers", query);
        json!([{"name": "node-a_FifoQ", "status": "idle", "pid": 71, "hostname": "node-a", "queues": ["FifoQ"],
            "last_heartbeat": "2026-02-03T04:05:06+00:00", "birth_at": "2026-02-03T04:05:06+00:00",
            "successful_job_count": 4, "failed_job_count": 0}])
        .to_string()
    };
    let stop = |State((asked, _)): State<Shared>, Path(name): Path<String>| async move {
        asked.note("stop", json!(name));
        json!({"name": name}).to_string()
    };
    let app = Router::new()
        .route("/device/exec", post(exec))
        .route("/device/bulk", post(bulk))
        .route("/device/test", post(test))
        .route("/jobs", get(list).delete(cancel_waiting))
        .route("/jobs/{id}", get(one).delete(cancel))
        .route("/jobs/{id}/events", get(follow))
        .route("/workers", get(workers))
        .route("/workers/{name}", axum::routing::delete(stop))
        .layer(axum::middleware::from_fn(
            |request: axum::extract::Request, next: axum::middleware::Next| async move {
                match request.headers().get("x-api-key") {
                    Some(key) if key == KEY => next.run(request).await,
                    _ => refuse(403, "Invalid or missing API key."),
                }
            },
        ))
        .with_state(state);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await });
    Server { url, asked, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Server {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netpulse"));
        command
            .args(args)
            .env_clear()
            .env("NETPULSE_URL", &self.url)
            .env("NETPULSE_API_KEY", KEY)
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

#[test]
fn exec_prints_what_the_device_said_and_nothing_else_to_stdout() {
    let server = server();
    let said =
        server.run(&["exec", "--host", "sw1", "-d", "cisco_ios", "-u", "ops", "-c", "show clock", "--save"]);
    assert_eq!((said.code, said.out.as_str()), (0, "04:05:09\n"), "{}", said.err);
    assert!(said.err.contains("show clock") && said.err.contains("finished in 420 ms"), "{}", said.err);
    assert_eq!(
        server.asked.last("exec"),
        json!({"driver": "netmiko", "command": ["show clock"], "save": true,
            "connection_args": {"device_type": "cisco_ios", "username": "ops", "host": "sw1"}})
    );
}

#[test]
fn exec_tells_a_refused_line_and_exits_1() {
    let server = server();
    let said = server.run(&["exec", "--host", "bad1", "-d", "cisco_ios", "--config", "vlan 5000"]);
    assert_eq!(said.code, 1, "{}", said.err);
    for part in [
        "[2/2] vlan 5000",
        "exit status 1: % Invalid input",
        "outcome: not applied",
        "(line_rejected)",
        "hint: ",
    ] {
        assert!(said.err.contains(part), "missing {part:?} in {}", said.err);
    }
    let said =
        server.run(&["exec", "--host", "bad1", "-d", "cisco_ios", "--config", "vlan 5000", "-o", "json"]);
    assert_eq!((said.code, &said.json()["result"]["outcome"]), (1, &json!("not_applied")));
    let said =
        server.run(&["exec", "--host", "bad1", "-d", "cisco_ios", "--config", "vlan 5000", "-o", "yaml"]);
    assert!(said.out.contains("outcome: not_applied"), "{}", said.out);
}

#[test]
fn exec_without_waiting_prints_the_id() {
    let said = server().run(&["exec", "--host", "sw1", "-c", "show clock", "--no-wait"]);
    assert_eq!((said.code, said.out.trim()), (0, ID));
}

#[test]
fn exec_that_takes_too_long_exits_5_and_says_how_to_go_on() {
    let said = server().run(&["exec", "--host", "slow1", "-c", "show clock", "-t", "1"]);
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(said.err.contains(&format!("netpulse watch {ID}")), "{}", said.err);
}

#[test]
fn promise_12_passwords_come_from_everywhere_but_are_never_printed() {
    use std::io::Write;
    let server = server();
    let args = ["exec", "--host", "sw1", "-c", "x"];
    let sent = || server.asked.last("exec")["connection_args"]["password"].clone();
    let mut child = server
        .command(&[&args[..], &["--password-stdin"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from-stdin\nrest").unwrap();
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!((said.code, sent()), (0, json!("from-stdin")), "{}", said.err);
    let said: Said =
        server.command(&args).env("NETPULSE_DEVICE_PASSWORD", "from-env").output().unwrap().into();
    assert_eq!((said.code, sent()), (0, json!("from-env")));
    let said = server.run(&[&args[..], &["--password", "from-argv", "--log-level", "debug"]].concat());
    assert_eq!((said.code, sent()), (0, json!("from-argv")));
    assert!(said.err.contains("warning: --password is seen by every user"), "{}", said.err);
    assert!(!said.err.contains("from-argv") && !said.out.contains("from-argv"), "{}", said.err);
    let said = server.run(&["exec", "--host", "sw1", "--config", "@-", "--password-stdin"]);
    assert!(said.code == 2 && said.err.contains("standard input is asked for twice"), "{}", said.err);
    let said = server.run(&[&args[..], &["--ask-password"]].concat());
    assert!(said.code == 2 && said.err.contains("no terminal"), "{}", said.err);
}

#[test]
fn a_profile_says_server_key_and_login() {
    let server = server();
    let profile = format!(
        "default:\n  base_url: http://127.0.0.1:1\nprofiles:\n  lab:\n    base_url: {}\n    api_key: {KEY}\n    \
         driver: paramiko\n    connection_args: {{username: lab}}\n",
        server.url
    );
    server.file("netpulse.yaml", &profile);
    let mut command = server.command(&["exec", "--host", "sw1", "-c", "x", "--profile", "lab"]);
    let said: Said =
        command.env_remove("NETPULSE_URL").env_remove("NETPULSE_API_KEY").output().unwrap().into();
    assert_eq!(said.code, 0, "{}", said.err);
    let body = server.asked.last("exec");
    assert_eq!((&body["driver"], &body["connection_args"]["username"]), (&json!("paramiko"), &json!("lab")));
    let said = server.run(&["jobs", "--profile", "prod"]);
    assert!(said.code == 2 && said.err.contains("there are: lab"), "{}", said.err);
}

#[test]
fn each_refusal_has_its_exit_code_and_sentence() {
    let server = server();
    let said = server.run(&["jobs", "--url", "http://127.0.0.1:1"]);
    assert!(said.code == 3 && said.err.contains("hint: is `netpulse serve` running"), "{}", said.err);
    let said = server.run(&["jobs", "--api-key", "wrong-key"]);
    assert!(
        said.code == 4 && said.err.contains("Invalid or missing API key") && !said.err.contains("wrong-key")
    );
    let said = server.run(&["job", OTHER]);
    assert!(said.code == 6 && said.err.contains(&format!("Job {OTHER} not found")), "{}", said.err);
    let said = server.run(&["exec", "--host", "full", "-c", "x"]);
    assert!(
        said.code == 7 && said.err.contains("the queue is full") && said.err.contains("in 7 s"),
        "{}",
        said.err
    );
    let said = server.run(&["exec", "--host", "wrong", "-c", "x"]);
    assert!(said.code == 2 && said.err.contains("'host' in connection_args is required"), "{}", said.err);
    for args in
        [&["exec", "--host", "a"][..], &["job", "nonsense"], &["exec", "--host", "a", "-c", "x", "-C", "y"]]
    {
        assert_eq!(server.run(args).code, 2, "{args:?}");
    }
}

const SHEET: &str = "Selected,Name,Vendor,IP,Port,Username,Password\n\
    true,edge1,CISCO,sw1,,ops,pw-sw1\nfalse,edge2,CISCO,sw2,,ops,pw\ntrue,edge3,HUAWEI,bad3,,ops,pw\n\
    true,edge4,CISCO,refused4,,ops,pw\ntrue,edge5,CISCO,slow5,,ops,pw\n";

#[test]
fn bulk_runs_the_sheet_and_writes_the_result_file() {
    let server = server();
    server.file("devices.csv", SHEET);
    let said = server.run(&["bulk", "devices.csv", "-c", "show clock", "--result", "r.csv", "-t", "1"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let body = server.asked.last("bulk");
    assert_eq!(body["command"], json!(["show clock"]));
    let hosts: Vec<&str> =
        body["devices"].as_array().unwrap().iter().map(|d| d["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["sw1", "bad3", "refused4", "slow5"]);
    assert_eq!(body["devices"][1]["device_type"], "huawei");
    for part in ["finished", "failed", "Not Submitted", "TIMEOUT", "no such platform"] {
        assert!(said.out.contains(part), "missing {part:?} in {}", said.out);
    }
    assert!(!said.out.contains("pw-sw1") && !said.err.contains("pw-sw1"));
    assert!(
        said.err.contains("1 finished, 1 failed, 1 Not Submitted, 1 TIMEOUT of 4 devices"),
        "{}",
        said.err
    );
    let written = std::fs::read_to_string(server.folder.path().join("r.csv")).unwrap();
    assert!(written.starts_with("IP,Name,Vendor,Payload,Status,Job ID,Result,Error,Start Time,End Time\n"));
    assert!(
        written.contains("sw1,edge1,CISCO,show clock,finished,") && written.contains("TIMEOUT"),
        "{written}"
    );
}

#[test]
fn bulk_of_one_vendor_ends_well() {
    let server = server();
    server.file(
        "devices.json",
        r#"[{"host": "sw1", "vendor": "CISCO"}, {"host": "bad1", "vendor": "HUAWEI"}]"#,
    );
    let said = server.run(&["bulk", "devices.json", "--vendor", "cisco", "-c", "show clock", "-o", "json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let records = said.json();
    assert_eq!(records.as_array().unwrap().len(), 1);
    assert_eq!((&records[0]["ip"], &records[0]["status"]), (&json!("sw1"), &json!("finished")));
}

#[test]
fn bulk_changes_nothing_unasked() {
    let server = server();
    server.file("devices.csv", "Host\nsw1\n");
    let args = ["bulk", "devices.csv", "-d", "cisco_ios", "--config", "vlan 5"];
    let said = server.run(&args);
    assert!(said.code == 2 && said.err.contains("--force"), "{}", said.err);
    assert!(server.asked.0.lock().unwrap().is_empty());
    assert_eq!(server.run(&[&args[..], &["--force"]].concat()).code, 0);
    server.file("devices.xlsx", "PK\u{3}\u{4}");
    let said = server.run(&["bulk", "devices.xlsx", "-c", "x"]);
    assert!(said.code == 2 && said.err.contains("save the sheet as CSV"), "{}", said.err);
}

#[test]
fn jobs_are_listed_page_by_page() {
    let server = server();
    let said = server.run(&["jobs", "--host", "sw1", "--limit", "1"]);
    assert_eq!((said.code, said.out.lines().count()), (0, 2), "{}", said.out);
    assert!(
        said.out.starts_with("ID ") && said.out.contains(ID) && said.err.contains("--all"),
        "{}",
        said.err
    );
    let asked = server.asked.last("jobs");
    assert_eq!(
        (&asked["host"], &asked["limit"], &asked["state"]),
        (&json!("sw1"), &json!("1"), &json!("all"))
    );
    let said = server.run(&["jobs", "--all", "--status", "failed", "-o", "json"]);
    assert_eq!(said.json().as_array().unwrap().len(), 2);
    assert_eq!(server.asked.last("jobs 2")["cursor"], "c2");
    assert_eq!(server.run(&["jobs", "--status", "done"]).code, 2);
}

#[test]
fn a_job_is_watched_to_its_end() {
    let server = server();
    server.run(&["exec", "--host", "bad1", "-C", "x", "--no-wait"]);
    let said = server.run(&["watch", ID]);
    assert_eq!(said.code, 1, "{}", said.err);
    for part in [
        "04:05:06  bad1",
        "by w",
        "[2/2] vlan 5000: exit status 1: % Invalid input",
        "failed, outcome: not applied",
    ] {
        assert!(said.out.contains(part), "missing {part:?} in {}", said.out);
    }
    let said = server.run(&["watch", ID, "-o", "json"]);
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((events.len(), &events[3]["event"]), (4, &json!("ended")));
    let said = server.run(&["job", ID]);
    assert!(
        said.code == 1 && said.out.contains("04:05:09") && said.err.contains("queue    HostQ_bad1"),
        "{}",
        said.err
    );
}

#[test]
fn jobs_are_canceled() {
    let server = server();
    let said = server.run(&["cancel", ID, OTHER]);
    assert_eq!((said.code, said.out.trim()), (6, ID), "{}", said.err);
    assert!(said.err.contains("1 job canceled") && said.err.contains("not in queued state"), "{}", said.err);
    let said = server.run(&["cancel", "--host", "sw1"]);
    assert_eq!((said.code, said.out.lines().count()), (0, 2));
    assert_eq!(server.asked.last("cancel waiting"), json!({"host": "sw1"}));
    let said = server.run(&["cancel"]);
    assert!(said.code == 2 && said.err.contains("nothing is named"), "{}", said.err);
}

#[test]
fn workers_are_listed_and_stopped() {
    let server = server();
    let said = server.run(&["workers", "--node", "node-a"]);
    assert!(said.code == 0 && said.out.contains("node-a_FifoQ") && said.out.contains("idle"), "{}", said.out);
    assert_eq!(server.asked.last("workers"), json!({"node": "node-a"}));
    let said = server.run(&["workers", "stop", "node-a_HostQ_192.0.2.1:2222"]);
    assert_eq!(
        (said.code, server.asked.last("stop")),
        (0, json!("node-a_HostQ_192.0.2.1:2222")),
        "{}",
        said.err
    );
    assert_eq!(server.run(&["workers", "stop"]).code, 2);
}

#[test]
fn a_device_is_tested() {
    let server = server();
    let said = server.run(&["test", "--host", "sw1", "-d", "cisco_ios", "-u", "ops"]);
    assert!(said.code == 0 && said.out.contains("sw1 lets us in, after 310 ms"), "{}", said.out);
    let said = server.run(&["test", "--host", "bad1", "-d", "cisco_ios", "-u", "ops"]);
    assert!(
        said.code == 1 && said.err.contains("(authentication_failed)") && said.err.contains("hint:"),
        "{}",
        said.err
    );
}

#[test]
fn configuration_is_checked_and_shown() {
    let server = server();
    server.file("np.yaml", "server:\n  api_key: my-secret-key\n  prot: 3\n");
    let said = server.run(&["config", "check", "np.yaml"]);
    assert!(
        said.code == 2
            && said.err.contains("np.yaml:3: server.prot: no such key: did you mean `server.port`?"),
        "{}",
        said.err
    );
    server.file("np.yaml", "server:\n  api_key: my-secret-key\n  port: 9443\n");
    assert_eq!(server.run(&["config", "check", "np.yaml"]).code, 0);
    let said = server.run(&["config", "show", "np.yaml", "--changed"]);
    assert!(said.code == 0 && said.out.contains("9443") && said.out.contains("np.yaml:3"), "{}", said.out);
    assert!(!said.out.contains("my-secret-key") && said.out.lines().count() == 3, "{}", said.out);
    let said = server.run(&["config", "reference"]);
    server.file("config.yaml", &said.out);
    let said = server.run(&["config", "check", "config.yaml", "-o", "json"]);
    assert_eq!(said.json()["errors"].as_array().unwrap().len(), 1);
}

#[test]
fn templates_render_and_parse_without_a_server() {
    let server = server();
    server.file("vlan.j2", "vlan {{ id }}\n name {{ name }}\n");
    server.file("site.yaml", "id: 30\nname: printers\n");
    let said = server.run(&["render", "--template", "@vlan.j2", "--data", "@site.yaml"]);
    assert_eq!((said.code, said.out.as_str()), (0, "vlan 30\n name printers\n"), "{}", said.err);
    let said = server.run(&["render", "--template", "a\n{% for %}", "--data", "{}"]);
    assert!(
        said.code == 2 && said.err.contains("line 2") && said.err.contains("(template_syntax)"),
        "{}",
        said.err
    );
    server.file("v.textfsm", "Value V (\\S+)\n\nStart\n  ^Version ${V} -> Record\n");
    server.file("out.txt", "Version 9.9\nVersion 9.10\n");
    let args = ["parse", "--template", "@v.textfsm", "--data", "@out.txt"];
    let said = server.run(&args);
    assert_eq!((said.code, said.out.as_str()), (0, "V\n9.9\n9.10\n"), "{}", said.err);
    let said = server.run(&[&args[..], &["-o", "json"]].concat());
    assert_eq!(said.json(), json!([{"V": "9.9"}, {"V": "9.10"}]));
    let said = server.run(&["parse", "--template", "@v.textfsm", "out.txt", "-o", "json"]);
    assert_eq!(said.json(), json!([{"V": "9.9"}, {"V": "9.10"}]), "{}", said.err);
    let said = server.run(&["parse", "--template", "@v.textfsm", "nowhere.txt"]);
    assert!(said.code == 2 && said.err.contains("`nowhere.txt` cannot be read"), "{}", said.err);
    let said = server.run(&["parse", "out.txt"]);
    assert!(said.code == 2 && !said.err.contains("--api-key"), "{}", said.err);
    let said = server.run(&[
        "parse",
        "--platform",
        "cisco_ios",
        "--command",
        "show version",
        "--ntc-dir",
        "/nowhere",
    ]);
    assert!(said.code == 2 && said.err.contains("/nowhere"), "{}", said.err);
}

#[test]
fn platforms_are_listed_and_found() {
    let server = server();
    let said = server.run(&["platforms"]);
    assert!(
        said.code == 0 && said.out.contains("juniper_junos") && said.err.contains(" platforms, "),
        "{}",
        said.err
    );
    let said = server.run(&["platforms", "junos", "-o", "json"]);
    assert!(
        said.json()[0]["names"].as_array().unwrap().contains(&json!("juniper_junos_telnet")),
        "{}",
        said.out
    );
    assert_eq!(server.run(&["platforms", "no-such-thing"]).code, 6);
    std::fs::create_dir(server.folder.path().join("own")).unwrap();
    server.file("own/acme.yaml", "name: acme\nnmae: x\n");
    let said = server.run(&["platforms", "--dir", "own"]);
    assert!(said.code == 2 && said.err.contains("acme.yaml"), "{}", said.err);
    let said: Said = server
        .command(&["config", "check"])
        .env("NETPULSE_PLATFORM__DIR", "own")
        .env("NETPULSE_SERVER__API_KEY", KEY)
        .output()
        .unwrap()
        .into();
    assert!(
        said.code == 2
            && said.err.contains("NETPULSE_PLATFORM__DIR: platform.dir: platform file own/acme.yaml line 2"),
        "{}",
        said.err
    );
    server
        .file("own/acme.yaml", "name: acme\ndescription: Acme\nverified: facts\nprompt: { exec: '^x>$' }\n");
    let said: Said =
        server.command(&["platforms", "acme"]).env("NETPULSE_PLATFORM__DIR", "own").output().unwrap().into();
    assert!(said.code == 0 && said.out.contains("acme"), "{}", said.err);
    let said = server.run(&["platforms", "cisco_ios_telnet", "-o", "json"]);
    assert_eq!((said.code, said.json()[0]["name"].clone()), (0, json!("cisco_ios")), "{}", said.err);
    let said = server.run(&["platforms", "cisco_iso"]);
    assert!(
        said.code == 6 && said.err.contains("did you mean") && said.err.contains("cisco_ios"),
        "{}",
        said.err
    );
}

#[test]
fn devices_are_simulated_until_interrupted() {
    use std::io::BufRead;
    let server = server();
    let mut child = server
        .command(&[
            "simulate",
            "--devices",
            "3",
            "--ports",
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "-o",
            "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let devices: Value = serde_json::from_str(&line).unwrap();
    let address = devices[2]["ssh"].as_str().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut greeting = [0_u8; 8];
    std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = server.run(&["simulate", "--fault", "latncy=3"]);
    assert!(said.code == 2 && said.err.contains("there is no fault 'latncy'"), "{}", said.err);
    let said = server.run(&["simulate", "--platform", "cisco_ioss"]);
    assert!(said.code == 2 && said.err.contains("cisco_ioss"), "{}", said.err);
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let said = server().run(&["completions", shell]);
        assert!(said.code == 0 && said.out.contains("netpulse"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_fault() {
    let server = server();
    let mut child = server
        .command(&["config", "reference"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}
