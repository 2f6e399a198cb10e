//! Server-sent events.

use futures_util::StreamExt;
use netpulse_model::event::What;
use serde_json::{Value, json};

use crate::world::{World, world};

/// Reads events until the stream ends or `count` have come.
async fn read(w: &World, path: &str, last: Option<&str>, count: usize) -> Vec<(String, String, Value)> {
    let mut request = w.request("GET", path);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.bytes_stream();
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        match body.next().await {
            Some(chunk) => text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap()),
            None => break,
        }
    }
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    text.split("\n\n")
        .filter(|b| b.contains("data"))
        .map(|b| (field(b, "id"), field(b, "event"), serde_json::from_str(&field(b, "data")).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_jobs_events_end_with_the_job_and_resume() {
    let w = world().await;
    let id = w.submit("192.0.2.1").await;
    w.submit("192.0.2.2").await;
    w.queue.start(id);
    let line = What::Line {
        index: 0,
        total: 1,
        command: "show clock".into(),
        stdout: "two\nlines".into(),
        stderr: String::new(),
        exit_status: 0,
    };
    w.queue.say(id, line);
    w.queue.finish(id);
    let path = format!("/jobs/{id}/events");
    let all = read(&w, &path, None, usize::MAX).await;
    let names: Vec<&str> = all.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["queued", "started", "line", "ended"]);
    assert_eq!(all[2].2["stdout"], "two\nlines");
    assert_eq!(all[2].2["event"], "line");
    assert_eq!(all[3].2["status"], "finished");
    assert!(
        all.iter()
            .all(|(event, _, data)| data["job"] == json!(id) && data["id"].as_u64() == event.parse().ok())
    );
    let rest = read(&w, &path, Some(&all[1].0), usize::MAX).await;
    assert_eq!(rest, all[2..]);
    let rest = read(&w, &format!("{path}?after={}", all[2].0), None, usize::MAX).await;
    assert_eq!(rest, all[3..]);
}

#[tokio::test]
async fn all_events_and_a_gap() {
    let w = world().await;
    let a = w.submit("192.0.2.1").await;
    let b = w.submit("192.0.2.2").await;
    let two = read(&w, "/events", None, 2).await;
    assert_eq!([&two[0].2["job"], &two[1].2["job"]], [&json!(a), &json!(b)]);
    w.queue.forget_events_before(2);
    let gap = read(&w, "/events", Some("0"), 2).await;
    assert_eq!((gap[0].1.as_str(), gap[0].2.clone()), ("gap", json!({"before": 2})));
    assert_eq!(gap[1].0, "2");
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let w = world().await;
    w.submit("192.0.2.1").await;
    let response = w.request("GET", "/events").send().await.unwrap();
    let mut body = response.bytes_stream();
    assert!(body.next().await.is_some());
    w.shutdown.cancel();
    let end = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while body.next().await.is_some() {}
    });
    assert!(end.await.is_ok());
}

#[tokio::test]
async fn an_id_that_is_none_is_422() {
    let w = world().await;
    let answer = w.get("/events?after=soon").await;
    assert_eq!((answer.status, answer.json()["detail"][0]["loc"].clone()), (422, json!(["query", "after"])));
    let answer = w.request("GET", "/events").header("Last-Event-ID", "x").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 422);
}
