//! `/device/...`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netpulse_model::{JobKind, Priority};
use serde_json::{Value, json};

use crate::world::{Answer, config, exec, world, world_with};

#[tokio::test]
async fn exec_answers_as_upstream_and_adds() {
    let w = world().await;
    let mut body = exec("192.0.2.11");
    body["command"] = json!(["show clock", "username x secret s3cret-pw"]);
    body["ttl"] = json!(120);
    body["result_ttl"] = json!(900);
    body["execution_timeout"] = json!(45);
    body["priority"] = json!("high");
    let answer = w.post("/device/exec", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let job = answer.json();
    for key in [
        "id",
        "status",
        "created_at",
        "enqueued_at",
        "started_at",
        "ended_at",
        "queue",
        "worker",
        "result",
        "task_id",
        "device_name",
        "command",
        "duration",
        "queue_time",
    ] {
        assert!(job.get(key).is_some(), "{key} is missing: {job}");
    }
    assert_eq!(job["status"], "queued");
    assert_eq!(job["queue"], "HostQ_192.0.2.11");
    assert_eq!(job["device_name"], "192.0.2.11");
    assert_eq!(job["command"], json!(["show clock", "username x secret ******"]));
    let created = job["created_at"].as_str().unwrap();
    assert!(
        created.len() == "2026-02-03T04:05:06.789012+00:00".len() && created.ends_with("+00:00"),
        "{created}"
    );

    let new = w.queue.submitted(job["id"].as_str().unwrap().parse().unwrap());
    assert_eq!(new.ttl, Duration::from_secs(120));
    assert_eq!(new.result_ttl, Duration::from_secs(900));
    assert_eq!(new.timeout, Duration::from_secs(45));
    assert_eq!((new.kind, new.priority), (JobKind::Query, Priority::High));
    let payload: Value = serde_json::from_slice(&new.payload).unwrap();
    assert_eq!(payload["connection_args"]["keepalive"], 60, "a pinned job gets a keepalive");
    assert_eq!(payload["connection_args"]["password"], "s3cret-pw", "the worker needs it");
}

#[tokio::test]
async fn strategy_by_driver_by_site_and_by_request() {
    let mut site = config();
    site.job.default_strategy.insert("paramiko".into(), "pinned".into());
    let queue = async |w: &crate::world::World, body: &Value| {
        w.post("/device/exec", body).await.json()["queue"].clone()
    };
    let mut body = exec("192.0.2.1");
    body["driver"] = json!("paramiko");
    assert_eq!(queue(&world().await, &body).await, "FifoQ");
    assert_eq!(queue(&world_with(site).await, &body).await, "HostQ_192.0.2.1");
    body["queue_strategy"] = json!("pinned");
    body["connection_args"]["port"] = json!(2222);
    assert_eq!(queue(&world().await, &body).await, "HostQ_192.0.2.1:2222");
}

#[tokio::test]
async fn multipart_carries_the_request_in_a_part() {
    let w = world().await;
    let send = async |parts: &[(&str, &str)]| {
        let mut body = String::new();
        for (name, text) in parts {
            body.push_str(&format!(
                "--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"
            ));
        }
        body.push_str("--XX--\r\n");
        let request = w
            .request("POST", "/device/exec")
            .header("content-type", "multipart/form-data; boundary=XX")
            .body(body);
        Answer::read(request.send().await.unwrap()).await
    };
    let body = exec("192.0.2.1").to_string();
    assert_eq!(send(&[("request", &body)]).await.status, 201);
    let missing = send(&[]).await;
    assert_eq!(
        (missing.status, missing.json()["detail"].clone()),
        (422, json!("Field 'request' is required in multipart mode"))
    );
    let broken = send(&[("request", "{")]).await;
    assert_eq!(broken.status, 422);
    assert!(broken.json()["detail"].as_str().unwrap().starts_with("Invalid 'request' JSON: "));
    let file = send(&[("request", &body), ("file", "firmware")]).await;
    assert!(file.status == 422 && file.text.contains("File transfer is not available"), "{}", file.text);
}

#[tokio::test]
async fn wait_holds_the_answer_until_the_end() {
    let w = world().await;
    let finisher = {
        let queue = w.queue.clone();
        tokio::spawn(async move {
            loop {
                tokio::task::yield_now().await;
                if let Some(job) = queue.all().first() {
                    queue.start(job.id);
                    queue.finish(job.id);
                    return;
                }
            }
        })
    };
    let request = w.request("POST", "/device/exec").header("Prefer", "wait=10").json(&exec("192.0.2.1"));
    let answer = Answer::read(request.send().await.unwrap()).await;
    finisher.await.unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("preference-applied"), "wait=10");
    let job = answer.json();
    assert_eq!(job["status"], "finished");
    assert_eq!(job["result"]["type"], 1);
    assert_eq!(job["result"]["retval"][0]["stdout"], "out");
    assert!(job["duration"].is_number() && job["queue_time"].is_number());
}

#[tokio::test]
async fn wait_that_passes_gives_the_job_as_it_stands() {
    let mut held = config();
    held.server.exec_wait = 1;
    held.server.max_wait = 1;
    let w = world_with(held).await;
    let started = Instant::now();
    let job = w.post("/device/exec?wait=300", &exec("192.0.2.1")).await.json();
    assert_eq!(job["status"], "queued");
    // server.exec_wait serves clients that cannot ask.
    let job = w.post("/device/exec", &exec("192.0.2.1")).await.json();
    assert_eq!(job["status"], "queued");
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    let bulk = json!({"driver": "netmiko", "connection_args": {}, "command": "x", "wait": 0, "devices": [{"host": "a"}]});
    assert_eq!(w.post("/device/bulk", &bulk).await.json()["succeeded"][0]["status"], "queued");
}

#[tokio::test]
async fn promise_8_the_same_key_gives_the_same_job() {
    let w = world().await;
    let send = async |path: &str, body: &Value, key: &str| {
        Answer::read(w.request("POST", path).header("Idempotency-Key", key).json(body).send().await.unwrap())
            .await
    };
    let first = send("/device/exec", &exec("192.0.2.1"), "abc").await;
    let again = send("/device/exec", &exec("192.0.2.1"), "abc").await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    // The order of keys in an object makes no other request.
    let turned = r#"{"connection_args":{"password":"s3cret-pw","username":"ops","host":"192.0.2.1","device_type":"cisco_ios"},"command":"show clock","driver":"netmiko"}"#;
    let turned = send("/device/exec", &serde_json::from_str(turned).unwrap(), "abc").await;
    assert_eq!(turned.json()["id"], first.json()["id"]);
    let other = send("/device/exec", &exec("192.0.2.2"), "abc").await;
    assert_eq!(other.status, 409);
    assert!(other.json()["detail"].as_str().unwrap().contains("used for another request"), "{}", other.text);
    assert_eq!(send("/device/exec", &exec("192.0.2.1"), &"x".repeat(256)).await.status, 422);

    let bulk = json!({"driver": "netmiko", "connection_args": {}, "command": "x", "devices": [{"host": "a"}, {"host": "b"}]});
    let ids = |answer: Answer| {
        answer.json()["succeeded"].as_array().unwrap().iter().map(|j| j["id"].clone()).collect::<Vec<_>>()
    };
    let one = ids(send("/device/bulk", &bulk, "k2").await);
    let two = ids(send("/device/bulk", &bulk, "k2").await);
    assert_eq!(one, two);
    assert_ne!(one[0], one[1]);
}

#[tokio::test]
async fn bulk_keeps_the_order_and_one_devices_fault_is_its_own() {
    let w = world().await;
    let body = json!({"driver": "netmiko", "connection_args": {"device_type": "huawei", "ip": "ignored"}, "command": "display clock",
        "devices": [{"host": "192.0.2.33"}, {"host": "192.0.2.31", "port": 70000}, {"host": "192.0.2.32", "port": 2222, "config": "sysname x"},
                    {"host": "192.0.2.30", "command": 7}, {"host": "192.0.2.1"}]});
    let answer = w.post("/device/bulk", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let json = answer.json();
    let hosts: Vec<&str> =
        json["succeeded"].as_array().unwrap().iter().map(|j| j["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["192.0.2.33", "192.0.2.32", "192.0.2.1"]);
    assert_eq!(json["succeeded"][1]["device_name"], "192.0.2.32");
    assert_eq!(json["succeeded"][1]["queue"], "HostQ_192.0.2.32:2222");
    assert_eq!(json["succeeded"][1]["kind"], "modification");
    let failed = json["failed"].as_array().unwrap();
    assert_eq!(failed[0]["host"], "192.0.2.31");
    assert!(failed[0]["reason"].as_str().unwrap().contains("less than or equal to 65535"), "{json}");
    assert!(failed[1]["reason"].as_str().unwrap().contains("command"), "{json}");
    assert_eq!(*w.queue.calls.lock(), [3], "one submission for all");
    let first: netpulse_model::JobId = json["succeeded"][0]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(w.queue.submitted(first).ttl, Duration::from_secs(600));
    let empty = json!({"driver": "netmiko", "connection_args": {}, "command": "x", "devices": []});
    assert_eq!(w.post("/device/bulk", &empty).await.json(), json!({"succeeded": [], "failed": []}));
}

#[tokio::test]
async fn d13_bulk_renders_a_context_object_as_exec_does() {
    let w = world().await;
    let mut body = json!({"driver": "netmiko", "connection_args": {}, "config": {"vlan": 30},
        "rendering": {"name": "jinja2", "template": "vlan {{ vlan }}"}, "devices": [{"host": "192.0.2.1"}]});
    let answer = w.post("/device/bulk", &body).await;
    assert_eq!((answer.status, answer.json()["failed"].clone()), (201, json!([])), "{}", answer.text);
    body["connection_args"] = json!({"host": "192.0.2.1"});
    body.as_object_mut().unwrap().remove("devices");
    assert_eq!(w.post("/device/exec", &body).await.status, 201);
}

#[tokio::test]
async fn promise_10_a_full_queue_says_when_to_come_back() {
    let w = world().await;
    w.queue.full.store(true, Ordering::Relaxed);
    let answer = w.post("/device/exec", &exec("192.0.2.1")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "3"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("store.max_queued"));
    let bulk = |hosts: &[&str]| {
        json!({"driver": "netmiko", "connection_args": {}, "command": "x",
        "devices": hosts.iter().map(|h| json!({"host": h})).collect::<Vec<_>>()})
    };
    assert_eq!(w.post("/device/bulk", &bulk(&["a", "b"])).await.status, 429);
    let partly = w.post("/device/bulk", &bulk(&["a", "192.0.2.200"])).await;
    assert_eq!(partly.status, 201);
    assert_eq!(partly.json()["succeeded"][0]["host"], "192.0.2.200");
    assert_eq!(partly.json()["failed"][0]["host"], "a");
}

#[tokio::test]
async fn promise_11_without_its_store_the_server_says_503() {
    let w = world().await;
    w.queue.down.store(true, Ordering::Relaxed);
    for answer in [
        w.post("/device/exec", &exec("a")).await,
        w.get("/jobs").await,
        w.get("/health").await,
        w.get("/system/stats").await,
    ] {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text);
        assert!(answer.json()["detail"].as_str().unwrap().starts_with("The store is unavailable: disk full"));
    }
}

#[tokio::test]
async fn d9_test_keeps_what_the_device_said() {
    let w = world().await;
    let args = |host: &str| json!({"driver": "netmiko", "connection_args": {"host": host, "username": "u", "password": "s3cret-pw"}});
    let answer = w.post("/device/test", &args("192.0.2.1")).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((json["success"].clone(), json["error"].clone()), (json!(true), Value::Null));
    assert!(json["latency"].is_number() && json["timestamp"].is_string());
    assert_eq!(
        json["result"],
        json!({"driver": "netmiko", "host": "192.0.2.1", "prompt": "sw1#",
        "device_type": "cisco_ios", "remote_version": "SSH-2.0-Sim"})
    );

    let refused = w.post("/device/test", &args("192.0.2.99")).await;
    assert_eq!(refused.status, 200, "a device that refuses is an answer");
    let json = refused.json();
    assert_eq!(
        (json["success"].clone(), json["result"].clone(), json["latency"].clone()),
        (json!(false), Value::Null, Value::Null)
    );
    assert_eq!(json["error_type"], "authentication_failed");
    assert!(
        !refused.text.contains("s3cret-pw")
            && json["error"].as_str().unwrap().starts_with("Authentication failed")
    );
}
