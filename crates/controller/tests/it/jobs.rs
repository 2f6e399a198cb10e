//! `/jobs...`, `/workers...`, `/health`, `/system/stats`, `/template...` and the early paths.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Answer, exec, world};

fn ids(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn d1_a_final_job_is_never_without_its_result() {
    let w = world().await;
    let id = w.submit("192.0.2.1").await;
    let job = w.get(&format!("/jobs/{id}")).await.json();
    assert_eq!((job["status"].clone(), job["result"].clone()), (json!("queued"), Value::Null));
    let watcher = {
        let (http, url) = (w.request("GET", &format!("/jobs/{id}?wait=10")), w.url.clone());
        tokio::spawn(async move { (Answer::read(http.send().await.unwrap()).await, url) })
    };
    w.queue.start(id);
    w.queue.finish(id);
    let (answer, _) = watcher.await.unwrap();
    let job = answer.json();
    assert_eq!(job["status"], "finished");
    assert!(job["result"]["retval"].is_array() && job["ended_at"].is_string());
    assert_eq!(job["worker"], "node-a_FifoQ");
}

#[tokio::test]
async fn unknown_jobs_are_404() {
    let w = world().await;
    for id in ["6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55", "nonsense"] {
        for path in [format!("/jobs/{id}"), format!("/jobs/{id}/why"), format!("/jobs/{id}/events")] {
            let answer = w.get(&path).await;
            assert_eq!(
                (answer.status, answer.json()),
                (404, json!({"detail": format!("Job {id} not found")})),
                "{path}"
            );
        }
        let answer = w.delete(&format!("/jobs/{id}")).await;
        assert_eq!(answer.json(), json!({"detail": format!("Job {id} not found or not in queued state")}));
    }
}

#[tokio::test]
async fn paging_neither_repeats_nor_skips_while_jobs_come() {
    let w = world().await;
    let mut expected = Vec::new();
    for n in 0..25 {
        expected.insert(0, w.submit(&format!("192.0.2.{n}")).await.to_string());
    }
    let mut seen = Vec::new();
    let mut path = "/jobs?limit=10".to_owned();
    loop {
        let page = w.get(&path).await;
        seen.extend(ids(&page));
        // Newer jobs do not push older ones onto the next page twice.
        w.submit("198.51.100.1").await;
        let cursor = page.header("x-next-cursor");
        if cursor.is_empty() {
            assert_eq!(page.header("link"), "");
            break;
        }
        assert_eq!(page.header("link"), format!("</jobs?limit=10&cursor={cursor}>; rel=\"next\""));
        path = page.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_listing_without_limit_is_whole() {
    let w = world().await;
    let devices: Vec<Value> = (0..1203).map(|n| json!({"host": format!("h{n}")})).collect();
    let bulk = json!({"driver": "netmiko", "connection_args": {}, "command": "x", "devices": devices});
    assert_eq!(w.post("/device/bulk", &bulk).await.json()["succeeded"].as_array().unwrap().len(), 1203);
    let all = w.get("/jobs").await;
    let mut found = ids(&all);
    assert_eq!(found.len(), 1203);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 1203);
}

#[tokio::test]
async fn filters_as_upstream_and_beyond() {
    let w = world().await;
    let done = w.submit("192.0.2.1").await;
    w.queue.start(done);
    w.queue.finish(done);
    let running = w.submit("192.0.2.1").await;
    w.queue.start(running);
    let waiting = w.submit("192.0.2.1").await;
    let canceled = w.submit("192.0.2.2").await;
    assert_eq!(w.delete(&format!("/jobs/{canceled}")).await.status, 200);
    let found = async |path: &str| {
        let mut found = ids(&w.get(path).await);
        found.sort();
        found
    };
    let set = |all: &[netpulse_model::JobId]| {
        let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.sort();
        all
    };
    assert_eq!(found("/jobs").await, set(&[done, running, waiting, canceled]));
    assert_eq!(
        found("/jobs?queue=HostQ_192.0.2.1").await,
        set(&[waiting]),
        "a queue alone means what waits in it"
    );
    assert_eq!(found("/jobs?host=192.0.2.1").await, set(&[waiting]));
    assert_eq!(found("/jobs?queue=pinned_192.0.2.1").await, set(&[waiting]));
    assert_eq!(found("/jobs?host=192.0.2.1&state=all").await, set(&[done, running, waiting]));
    assert_eq!(found("/jobs?host=192.0.2.1&status=finished").await, set(&[done]));
    assert_eq!(found("/jobs?status=canceled").await, set(&[canceled]));
    assert_eq!(found("/jobs?state=cancelled").await, set(&[canceled]));
    assert_eq!(found("/jobs?status=started,finished").await, set(&[done, running]));
    assert_eq!(found("/jobs?node=node-a").await, set(&[done, running]));
    assert_eq!(
        found("/jobs?queue=HostQ_192.0.2.2&host=192.0.2.1&status=all").await,
        set(&[canceled]),
        "queue wins"
    );
    assert_eq!(found("/jobs?since=2099-01-01").await, set(&[]));
    assert_eq!(found("/jobs?until=2099-01-01T00:00:00%2B00:00&status=queued").await, set(&[waiting]));
}

#[tokio::test]
async fn why_tells_what_a_job_waits_for() {
    let w = world().await;
    let first = w.submit("192.0.2.1").await;
    let second = w.submit("192.0.2.1").await;
    let third = w.submit("192.0.2.1").await;
    w.queue.start(first);
    let why = w.get(&format!("/jobs/{third}/why")).await.json();
    assert_eq!(
        (why["waiting"].clone(), why["ahead"].clone(), why["behind"].clone()),
        (json!(true), json!(1), json!(first.to_string()))
    );
    assert_eq!(
        why["reason"],
        format!("In HostQ_192.0.2.1: job {first} holds its device on node node-a; one job goes before it")
    );
    assert_eq!(why["kind"], "device_busy");
    assert_eq!(w.get(&format!("/jobs/{second}/why")).await.json()["ahead"], 0);
    let running = w.get(&format!("/jobs/{first}/why")).await.json();
    assert_eq!((running["waiting"].clone(), running["ahead"].clone()), (json!(false), Value::Null));
    assert_eq!(running["kind"], "runs");
}

#[tokio::test]
async fn promise_9_cancel_says_what_it_did() {
    let w = world().await;
    let waiting = w.submit("192.0.2.1").await;
    assert_eq!(
        w.delete(&format!("/jobs/{waiting}")).await.json(),
        json!({"id": waiting, "canceled": "before_start"})
    );
    let again = w.delete(&format!("/jobs/{waiting}")).await;
    assert_eq!((again.status, again.json()["status"].clone()), (404, json!("canceled")));
    assert_eq!(
        again.json()["detail"],
        format!("Job {waiting} not found or not in queued state (it is canceled)")
    );
    let running = w.submit("192.0.2.1").await;
    w.queue.start(running);
    assert_eq!(
        w.delete(&format!("/jobs/{running}")).await.json(),
        json!({"id": running, "canceled": "asked"})
    );
    w.queue.finish(running);
    assert_eq!(w.delete(&format!("/jobs/{running}")).await.json()["status"], "finished");
}

#[tokio::test]
async fn cancel_many_by_queue_or_host_only() {
    let w = world().await;
    let a = w.submit("192.0.2.1").await;
    let b = w.submit("192.0.2.2").await;
    assert_eq!(w.delete("/jobs").await.json(), json!([]));
    assert_eq!(w.delete("/jobs?host=192.0.2.1").await.json(), json!([a]));
    assert_eq!(w.delete("/jobs?queue=HostQ_192.0.2.2").await.json(), json!([b]));
    assert_eq!(w.delete("/jobs?queue=lifo").await.status, 422);
}

#[tokio::test]
async fn workers_are_listed_filtered_and_stopped() {
    let w = world().await;
    let names = async |path: &str| -> Vec<String> {
        w.get(path)
            .await
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(names("/workers").await.len(), 3);
    assert_eq!(names("/workers?queue=FifoQ").await, ["node-a_FifoQ"]);
    assert_eq!(names("/workers?host=192.0.2.1").await, ["node-a_HostQ_192.0.2.1"]);
    assert_eq!(names("/workers?node=node-b").await, [""; 0]);
    let one = &w.get("/workers?queue=FifoQ").await.json()[0];
    for key in [
        "name",
        "status",
        "pid",
        "hostname",
        "queues",
        "last_heartbeat",
        "birth_at",
        "successful_job_count",
        "failed_job_count",
    ] {
        assert!(one.get(key).is_some(), "{key}");
    }
    assert_eq!(w.delete("/workers").await.json(), json!([]));
    assert_eq!(w.delete("/workers/node-a").await.json(), json!({"name": "node-a"}));
    assert_eq!(w.delete("/workers?host=192.0.2.1").await.json(), json!(["node-a_HostQ_192.0.2.1"]));
    assert_eq!(w.queue.stopped(), ["node-a", "node-a_HostQ_192.0.2.1"]);
}

#[tokio::test]
async fn d17_an_unknown_worker_is_404_and_errors_keep_the_connection() {
    let w = world().await;
    let answer = w.delete("/workers/unknown").await;
    assert_eq!((answer.status, answer.json()), (404, json!({"detail": "Worker unknown not found"})));
}

#[tokio::test]
async fn stats_and_health() {
    let w = world().await;
    assert_eq!(w.get("/health").await.json(), json!({"status": "ok"}));
    let done = w.submit("192.0.2.1").await;
    w.queue.finish(done);
    w.submit("192.0.2.1").await;
    let stats = w.get("/system/stats").await.json();
    assert_eq!(stats["status"], "online");
    assert_eq!(
        stats["workers"],
        json!({"total": 3, "pinned": 1, "fifo": 1, "node": 1, "idle": 2, "busy": 1})
    );
    assert_eq!(
        stats["jobs"],
        json!({"total": 2, "succeeded": 1, "failed": 0, "in_progress": 0, "queued": 1, "canceled": 0})
    );
    assert_eq!(
        stats["nodes"],
        json!({"active": 2, "total_capacity": 32}),
        "only nodes that own devices, and live, have room"
    );
    assert_eq!(stats["self_healing"], json!({"total_triggers": 2}));
    assert!(stats["uptime_seconds"].is_u64());
}

#[tokio::test]
async fn templates_render() {
    let w = world().await;
    let body = json!({"name": "jinja2", "template": "hostname {{ h }}", "context": {"h": "edge1"}});
    let answer = w.post("/template/render", &body).await;
    assert_eq!((answer.status, answer.json()), (200, json!("hostname edge1")));
    let check = async |path: &str, body: Value, status: u16, detail: &str| {
        let answer = w.post(path, &body).await;
        assert_eq!(
            (answer.status, answer.json()["detail"].clone()),
            (status, json!(detail)),
            "{path} {body}"
        );
    };
    check("/template/render", json!({"context": {}}), 400, "Template source is required").await;
    check("/template/render", json!({"name": "mako", "template": "x"}), 404, "Renderer mako not found").await;
    check("/template/render", json!({"name": "", "template": "x"}), 400, "Renderer name is required").await;
    check(
        "/template/render/mako",
        json!({"name": "jinja2", "template": "x"}),
        404,
        "Renderer mako not found",
    )
    .await;
    check("/template/render", json!({"template": "{% if"}), 400, "line 1: `{%` is never closed").await;
    check("/template/parse", json!({"template": "x", "context": "y"}), 400, "Parser name is required").await;
    check("/template/parse/xml", json!({"context": "y"}), 404, "Parser xml not found").await;
}

#[tokio::test]
async fn d10_parse_returns_lists_and_needs_no_dummy_template() {
    let w = world().await;
    let body = json!({"template": "Value V (\\S+)", "context": "Version 9.9\n"});
    let answer = w.post("/template/parse/textfsm", &body).await;
    assert_eq!((answer.status, answer.json()), (200, json!([{"V": "9.9"}])));
    let ntc = json!({"parser": "textfsm", "use_ntc_template": true, "context": "Version 1",
        "ntc_template_args": {"platform": "cisco_ios", "command": "show version"}});
    assert_eq!(w.post("/template/parse", &ntc).await.status, 200);
}

#[tokio::test]
async fn the_early_paths_answer_in_their_envelope() {
    let w = world().await;
    let mut body = exec("192.0.2.1");
    body["options"] = json!({"queue_strategy": "fifo"});
    let made = w.post("/device/execute", &body).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(
        (made["code"].clone(), made["message"].clone(), made["data"]["queue"].clone()),
        (json!(200), json!("success"), json!("FifoQ"))
    );
    let id: netpulse_model::JobId = made["data"]["id"].as_str().unwrap().parse().unwrap();
    w.queue.start(id);
    w.queue.finish(id);
    let one = w.get(&format!("/job?id={id}&status=queued")).await.json();
    assert_eq!(one["data"][0]["result"]["type"], "success");
    let other = w.submit("192.0.2.1").await;
    assert_eq!(w.delete(&format!("/job?id={other}")).await.json()["data"], json!([other]));
    assert_eq!(w.get("/job?status=cancelled").await.json()["data"][0]["status"], "cancelled");
    assert_eq!(w.delete("/job").await.json()["data"], json!([]));

    let gone = w.get("/job?id=nothing").await;
    assert_eq!(
        (gone.status, gone.json()),
        (404, json!({"code": -1, "message": "Job nothing not found", "data": null}))
    );
    let wrong = w.post("/device/execute", &json!({"driver": "netmiko"})).await;
    assert_eq!((wrong.status, wrong.json()["code"].clone()), (422, json!(-1)));
    assert!(wrong.json()["message"].as_str().unwrap().contains("connection_args: Field required"));
    let nokey = Answer::read(w.http.get(format!("{}/worker", w.url)).send().await.unwrap()).await;
    assert_eq!((nokey.status, nokey.json()["code"].clone()), (403, json!(-1)));

    assert_eq!(w.get("/worker").await.json()["data"].as_array().unwrap().len(), 3);
    assert_eq!(w.delete("/worker?name=node-a").await.json()["data"], json!(["node-a"]));
    let test = json!({"driver": "netmiko", "connection_args": {"host": "192.0.2.1"}});
    let test = w.post("/device/test-connection", &test).await.json();
    assert_eq!(test["message"], "Connection test completed");
    assert_eq!(
        test["data"]["device_info"],
        json!({"prompt": "sw1#", "device_type": "cisco_ios", "host": "192.0.2.1"})
    );
    let failed = json!({"driver": "netmiko", "connection_args": {"host": "192.0.2.99"}});
    assert_eq!(w.post("/device/test-connection", &failed).await.json()["message"], "Connection test failed");

    let health = w.request("GET", "/health").header("X-NetPulse-Envelope", "legacy").send().await.unwrap();
    assert_eq!(Answer::read(health).await.json(), json!({"code": 200, "message": "success", "data": "ok"}));
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let w = world().await;
    for (path, status) in
        [("/detached-tasks", 501), ("/detached-tasks/a1", 501), ("/storage/fetch/dl_1/x.cfg", 501)]
    {
        let answer = w.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.text.contains("not available in this version"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_stopping_server_answers_those_who_wait() {
    let w = world().await;
    let id = w.submit("192.0.2.1").await;
    let waiting = w.request("GET", &format!("/jobs/{id}?wait=300"));
    let waiting = tokio::spawn(async move { Answer::read(waiting.send().await.unwrap()).await });
    // The request has to be on its way before the server stops.
    while w.get("/health").await.status != 200 {}
    tokio::time::sleep(Duration::from_millis(200)).await;
    w.shutdown.cancel();
    let answer = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!((answer.status, answer.json()["status"].clone()), (200, json!("queued")));
}
