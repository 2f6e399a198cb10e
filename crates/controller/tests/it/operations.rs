//! What operators and monitoring ask: probes, draining, nodes, figures.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::world::{KEY, exec, world};

#[tokio::test]
async fn probes_need_no_key_and_live_asks_nobody() {
    let w = world().await;
    let bare = async |path: &str| {
        let answer = w.http.get(format!("{}{path}", w.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    assert_eq!(bare("/health/live").await, (200, json!({"status": "ok"})));
    assert_eq!(bare("/health/ready").await, (200, json!({"status": "ok"})));
    for path in ["/health", "/metrics", "/nodes"] {
        assert_eq!(bare(path).await.0, 403, "{path} needs the key");
    }
    w.queue.down.store(true, Ordering::Relaxed);
    assert_eq!(bare("/health/live").await.0, 200, "a restart would not bring the store back");
    // What the store said stands for a second.
    let unready = async {
        loop {
            let (status, body) = bare("/health/ready").await;
            if status == 503 {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let body = tokio::time::timeout(Duration::from_secs(10), unready).await.expect("it notices");
    assert_eq!(body["status"], "store");
    assert!(body["detail"].as_str().unwrap().contains("disk full"), "{body}");
    w.queue.down.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn a_server_that_drains_refuses_what_is_new_and_answers_what_is_asked() {
    let w = world().await;
    let id = w.submit("192.0.2.1").await;
    let waits = tokio::spawn({
        let request = w.request("POST", "/device/exec?wait=20").json(&exec("192.0.2.2"));
        async move { request.send().await.unwrap().status().as_u16() }
    });
    while w.queue.calls.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    w.draining.cancel();
    for (path, body) in [
        ("/device/exec", exec("192.0.2.1")),
        ("/device/bulk", json!({"driver": "netmiko", "devices": []})),
        ("/template/render", json!({"template": "x"})),
    ] {
        let refused = w.post(path, &body).await;
        assert_eq!(refused.status, 503, "{path}: {}", refused.text);
        assert_eq!(refused.header("retry-after"), "2", "{path}");
        assert!(refused.json()["detail"].as_str().unwrap().contains("takes nothing new"), "{}", refused.text);
    }
    let ready = w.get("/health/ready").await;
    assert_eq!((ready.status, ready.json()["status"].clone()), (503, json!("draining")));
    assert_eq!(w.get("/health/live").await.status, 200);
    assert_eq!(w.get(&format!("/jobs/{id}")).await.status, 200, "what was accepted can still be read");
    assert_eq!(w.get("/metrics").await.status, 200);
    // Without the key nobody learns that it drains.
    let bare = w.http.post(format!("{}/device/exec", w.url)).send().await.unwrap();
    assert_eq!(bare.status().as_u16(), 403);
    // The one in hand is answered as ever.
    assert!(!waits.is_finished());
    w.shutdown.cancel();
    assert_eq!(waits.await.unwrap(), 201);
}

#[tokio::test]
async fn nodes_say_what_they_take_and_how_they_are() {
    let w = world().await;
    let nodes = w.get("/nodes").await.json();
    let seen: Vec<_> = nodes
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["name"].clone(), n["state"].clone(), n["roles"].clone(), n["workers"].clone()))
        .collect();
    assert_eq!(
        seen,
        [
            (json!("node-a"), json!("ready"), json!(["devices", "fifo"]), json!(3)),
            (json!("node-b"), json!("draining"), json!([]), json!(0)),
            (json!("node-c"), json!("silent"), json!(["devices", "fifo"]), json!(0)),
        ]
    );
    let first = &nodes[0];
    assert_eq!(
        json!([first["capacity"], first["devices"], first["running"], first["pid"], first["self_healing"]]),
        json!([32, 1, 2, 7, 2])
    );
    assert!(first["joined_at"].is_string() && first["renewed_at"].is_string());
    assert_eq!(nodes[1]["pid"], json!(null));
}

#[tokio::test]
async fn figures_count_what_happened_and_name_no_host() {
    let w = world().await;
    w.submit("192.0.2.1").await;
    let done = w.submit("192.0.2.77").await;
    w.queue.finish(done);
    w.get(&format!("/jobs/{done}")).await;
    w.get("/jobs/not-a-job").await;
    w.get("/no/such/route/at/all").await;
    let answer = w.get("/metrics").await;
    assert!(
        answer.header("content-type").starts_with("application/openmetrics-text"),
        "{:?}",
        answer.headers
    );
    let text = answer.text;
    for line in [
        r#"netpulse_http_requests_total{method="POST",route="/device/exec",status="201"} 2"#,
        r#"netpulse_http_requests_total{method="GET",route="/jobs/{id}",status="200"} 1"#,
        r#"netpulse_http_requests_total{method="GET",route="/jobs/{id}",status="404"} 1"#,
        r#"netpulse_http_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"netpulse_http_request_seconds_count{route="/device/exec"} 2"#,
        r#"netpulse_jobs_accepted_total{kind="query"} 2"#,
        r#"netpulse_jobs{state="queued"} 1"#,
        r#"netpulse_jobs{state="finished"} 1"#,
        r#"netpulse_nodes{state="alive"} 2"#,
        r#"netpulse_nodes{state="silent"} 1"#,
        "netpulse_devices_capacity 32",
        "netpulse_store_up 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "missing: {line}\nin:\n{text}");
    }
    assert!(!text.contains("192.0.2") && !text.contains(&done.to_string()) && !text.contains(KEY), "{text}");
    let age = text.lines().find_map(|l| l.strip_prefix("netpulse_queue_oldest_seconds ")).unwrap();
    assert!((0.0..60.0).contains(&age.parse::<f64>().unwrap()), "{age}");
    // Without the store the process' own figures are there all the same.
    w.queue.down.store(true, Ordering::Relaxed);
    let text = w.get("/metrics").await.text;
    assert!(text.contains("\nnetpulse_store_up 0\n") && !text.contains("netpulse_jobs{"), "{text}");
}
