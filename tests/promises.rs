//! The promises of ARCHITECTURE.md, proven on the whole program with simulated devices: what
//! counts is what the devices' own journal says they received.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant};

use netpulse_simulator::{Device, Faults, Kind, Plan, Running, Simulator};
use serde_json::{Value, json};
use support::{KEY, Server, eventually, free_port};

const ENABLE: &str = "lift-me-up";

fn devices(platform: &str, count: u32) -> Running {
    Simulator::start(Plan { enable: ENABLE.into(), ..Plan::of(platform, count) }).unwrap()
}

fn args(device: &Device, platform: &str) -> Value {
    let at = device.ssh.unwrap();
    json!({"device_type": platform, "host": at.ip().to_string(), "port": at.port(), "username": "admin",
        "password": "admin", "secret": ENABLE})
}

fn query(device: &Device, command: &str) -> Value {
    json!({"driver": "netmiko", "connection_args": args(device, "cisco_ios"), "command": command})
}

fn change(device: &Device, lines: &[String]) -> Value {
    json!({"driver": "netmiko", "connection_args": args(device, "cisco_ios"), "config": lines})
}

fn loopback(n: usize) -> Vec<String> {
    vec![format!("interface Loopback{n}"), format!("description mark-{n:04}")]
}

/// The `description mark-…` lines that a device received, in order.
fn marks(running: &Running, device: usize) -> Vec<String> {
    let lines = running.journal().lines(u32::try_from(device).unwrap());
    lines.into_iter().filter(|l| l.contains("description mark-")).map(|l| l.trim().to_owned()).collect()
}

fn exits(job: &Value) -> Vec<i64> {
    let items = job["result"]["retval"].as_array().unwrap();
    items.iter().map(|r| r["exit_status"].as_i64().unwrap()).collect()
}

/// Every journal is whole and holds each marked line at most once.
fn no_line_twice(running: &Running) {
    assert_eq!(running.journal().dropped(), 0);
    for device in 0..running.devices().len() {
        let mut seen = marks(running, device);
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "device {device} received a line twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_5_6_kill_9_loses_nothing_and_pushes_nothing_twice() {
    let running = devices("cisco_ios", 6);
    running.set_faults(&Faults { latency_ms: 3, ..Faults::default() });
    let mut server = Server::start("worker: {lease: 2}");
    let mut accepted: Vec<(String, Option<(usize, usize)>)> = Vec::new();
    let mut n = 0;
    for round in 0..4 {
        let until = Instant::now() + Duration::from_millis(150 + 130 * round);
        while Instant::now() < until {
            let at = n % running.devices().len();
            let device = running.device(at);
            let (body, what) = if n % 3 == 0 {
                (query(device, "show clock"), None)
            } else {
                (change(device, &loopback(n)), Some((at, n)))
            };
            let (status, job) = server.post("/device/exec", &body).await;
            assert_eq!(status, 201, "{job}");
            accepted.push((job["id"].as_str().unwrap().to_owned(), what));
            n += 1;
        }
        server.kill();
        server.launch();
    }
    let mut unknown = 0;
    for (id, what) in &accepted {
        let job = server.job(id, 60).await;
        let status = job["status"].as_str().unwrap();
        assert!(["finished", "failed"].contains(&status), "accepted and never settled: {job}");
        assert!(!job["result"].is_null(), "final without a result: {job}");
        let Some((device, n)) = what else {
            // Run again after a lost worker; after the third it may be what ends them.
            let poison = job["result"]["error"]["type"] == "worker_lost" && job["attempt"] == 3;
            assert!(status == "finished" || poison, "{job}");
            continue;
        };
        let received = marks(&running, *device).iter().any(|l| l.ends_with(&format!("mark-{n:04}")));
        match job["result"]["outcome"].as_str().unwrap() {
            "applied" => assert!(received && status == "finished", "{job}"),
            "not_applied" => assert!(!received && status == "failed", "{job}"),
            "partial" | "unknown" => {
                unknown += 1;
                assert_eq!(status, "failed", "{job}");
                assert_eq!(job["result"]["error"]["type"], "worker_lost", "{job}");
            }
            other => panic!("no outcome: {other}"),
        }
    }
    // At most what was in flight, one a device and kill, may be unknown.
    assert!(unknown <= 4 * running.devices().len(), "{unknown} unknown outcomes");
    no_line_twice(&running);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_2_an_owner_frozen_past_its_lease_sends_nothing_more() {
    let running = devices("cisco_ios", 1);
    running.set_faults(&Faults { latency_ms: 100, ..Faults::default() });
    let server = Server::start("worker: {lease: 2}");
    let device = running.device(0);
    let lines: Vec<String> = (0..60).flat_map(loopback).collect();
    let (_, job) = server.post("/device/exec", &change(device, &lines)).await;
    eventually(20, "a few lines sent", || marks(&running, 0).len() >= 2);
    server.signal("-STOP");
    // Longer than the lease: by now a successor would have been let in.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let frozen = running.journal().lines(0).len();
    server.signal("-CONT");
    let job = server.job(job["id"].as_str().unwrap(), 30).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(["unknown", "partial"].contains(&job["result"]["outcome"].as_str().unwrap()), "{job}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.journal().lines(0).len(), frozen, "sent after its lease had ended");
    // And the node serves on under a new lease.
    running.set_faults(&Faults::default());
    let after = server.exec(&query(device, "show clock")).await;
    assert_eq!(after["status"], "finished", "{after}\n{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_3_one_devices_changes_start_in_order_and_overlap_with_nothing() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("");
    let device = running.device(0);
    let mut ids = Vec::new();
    for n in 0..20 {
        let mut body = change(device, &loopback(n));
        // The order holds within a queue; exclusion over both.
        body["queue_strategy"] = json!(if n % 4 == 3 { "fifo" } else { "pinned" });
        let (status, job) = server.post("/device/exec", &body).await;
        assert_eq!(status, 201, "{job}");
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    for id in &ids {
        let job = server.job(id, 60).await;
        assert_eq!(job["result"]["outcome"], "applied", "{job}\n{}", server.log());
    }
    let numbers: Vec<usize> =
        marks(&running, 0).iter().map(|l| l.rsplit('-').next().unwrap().parse().unwrap()).collect();
    let pinned: Vec<usize> = numbers.iter().copied().filter(|n| n % 4 != 3).collect();
    let fifo: Vec<usize> = numbers.iter().copied().filter(|n| n % 4 == 3).collect();
    assert!(pinned.is_sorted() && fifo.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.len(), 20);
    // An interface line is followed by its own description: nothing came between.
    let lines: Vec<String> = running
        .journal()
        .lines(0)
        .into_iter()
        .filter(|l| l.contains("Loopback") || l.contains("mark-"))
        .collect();
    for pair in lines.chunks(2) {
        let of = |l: &str| l.trim_end().chars().rev().take_while(char::is_ascii_digit).collect::<Vec<_>>();
        let numbers: Vec<usize> =
            pair.iter().map(|l| of(l).iter().rev().collect::<String>().parse().unwrap()).collect();
        assert_eq!(numbers[0], numbers[1], "two changes overlapped: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_4_d20_a_refused_line_discards_the_candidate() {
    let running = devices("juniper_junos", 1);
    let server = Server::start("");
    let device = running.device(0);
    let body = json!({"driver": "netmiko", "connection_args": args(device, "juniper_junos"),
        "config": ["set system location building one", "this is no junos", "set system location floor 2"]});
    let before = device.running_config();
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "failed", "{job}\n{}", server.log());
    assert_eq!(job["result"]["outcome"], "not_applied", "{job}");
    assert_eq!(job["result"]["error"]["type"], "line_rejected", "{job}");
    assert_eq!((device.commits(), device.running_config()), (0, before), "part of it was committed");
    assert!(!device.unsaved() || device.candidate_config().is_none_or(|c| !c.contains("building one")));
    let good = json!({"driver": "netmiko", "connection_args": args(device, "juniper_junos"),
        "config": ["set system location building two"]});
    let job = server.exec(&good).await;
    assert_eq!(job["result"]["outcome"], "applied", "{job}\n{}", server.log());
    assert!(device.running_config().contains("two") && !device.running_config().contains("one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_5_s1_what_cannot_be_reached_or_entered_is_failed() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("");
    let device = running.device(0);
    assert_eq!(server.exec(&query(device, "show clock")).await["status"], "finished");
    // Another password on the same device never runs over the first one's session.
    let mut wrong = query(device, "show clock");
    wrong["connection_args"]["password"] = json!("not-the-password");
    let job = server.exec(&wrong).await;
    assert_eq!(
        (&job["status"], &job["result"]["error"]["type"]),
        (&json!("failed"), &json!("authentication_failed")),
        "{job}"
    );
    assert!(!job.to_string().contains("not-the-password"), "{job}");
    let mut closed = change(device, &loopback(1));
    closed["connection_args"]["port"] = json!(free_port());
    let job = server.exec(&closed).await;
    assert_eq!(
        (&job["status"], &job["result"]["error"]["type"]),
        (&json!("failed"), &json!("connect_failed")),
        "{job}"
    );
    assert_eq!(job["result"]["outcome"], "not_applied", "{job}");
    assert_eq!(server.exec(&query(device, "show clock")).await["status"], "finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_8_the_same_idempotency_key_gives_the_same_job() {
    let running = devices("cisco_ios", 1);
    let mut server = Server::start("");
    let body = change(running.device(0), &loopback(8));
    let post = |server: &Server, body: &Value| {
        server
            .request(reqwest::Method::POST, "/device/exec?wait=30")
            .header("Idempotency-Key", "push-8")
            .json(body)
    };
    let (status, first) = server.send(post(&server, &body)).await;
    assert_eq!((status, &first["result"]["outcome"]), (201, &json!("applied")), "{first}");
    server.kill();
    server.launch();
    let (_, again) = server.send(post(&server, &body)).await;
    assert_eq!(again["id"], first["id"], "{again}");
    let (status, other) = server.send(post(&server, &change(running.device(0), &loopback(9)))).await;
    assert_eq!(status, 409, "{other}");
    assert_eq!(marks(&running, 0).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_9_cancel_says_between_which_lines() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("");
    let device = running.device(0);
    assert_eq!(server.exec(&query(device, "show clock")).await["status"], "finished");
    running.set_faults(&Faults { latency_ms: 150, ..Faults::default() });
    let lines: Vec<String> = (0..40).flat_map(loopback).collect();
    let (_, job) = server.post("/device/exec", &change(device, &lines)).await;
    let id = job["id"].as_str().unwrap().to_owned();
    let (_, behind) = server.post("/device/exec", &query(device, "show clock")).await;
    eventually(20, "a few lines sent", || marks(&running, 0).len() >= 2);
    let (status, canceled) = server.delete(&format!("/jobs/{}", behind["id"].as_str().unwrap())).await;
    assert_eq!(status, 200, "{canceled}");
    let (status, _) = server.delete(&format!("/jobs/{id}")).await;
    assert_eq!(status, 200);
    let job = server.job(&id, 30).await;
    assert_eq!(job["status"], "canceled", "{job}");
    assert_eq!(job["result"]["outcome"], "partial", "{job}");
    let message = job["result"]["error"]["message"].as_str().unwrap();
    assert!(message.to_lowercase().contains("between line"), "{message}");
    let sent = exits(&job).iter().filter(|e| **e == 0).count();
    let received =
        running.journal().lines(0).iter().filter(|l| l.contains("Loopback") || l.contains("mark-")).count();
    assert_eq!(sent, received, "the result and the device disagree: {job}");
    assert!(received < lines.len());
    assert_eq!(server.job(behind["id"].as_str().unwrap(), 5).await["status"], "canceled");
    let (status, late) = server.delete(&format!("/jobs/{id}")).await;
    assert_eq!(status, 404, "{late}");
    running.set_faults(&Faults::default());
    assert_eq!(server.exec(&query(device, "show clock")).await["status"], "finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_9_a_command_that_hangs_is_interrupted() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("");
    let device = running.device(0);
    running.set_faults(&Faults { hang_on: "show clock".into(), ..Faults::default() });
    let mut body = query(device, "show clock");
    body["driver_args"] = json!({"read_timeout": 60});
    let (_, job) = server.post("/device/exec", &body).await;
    let hangs = || running.journal().lines(0).iter().any(|l| l.contains("show clock"));
    eventually(20, "the command sent", hangs);
    let began = Instant::now();
    let (status, _) = server.delete(&format!("/jobs/{}", job["id"].as_str().unwrap())).await;
    assert_eq!(status, 200);
    let job = server.job(job["id"].as_str().unwrap(), 30).await;
    assert_eq!(job["status"], "canceled", "{job}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    running.set_faults(&Faults::default());
    assert_eq!(server.exec(&query(device, "show version")).await["status"], "finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_10_a_flood_is_cut_and_memory_stays_flat() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("session: {max_output: 1000000}");
    let device = running.device(0);
    running.set_faults(&Faults { flood_on: "show tech".into(), ..Faults::default() });
    let before = support::resident(server.pid());
    let mut body = query(device, "show tech-support");
    body["driver_args"] = json!({"read_timeout": 60});
    let job = server.exec(&body).await;
    assert_eq!(
        (&job["status"], &job["result"]["error"]["type"]),
        (&json!("failed"), &json!("output_too_large")),
        "{job}"
    );
    let grown = support::resident(server.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
    running.set_faults(&Faults::default());
    assert_eq!(server.exec(&query(device, "show version")).await["status"], "finished");
    let (status, large) =
        server.send(server.request(reqwest::Method::POST, "/device/exec").body("x".repeat(40 << 20))).await;
    assert_eq!(status, 413, "{large}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_12_a_planted_secret_appears_nowhere() {
    const PLANTED: &str = "pl4nted-Secret-77";
    let running = Simulator::start(Plan {
        users: [("ops".to_owned(), PLANTED.to_owned())].into(),
        enable: PLANTED.into(),
        ..Plan::of("cisco_ios", 1)
    })
    .unwrap();
    let server = Server::start("log: {level: DEBUG}");
    let device = running.device(0);
    let mut connection = args(device, "cisco_ios");
    connection["username"] = json!("ops");
    connection["password"] = json!(PLANTED);
    connection["secret"] = json!(PLANTED);
    let mut seen = Vec::new();
    for payload in [
        json!({"command": "show version"}),
        json!({"config": [format!("username backup password {PLANTED}"), "bogus".to_owned()]}),
        json!({"config": ["interface Loopback5"], "save": true}),
        json!({"command": "show clock", "queue_strategy": "fifo"}),
        json!({"command": "show clock", "connection_args": {"host": "127.0.0.1", "port": 1, "username": "ops",
            "password": PLANTED, "device_type": "cisco_ios"}}),
        json!({"command": "x", "ttl": PLANTED, "connection_args": {"password": PLANTED}}),
    ] {
        let mut body = json!({"driver": "netmiko", "connection_args": connection});
        for (key, value) in payload.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (_, job) = server.post("/device/exec?wait=30", &body).await;
        // A wrong field's own value comes back to whoever sent it; `ttl` is no secret's place.
        if body["ttl"].is_null() {
            seen.push(job.to_string());
        }
    }
    for path in ["/jobs", "/workers", "/system/stats", "/health"] {
        seen.push(server.get(path).await.1.to_string());
    }
    seen.push(server.log());
    for entry in std::fs::read_dir(server.dir.join("store")).unwrap() {
        seen.push(String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).into_owned());
    }
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{}/{file}", server.pid())).unwrap();
        seen.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    for text in seen {
        if let Some(at) = text.find(PLANTED) {
            let from = text[..at].char_indices().rev().nth(300).map_or(0, |(i, _)| i);
            panic!("the secret came out: {}", &text[from..at + PLANTED.len()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_13_a_changed_host_key_is_refused_with_the_way_out() {
    let running =
        Simulator::start(Plan { enable: ENABLE.into(), own_host_keys: true, ..Plan::of("cisco_ios", 1) })
            .unwrap();
    let server = Server::start("");
    let device = running.device(0);
    assert_eq!(server.exec(&query(device, "show clock")).await["status"], "finished");
    running.set_faults(&Faults { host_key: 1, ..Faults::default() });
    device.drop_connections();
    let job = server.exec(&query(device, "show clock")).await;
    assert_eq!(
        (&job["status"], &job["result"]["error"]["type"]),
        (&json!("failed"), &json!("host_key_changed")),
        "{job}"
    );
    let message = job["result"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("known_hosts"), "does not say how to accept it: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_rebooted_device_costs_one_retry() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("");
    let device = running.device(0);
    assert_eq!(server.exec(&query(device, "show clock")).await["status"], "finished");
    device.reboot(Duration::from_millis(100));
    let mut body = query(device, "show clock");
    body["retry"] = json!({"max": 5, "intervals": [0.2]});
    let job = server.exec(&body).await;
    assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn d16_capacity_is_never_for_ever() {
    let running = devices("cisco_ios", 6);
    let server = Server::start("worker: {pinned_per_node: 2}");
    let list: Vec<Value> = running
        .devices()
        .iter()
        .map(|d| json!({"host": d.ssh.unwrap().ip().to_string(), "port": d.ssh.unwrap().port()}))
        .collect();
    let mut shared = args(running.device(0), "cisco_ios");
    shared.as_object_mut().unwrap().remove("host");
    let body =
        json!({"driver": "netmiko", "connection_args": shared, "command": "show clock", "devices": list});
    for _ in 0..2 {
        let (status, bulk) = server.post("/device/bulk?wait=60", &body).await;
        assert_eq!((status, bulk["failed"].as_array().unwrap().len()), (201, 0), "{bulk}");
        for job in bulk["succeeded"].as_array().unwrap() {
            assert_eq!(job["status"], "finished", "{job}\n{}", server.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_lets_the_change_in_flight_end() {
    let running = devices("cisco_ios", 1);
    let mut server = Server::start("");
    let device = running.device(0);
    running.set_faults(&Faults { latency_ms: 60, ..Faults::default() });
    let lines: Vec<String> = (0..8).flat_map(loopback).collect();
    let (_, job) = server.post("/device/exec", &change(device, &lines)).await;
    eventually(20, "the first lines", || !marks(&running, 0).is_empty());
    let began = Instant::now();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(15), "waited for nothing: {:?}", began.elapsed());
    assert_eq!(marks(&running, 0).len(), 8);
    server.launch();
    let job = server.job(job["id"].as_str().unwrap(), 5).await;
    assert_eq!(job["result"]["outcome"], "applied", "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_store_serves_one_server() {
    let server = Server::start("");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_netpulse"))
        .args(["serve", "--port", "0", "--store"])
        .arg(server.dir.join("store"))
        .env("NETPULSE_SERVER__API_KEY", KEY)
        .current_dir(&server.dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("in use by process"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_a_job_line_by_line() {
    let running = devices("cisco_ios", 1);
    let server = Server::start("");
    let job = server.exec(&change(running.device(0), &loopback(3))).await;
    let reply = server
        .request(reqwest::Method::GET, &format!("/jobs/{}/events", job["id"].as_str().unwrap()))
        .send()
        .await
        .unwrap();
    let text = reply.text().await.unwrap();
    let names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("event:")).map(str::trim).collect();
    assert_eq!(names.first(), Some(&"queued"), "{text}");
    assert_eq!(names.last(), Some(&"ended"), "{text}");
    assert_eq!(names.iter().filter(|n| **n == "line").count(), 2, "{text}");
    assert_eq!(running.journal().entries().iter().filter(|e| e.kind == Kind::Rejected).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_answer_is_left_alone_and_why_says_so() {
    let server = Server::start("worker: {breaker_failures: 2, breaker_pause: 5}");
    // Takes connections and never says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ask = |more: Value| {
        let mut body = json!({"driver": "netmiko", "connection_args": {"device_type": "cisco_ios",
            "host": "127.0.0.1", "port": mute.local_addr().unwrap().port(), "username": "admin",
            "password": "admin", "banner_timeout": 1.2}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for _ in 0..2 {
        let job = server.exec(&ask(json!({"command": "show clock"}))).await;
        assert_ne!(job["result"]["error"]["type"], "breaker_open", "{job}");
        assert_eq!(job["status"], "failed", "{job}");
    }
    let (_, held) = server
        .post("/device/exec", &ask(json!({"command": "show clock", "retry": {"max": 1, "intervals": [0.1]}})))
        .await;
    let began = Instant::now();
    let job = server.exec(&ask(json!({"config": ["vlan 10"]}))).await;
    assert!(began.elapsed() < Duration::from_secs(1), "at once: {:?}", began.elapsed());
    assert_eq!(
        (&job["status"], &job["result"]["outcome"]),
        (&json!("failed"), &json!("not_applied")),
        "{job}"
    );
    assert_eq!(job["result"]["error"]["type"], "breaker_open", "{job}");
    let said = job["result"]["error"]["message"].as_str().unwrap();
    assert!(said.contains("did not answer 2 times in a row"), "{said}");
    // One that may be tried again waits for it.
    let id = held["id"].as_str().unwrap();
    let (_, why) = server.get(&format!("/jobs/{id}/why")).await;
    assert_eq!(why["kind"], "breaker", "{why}");
    assert!(why["reason"].as_str().unwrap().contains("did not answer 2 times in a row"), "{why}");
    let job = server.job(id, 30).await;
    assert_ne!(job["result"]["error"]["type"], "breaker_open", "it was tried when the pause was over: {job}");
    assert_eq!(job["attempt"], 2, "{job}");

    // A refused login is left alone; the right one is not.
    let running = devices("cisco_ios", 1);
    let mut wrong = query(running.device(0), "show clock");
    wrong["connection_args"]["password"] = json!("no-such-word");
    for expected in ["authentication_failed", "authentication_failed", "breaker_open"] {
        let job = server.exec(&wrong).await;
        assert_eq!(job["result"]["error"]["type"], expected, "{job}");
    }
    let job = server.exec(&query(running.device(0), "show clock")).await;
    assert_eq!(job["status"], "finished", "{job}");
}
