//! Webhooks over REST with the real server: what counts is what the receiver got.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[allow(dead_code)]
#[path = "shipped_plugins/built.rs"]
mod built;
#[path = "support/mischief.rs"]
mod mischief;
#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use mischief::Mischief;
use netpulse_simulator::{Device, Faults, Plan, Running, Simulator};
use receiver::Receiver;
use serde_json::{Value, json};
use support::cluster::{Client, Cluster, Part};
use support::{Reaped, Server, eventually, free_port};

const SECRET: &str = "s3cret-of-the-receiver";
const ALLOW: &str = "webhook: {allow_private: [127.0.0.1]}\nworker: {lease: 2}";

fn devices(count: u32) -> Running {
    Simulator::start(Plan { enable: String::new(), ..Plan::of("cisco_ios", count) }).unwrap()
}

fn args(device: &Device) -> Value {
    let at = device.ssh.unwrap();
    json!({"device_type": "cisco_ios", "host": at.ip().to_string(), "port": at.port(), "username": "admin",
        "password": "admin"})
}

fn query(device: &Device, webhook: Value) -> Value {
    json!({"driver": "netmiko", "connection_args": args(device), "command": "show clock", "webhook": webhook})
}

fn change(device: &Device, lines: &[&str], webhook: Value) -> Value {
    json!({"driver": "netmiko", "connection_args": args(device), "config": lines, "webhook": webhook})
}

/// The events of all jobs from now on, as text.
async fn watch(server: &Server) -> impl AsyncFnMut(&str) -> String {
    let reply = server.request(reqwest::Method::GET, "/events").send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let mut stream = reply.bytes_stream();
    let mut text = String::new();
    async move |wanted: &str| {
        let told = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                if let Some(at) = text.find(wanted) {
                    let end = text[at..].find("\n\n").map(|end| at + end);
                    if let Some(end) = end {
                        return text[at..end].to_owned();
                    }
                }
                let chunk = stream.next().await.expect("the stream lives").unwrap();
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
        });
        told.await.expect("the event comes")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_5_a_webhook_tells_the_stored_end_in_full_and_promise_12_no_secret() {
    let running = devices(1);
    let receiver = Receiver::start().await;
    let server = Server::start(ALLOW);
    let webhook = json!({"url": receiver.url("/ok/in?token=url-t0ken-1"), "method": "PUT",
        "headers": {"X-Key": "header-s3cret-2", "Authorization-Not": "a"}, "cookies": {"session": "cookie-s3cret-3"},
        "auth": ["hook", "auth-s3cret-4"], "secret": SECRET});
    let (status, job) = server.post("/device/exec?wait=60", &query(running.device(0), webhook)).await;
    assert_eq!((status, job["status"].as_str()), (201, Some("finished")), "{job}");
    let calls = receiver.until(20, "the call", |calls| !calls.is_empty()).await;
    let call = &calls[0];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("PUT", "/ok/in"));
    assert_eq!(call.header("x-key"), "header-s3cret-2");
    assert_eq!(call.header("cookie"), "session=cookie-s3cret-3");
    assert_eq!(call.header("authorization"), "Basic aG9vazphdXRoLXMzY3JldC00");
    assert_eq!(call.header("content-type"), "application/json");
    assert_eq!(call.header("x-netpulse-event"), "job.completed");
    assert_eq!(call.header("x-netpulse-attempt"), "1");
    assert_eq!(call.delivery().len(), 36);

    let told = call.json();
    let (_, stored) = server.get(&format!("/jobs/{}", job["id"].as_str().unwrap())).await;
    for key in ["id", "status", "started_at", "ended_at", "duration", "task_id", "device_name", "command"] {
        assert_eq!(told[key], stored[key], "{key}");
    }
    assert_eq!((&told["event_type"], &told["final"]), (&json!("job.completed"), &json!(true)));
    assert_eq!(told["timestamp"], stored["ended_at"]);
    assert!(told["duration"].as_f64().unwrap() > 0.0);
    assert_eq!(told["result"]["type"], "successful");
    assert_eq!(told["result"]["error"], Value::Null);
    assert_eq!(told["result"]["retval"], stored["result"]["retval"]);
    assert!(told["result"]["retval"][0]["stdout"].as_str().unwrap().contains("UTC"), "{told}");
    assert_eq!(told["device"], json!({"host": "127.0.0.1", "device_type": "cisco_ios"}));

    verified_by_python(SECRET, &call.header("x-netpulse-signature"), &call.body);

    // A change that is refused half way, told by its outcome.
    let webhook = json!({"url": receiver.url("/ok/change")});
    let lines = ["interface Loopback7", "descripshun wrong"];
    let job = server.exec(&change(running.device(0), &lines, webhook)).await;
    assert_eq!(job["status"], "failed", "{job}");
    let calls = receiver.until(20, "the second call", |calls| calls.len() == 2).await;
    let failed = calls[1].json();
    assert_eq!((&failed["event_type"], &failed["status"]), (&json!("job.failed"), &json!("failed")));
    assert_eq!(
        (&failed["result"]["type"], &failed["result"]["outcome"]),
        (&json!("failed"), &job["result"]["outcome"])
    );
    assert_eq!(failed["result"]["error"], job["result"]["error"]);
    assert!(calls[1].header("x-netpulse-signature").is_empty(), "no key, no signature");

    // Neither what is told nor what is listed nor what is logged or stored holds a secret.
    let (_, listed) = server.get("/jobs").await;
    let body = String::from_utf8(call.body.clone()).unwrap();
    let store: Vec<u8> = ["queue.sqlite", "queue.sqlite-wal"]
        .iter()
        .flat_map(|name| std::fs::read(server.dir.join("store").join(name)).unwrap_or_default())
        .collect();
    for secret in ["url-t0ken-1", "header-s3cret-2", "cookie-s3cret-3", "auth-s3cret-4", SECRET] {
        for (place, text) in [
            ("payload", &body),
            ("listing", &listed.to_string()),
            ("job", &stored.to_string()),
            ("log", &server.log()),
        ] {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
        assert!(!store.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} unsealed at rest");
    }
}

/// The signature, computed again by somebody else's code.
fn verified_by_python(secret: &str, header: &str, body: &[u8]) {
    let script = "import hashlib, hmac, sys, time\n\
        secret, header = sys.argv[1].encode(), sys.argv[2]\n\
        body = sys.stdin.buffer.read()\n\
        parts = dict(part.split('=', 1) for part in header.split(','))\n\
        expected = hmac.new(secret, parts['t'].encode() + b'.' + body, hashlib.sha256).hexdigest()\n\
        assert hmac.compare_digest(expected, parts['v1']), 'wrong signature'\n\
        assert abs(time.time() - int(parts['t'])) < 300, 'too old'\n\
        print('valid')\n";
    let check = |body: &[u8]| {
        let mut python = Command::new("python3")
            .args(["-c", script, secret, header])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(body).unwrap();
        python.wait_with_output().unwrap()
    };
    let output = check(body);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "valid", "{output:?}");
    let mut changed = body.to_vec();
    changed[0] ^= 1;
    assert!(String::from_utf8_lossy(&check(&changed).stderr).contains("wrong signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_kill_9_between_end_and_delivery_delivers_after_the_restart() {
    let running = devices(1);
    let mut server = Server::start(ALLOW);
    // Nobody listens yet: the job ends, its first attempt fails, then the server is killed.
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/webhook");
    let webhook = json!({"url": url, "retry_intervals": [2], "max_retries": 10});
    let job = server.exec(&change(running.device(0), &["interface Loopback1"], webhook)).await;
    assert_eq!(job["status"], "finished", "{job}");
    // And one that hangs in the receiver's hands when the server is killed.
    let receiver = Receiver::start().await;
    let hanging = server
        .exec(&query(running.device(0), json!({"url": receiver.url("/hang"), "retry_intervals": [0]})))
        .await;
    let first = receiver.until(20, "the first attempt", |calls| calls.len() == 1).await;
    server.kill();
    let program = env!("CARGO_BIN_EXE_netpulse");
    let receive = Command::new(program)
        .args(["webhook-dev", "--port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _receive = Reaped(receive.unwrap());
    server.launch();

    let http = reqwest::Client::new();
    let mut messages = Value::Null;
    let until = Instant::now() + Duration::from_secs(40);
    while messages["total"].as_u64().unwrap_or(0) == 0 {
        assert!(Instant::now() < until, "nothing came: {}", server.log());
        if let Ok(reply) = http.get(format!("http://127.0.0.1:{port}/messages")).send().await {
            messages = reply.json().await.unwrap();
        }
        // Another process is being waited for: there is nothing to be notified by.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let message = &messages["messages"][0];
    assert_eq!(message["payload"]["id"], job["id"]);
    assert_eq!(message["payload"]["ended_at"], job["ended_at"], "what was stored before the kill");
    assert_eq!(message["payload"]["result"]["outcome"], "applied");
    assert!(message["attempt"].as_str().unwrap().parse::<u32>().unwrap() >= 2, "{message}");

    let calls = receiver.until(40, "another attempt", |calls| calls.len() >= 2).await;
    assert_eq!(calls[1].delivery(), first[0].delivery(), "the same delivery");
    assert_eq!(calls[1].header("x-netpulse-attempt"), "2", "the attempt that was cut off counts");
    assert_eq!(
        (calls[1].json(), &calls[1].json()["id"]),
        (first[0].json(), &hanging["id"]),
        "the same message"
    );

    // The helper's other pages.
    for (path, key) in [
        ("/webhook/status", "running"),
        ("/stats", "job.completed"),
        ("/export", "cisco_ios"),
        ("/health", "ok"),
    ] {
        let text =
            http.get(format!("http://127.0.0.1:{port}{path}")).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(key), "{path}: {text}");
    }
    http.delete(format!("http://127.0.0.1:{port}/clear")).send().await.unwrap();
    let after = http.get(format!("http://127.0.0.1:{port}/stats")).send().await.unwrap();
    assert_eq!(after.json::<Value>().await.unwrap()["total"], 0);
}

/// The whole program on one of the engines, to be killed and started again.
enum Engine {
    Embedded(Box<Server>),
    Redis(Box<Cluster>, Client),
}

impl Engine {
    fn start(redis: bool, extra: &str) -> Self {
        if !redis {
            return Self::Embedded(Box::new(Server::start(extra)));
        }
        let cluster = Cluster::start(&[Part::All], extra);
        let client = cluster.client();
        Self::Redis(Box::new(cluster), client)
    }

    fn kill_9_and_start_again(&mut self) {
        match self {
            Self::Embedded(server) => {
                server.kill();
                server.launch();
            }
            Self::Redis(cluster, client) => {
                let process = cluster.process("all-0");
                let url = process.url.clone();
                process.kill();
                process.launch();
                client.moved(&url, &process.url);
            }
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        match self {
            Self::Embedded(server) => server.post(path, body).await,
            Self::Redis(_, client) => client.post(path, body).await,
        }
    }

    async fn get(&self, path: &str) -> Value {
        match self {
            Self::Embedded(server) => server.get(path).await.1,
            Self::Redis(_, client) => client.get(path).await,
        }
    }
}

/// `count` jobs whose receiver fails every second call, with a `kill -9` on the way: all arrive.
async fn flaky_receiver(redis: bool, count: usize) {
    let running = devices(20);
    let receiver = Receiver::start().await;
    let mut engine = Engine::start(redis, &format!("{ALLOW}\njob: {{result_ttl: 3600}}"));
    let webhook = json!({"url": receiver.url("/second"), "retry_intervals": [0.2], "max_retries": 10});
    let mut ids = HashSet::new();
    let started = Instant::now();
    for batch in 0..count.div_ceil(500) {
        let size = 500.min(count - batch * 500);
        let hosts: Vec<Value> = (0..size)
            .map(|n| {
                let at = running.device(n % running.devices().len()).ssh.unwrap();
                json!({"host": at.ip().to_string(), "port": at.port()})
            })
            .collect();
        let body = json!({"driver": "netmiko", "command": "show clock", "webhook": webhook, "devices": hosts,
            "connection_args": {"device_type": "cisco_ios", "username": "admin", "password": "admin"}});
        let (status, answer) = engine.post("/device/bulk", &body).await;
        assert_eq!(status, 201, "{answer}");
        for job in answer["succeeded"].as_array().unwrap() {
            assert!(ids.insert(job["id"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(ids.len(), count);
    receiver.until_arrived(600, count / 3).await;
    let killed = Instant::now();
    engine.kill_9_and_start_again();
    receiver.until_arrived(900, count).await;
    let calls = receiver.calls();
    let (seconds, after) = (started.elapsed().as_secs_f64(), killed.elapsed().as_secs_f64());
    let told: HashSet<String> = calls
        .iter()
        .filter(|call| call.arrived)
        .map(|call| call.json()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, ids, "every job's receiver was told");
    // A job has one delivery, whatever happened; one that arrives twice was cut off by the kill.
    let mut of_job: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    for call in &calls {
        of_job.entry(call.json()["id"].as_str().unwrap().to_owned()).or_default().insert(call.delivery());
    }
    let twice = receiver.arrived().values().filter(|times| **times > 1).count();
    let repeated = of_job.values().filter(|ids| ids.len() > 1).count();
    eprintln!(
        "{count} deliveries to a receiver that fails every second time, {}: {seconds:.1} s from the first submit, \
         {after:.1} s from the kill; {} calls, {twice} deliveries arrived twice, {repeated} jobs ran again",
        if redis { "Redis" } else { "embedded" },
        calls.len()
    );
    assert!(twice <= 256, "only what was in the courier's hands may come twice: {twice}");
    let stats = engine.get("/system/stats").await;
    assert_eq!(stats["jobs"]["succeeded"].as_u64(), Some(count as u64), "{stats}");
}

/// What a debug build delivers in about half a minute.
const SOME: usize = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_a_receiver_that_fails_every_second_time_gets_everything() {
    flaky_receiver(false, SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_a_receiver_that_fails_every_second_time_gets_everything_on_redis() {
    flaky_receiver(true, SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full size of the two tests above: minutes each (scripts/webhooks)"]
async fn promise_1_a_receiver_that_fails_every_second_time_gets_everything_10000() {
    flaky_receiver(false, 10_000).await;
    flaky_receiver(true, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_neither_jobs_nor_other_receivers() {
    let running = devices(4);
    let dead = Receiver::start().await;
    let good = Receiver::start().await;
    let server = Server::start(ALLOW);
    let hosts: Vec<Value> = (0..300)
        .map(|n| {
            let at = running.device(n % 4).ssh.unwrap();
            json!({"host": at.ip().to_string(), "port": at.port()})
        })
        .collect();
    let body = json!({"driver": "netmiko", "command": "show clock", "devices": hosts,
        "webhook": {"url": dead.url("/hang"), "timeout": 120},
        "connection_args": {"device_type": "cisco_ios", "username": "admin", "password": "admin"}});
    let (status, answer) = server.post("/device/bulk?wait=120", &body).await;
    assert_eq!(status, 201, "{answer}");
    assert!(
        answer["succeeded"].as_array().unwrap().iter().all(|job| job["status"] == "finished"),
        "{answer}"
    );
    // One that is not known to work gets few attempts at a time.
    dead.until(20, "the dead one was called", |calls| calls.len() >= 2).await;
    for n in 0..5 {
        let job = server.exec(&query(running.device(n % 4), json!({"url": good.url("/ok")}))).await;
        let ended = Instant::now();
        assert_eq!(job["status"], "finished");
        good.until(20, "the good one was told", |calls| calls.len() == n + 1).await;
        assert!(ended.elapsed() < Duration::from_secs(3), "delayed by {:?}", ended.elapsed());
    }
    let flying = dead.calls().len();
    assert!(flying <= 8, "{flying} attempts at a time to one receiver");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_public_are_called_only_where_the_site_allows() {
    let running = devices(1);
    let receiver = Receiver::start().await;
    let server = Server::start("");
    for url in [
        receiver.url("/ok"),
        format!("http://2130706433:{}/ok", receiver.port),
        format!("http://0x7f.1:{}/ok", receiver.port),
        format!("http://[::ffff:127.0.0.1]:{}/ok", receiver.port),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("http://0.0.0.0:{}/ok", receiver.port),
    ] {
        let (status, answer) =
            server.post("/device/exec", &query(running.device(0), json!({"url": url}))).await;
        assert_eq!(status, 400, "{url}: {answer}");
        let text = answer.to_string();
        assert!(text.contains("webhook.allow_private") && text.contains("\"webhook\",\"url\""), "{text}");
    }
    // A name shows its address only when it is asked: then nothing is sent, and nothing tried again.
    let mut told = watch(&server).await;
    let url = format!("http://localhost:{}/ok", receiver.port);
    let job = server.exec(&query(running.device(0), json!({"url": url, "retry_intervals": [0]}))).await;
    assert_eq!(job["status"], "finished", "{job}");
    let event = told("event: undelivered").await;
    assert!(event.contains("localhost") && event.contains("webhook.allow_private"), "{event}");
    assert!(event.contains("after 1 attempt"), "{event}");
    assert!(receiver.calls().is_empty());

    // By name, and a redirect leads nowhere.
    let server = Server::start("webhook: {allow_private: [localhost]}");
    let mut told = watch(&server).await;
    let url = format!("http://localhost:{}/redirect", receiver.port);
    let job = server.exec(&query(running.device(0), json!({"url": url, "max_retries": 0}))).await;
    assert_eq!(job["status"], "finished", "{job}");
    let event = told("event: undelivered").await;
    assert!(event.contains("307") && event.contains("redirects are not followed"), "{event}");
    assert_eq!(receiver.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_5_a_webhook_that_fails_never_changes_the_job() {
    let running = devices(2);
    let receiver = Receiver::start().await;
    let server = Server::start(ALLOW);
    let mut told = watch(&server).await;
    let webhook =
        json!({"url": receiver.url("/fail/t0ken"), "retry_intervals": [0.1, 0.3], "max_retries": 2});
    let before = server.exec(&query(running.device(0), webhook)).await;
    let event = told("event: undelivered").await;
    assert!(event.contains("given up after 3 attempts") && event.contains("500"), "{event}");
    assert!(!event.contains("t0ken") && !server.log().contains("t0ken"), "only the origin is shown");
    let after = server.job(before["id"].as_str().unwrap(), 0).await;
    assert_eq!(before, after);
    let calls = receiver.calls();
    assert_eq!(calls.len(), 3, "max_retries + 1");
    assert!(calls.iter().all(|call| call.delivery() == calls[0].delivery() && call.body == calls[0].body));
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(100));
    assert!(calls[2].at - calls[1].at >= Duration::from_millis(300));
    assert!(server.log().contains("webhook given up"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_gives_each_job_its_own_webhook_and_legacy_its_own_shape() {
    let running = devices(3);
    let receiver = Receiver::start().await;
    let server = Server::start(ALLOW);
    let at = |n: usize| running.device(n).ssh.unwrap();
    let body = json!({"driver": "netmiko", "command": "show clock",
        "webhook": {"url": receiver.url("/ok/shared"), "format": "legacy"},
        "devices": [{"host": "127.0.0.1", "port": at(0).port()}, {"host": "127.0.0.1", "port": at(1).port()},
            {"host": "127.0.0.1", "port": at(2).port(), "webhook": {"url": receiver.url("/ok/own")}},
            {"host": "127.0.0.1", "port": 1, "webhook": {"url": "nowhere"}}],
        "connection_args": {"device_type": "cisco_ios", "username": "admin", "password": "admin"}});
    let (status, answer) = server.post("/device/bulk?wait=60", &body).await;
    assert_eq!(status, 201, "{answer}");
    assert!(answer["failed"][0]["reason"].as_str().unwrap().contains("webhook.url"), "{answer}");
    let calls = receiver.until(20, "three calls", |calls| calls.len() == 3).await;
    let ids: HashSet<String> =
        calls.iter().map(|call| call.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(calls.iter().map(receiver::Call::delivery).collect::<HashSet<_>>().len(), 3);
    for call in &calls {
        let told = call.json();
        if call.path == "/ok/own" {
            assert_eq!(told["event_type"], "job.completed");
            continue;
        }
        assert_eq!(told["status"], "success");
        assert!(told["result"].as_str().unwrap().contains("UTC"), "{told}");
        let keys: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "status", "result", "device", "driver", "command"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_delivers_what_its_last_jobs_ended_with_or_after_its_return() {
    let running = devices(1);
    running.set_faults(&Faults { latency_ms: 300, ..Faults::default() });
    let receiver = Receiver::start().await;
    let mut server = Server::start(ALLOW);
    let (_, running_job) =
        server.post("/device/exec", &query(running.device(0), json!({"url": receiver.url("/ok")}))).await;
    let (_, waiting_job) =
        server.post("/device/exec", &query(running.device(0), json!({"url": receiver.url("/ok")}))).await;
    let id = running_job["id"].as_str().unwrap().to_owned();
    eventually(20, "it runs", || server.log().contains("never") || running.journal().lines(0).len() > 1);
    assert_eq!(server.stop(), Some(0));
    let calls = receiver.calls();
    assert!(calls.iter().any(|call| call.json()["id"] == json!(id)), "told before the end: {}", server.log());
    server.launch();
    let calls = receiver
        .until(40, "the other one", |calls| calls.iter().any(|call| call.json()["id"] == waiting_job["id"]));
    let calls = calls.await;
    assert_eq!(calls.iter().map(receiver::Call::delivery).collect::<HashSet<_>>().len(), 2);
}

/// The attempts of one job's message, in order.
fn of_job<'a>(calls: &'a [Value], job: &Value) -> Vec<&'a Value> {
    calls.iter().filter(|call| call["job"] == job["id"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_a_webhook_that_is_a_program_crashes_hangs_and_fails_and_its_messages_still_arrive() {
    let (running, mischief) = (devices(1), Mischief::new());
    let mut server = Server::start(&format!("{}\nworker: {{lease: 2}}", mischief.config()));
    let device = running.device(0);
    let webhook = |more: Value| {
        let mut webhook =
            json!({"name": "notebook", "url": "note:t0ken-of-the-book", "retry_intervals": [1], "page": 7});
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        webhook
    };
    // What the plugin itself finds wrong is told at once, with its field.
    let (status, said) = server.post("/device/exec", &query(device, webhook(json!({"url": "book"})))).await;
    assert_eq!(status, 400, "{said}");
    assert_eq!(said["errors"][0]["loc"], json!(["webhook", "url"]), "{said}");
    assert!(said.to_string().contains("Input should begin with note:"), "{said}");
    let (status, said) =
        server.post("/device/exec", &query(device, json!({"name": "nobody", "url": "x:y"}))).await;
    assert!(status == 400 && said.to_string().contains("notebook"), "the names there are: {said}");

    let job = server.exec(&query(device, webhook(json!({})))).await;
    let calls = mischief.until("webhook", 20, "the call", |calls| !calls.is_empty()).await;
    assert_eq!((&calls[0]["job"], &calls[0]["status"]), (&job["id"], &json!("finished")));
    assert_eq!((&calls[0]["page"], &calls[0]["attempt"]), (&json!(7), &json!(1)));
    assert_eq!(calls[0]["payload"]["result"]["retval"], job["result"]["retval"]);

    // It dies in the middle of a call: the same message again, in another process.
    mischief.tell("webhook", "die");
    let crashed = server.exec(&query(device, webhook(json!({})))).await;
    assert_eq!(crashed["status"], "finished", "no job waits for its webhook");
    mischief.until("webhook", 20, "the crash", |calls| !of_job(calls, &crashed).is_empty()).await;
    mischief.tell("webhook", "");
    let calls =
        mischief.until("webhook", 20, "another attempt", |calls| of_job(calls, &crashed).len() == 2).await;
    let attempts = of_job(&calls, &crashed);
    assert_eq!(attempts[0]["delivery"], attempts[1]["delivery"]);
    assert_eq!(attempts[0]["payload"], attempts[1]["payload"], "the same message");
    assert_eq!((&attempts[0]["attempt"], &attempts[1]["attempt"]), (&json!(1), &json!(2)));
    assert_ne!(attempts[0]["pid"], attempts[1]["pid"]);

    // It hangs: neither a job nor another message waits for it.
    mischief.tell("webhook", "hang");
    let hung = server.exec(&query(device, webhook(json!({"timeout": 1})))).await;
    mischief.until("webhook", 20, "the call that hangs", |calls| !of_job(calls, &hung).is_empty()).await;
    mischief.tell("webhook", "");
    let began = Instant::now();
    let other = server.exec(&query(device, webhook(json!({})))).await;
    assert_eq!((&hung["status"], &other["status"]), (&json!("finished"), &json!("finished")));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for job in [&other, &hung] {
        let wanted = if job["id"] == hung["id"] { 2 } else { 1 };
        mischief.until("webhook", 30, "its message", |calls| of_job(calls, job).len() == wanted).await;
    }

    // It fails until the server is killed; what it was told before, it is told again after.
    mischief.tell("webhook", "fail");
    let job = server.exec(&query(device, webhook(json!({"retry_intervals": [2]})))).await;
    let calls = mischief.until("webhook", 20, "an attempt", |calls| !of_job(calls, &job).is_empty()).await;
    let first = of_job(&calls, &job)[0].clone();
    let plugin = first["pid"].as_u64().unwrap();
    eventually(10, "the failure in the log", || server.log().contains("webhook failed"));
    server.kill();
    eventually(10, "the end of the plugin", || !std::path::Path::new(&format!("/proc/{plugin}")).exists());
    mischief.tell("webhook", "");
    let before = of_job(&mischief.calls("webhook"), &job).len();
    server.launch();
    let calls = mischief
        .until("webhook", 40, "an attempt after the restart", |calls| of_job(calls, &job).len() > before)
        .await;
    let last = (*of_job(&calls, &job).last().unwrap()).clone();
    assert_eq!((&last["delivery"], &last["payload"]), (&first["delivery"], &first["payload"]));
    assert!(last["attempt"].as_u64().unwrap() > 1 && last["pid"] != first["pid"], "{last}");
    assert!(!server.log().contains("t0ken"), "only the scheme is shown: {}", server.log());
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_a_message_for_a_webhook_that_is_a_program_survives_kill_9_on_redis() {
    let (running, mischief) = (devices(1), Mischief::new());
    let mut cluster = Cluster::start(&[Part::All], &format!("{}\nworker: {{lease: 2}}", mischief.config()));
    let client = cluster.client();
    mischief.tell("webhook", "die");
    let webhook = json!({"name": "notebook", "url": "note:book", "retry_intervals": [1], "max_retries": 10});
    let job = client.exec(&query(running.device(0), webhook)).await;
    let calls = mischief.until("webhook", 20, "an attempt", |calls| !calls.is_empty()).await;
    let process = cluster.process("all-0");
    let url = process.url.clone();
    process.kill();
    mischief.tell("webhook", "");
    let before = mischief.calls("webhook").len();
    process.launch();
    client.moved(&url, &process.url);
    let after =
        mischief.until("webhook", 60, "an attempt after the restart", |calls| calls.len() > before).await;
    let last = after.last().unwrap();
    assert_eq!((&last["job"], &last["delivery"]), (&job["id"], &calls[0]["delivery"]));
    assert_eq!(last["payload"], calls[0]["payload"], "the same message");
    let seen = client.get(&format!("/jobs/{}", job["id"].as_str().unwrap())).await;
    assert_eq!(seen["result"], job["result"], "the job is as it ended");
}
