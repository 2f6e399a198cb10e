//! The API over the engine that one machine really uses, with the test as its worker.

use std::sync::Arc;
use std::time::Duration;

use netpulse_client::{Client, Happened, JobFilter, Options as Sent};
use netpulse_model::api::{BulkBody, ExecBody};
use netpulse_model::result::ResultType;
use netpulse_model::{ExecutionResult, JobId, JobResult, JobStatus, Payload};
use netpulse_queue::{Completion, Embedded, Options, Queue, Verdict};
use serde_json::{Map, json};

use crate::world::{KEY, World, config, world_on};

async fn world() -> (World<Embedded>, Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let queue = Embedded::open(folder.path(), Options::default()).unwrap();
    let w = world_on(config(), queue).await;
    let client = Client::new(&w.url, KEY).unwrap();
    (w, client, folder)
}

fn host(host: &str) -> Map<String, serde_json::Value> {
    json!({"host": host, "password": "s3cret-pw"}).as_object().cloned().unwrap()
}

fn query(to: &str) -> ExecBody {
    ExecBody {
        driver: "paramiko".into(),
        connection_args: host(to),
        command: Some(Payload::Text("uname -a".into())),
        ..ExecBody::default()
    }
}

/// Runs the next job of `FifoQ` as a worker would.
async fn run_one(queue: &Arc<Embedded>) -> JobId {
    // It can be claimed once it is durable.
    let claim = loop {
        match queue.claim_fifo("node-a", 1).await.unwrap() {
            Some(claim) => break claim,
            None => tokio::task::yield_now().await,
        }
    };
    let result = JobResult {
        kind: ResultType::Successful,
        retval: Some(vec![ExecutionResult::ok("uname -a", "Linux")]),
        error: None,
        outcome: None,
    };
    let completion = Completion { status: JobStatus::Finished, result };
    assert_eq!(queue.complete(&claim.token, completion).await.unwrap(), Verdict::Taken);
    claim.job.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_readers_never_see_an_end_without_its_result() {
    let (w, client, _folder) = world().await;
    let _signals = w.queue.join("node-a", 10.into()).await.unwrap();
    for n in 0..20 {
        let job = client.exec(&query(&format!("192.0.2.{n}")), &Sent::default()).await.unwrap();
        let reader = {
            let client = client.clone();
            tokio::spawn(async move {
                loop {
                    let seen = client.job(job.id, None).await.unwrap();
                    assert_eq!(seen.status.is_final(), seen.result.is_some(), "{seen:?}");
                    assert_eq!(seen.status.is_final(), seen.ended_at.is_some(), "{seen:?}");
                    if seen.status.is_final() {
                        return;
                    }
                }
            })
        };
        assert_eq!(run_one(&w.queue).await, job.id);
        reader.await.unwrap();
    }
    w.queue.close().await;
}

#[tokio::test]
async fn exec_waits_pages_follow_and_cancel() {
    let (w, client, _folder) = world().await;
    let _signals = w.queue.join("node-a", 10.into()).await.unwrap();
    let exec = {
        let client = client.clone();
        tokio::spawn(
            async move { client.exec(&query("192.0.2.1"), &Sent::wait(Duration::from_secs(20))).await },
        )
    };
    while w.queue.counts().await.unwrap().queued == 0 {
        tokio::task::yield_now().await;
    }
    let id = run_one(&w.queue).await;
    let done = exec.await.unwrap().unwrap();
    assert_eq!((done.id, done.status), (id, JobStatus::Finished));

    let mut events = client.events(Some(id), None);
    let mut names = Vec::new();
    while let Some(Happened::Event(event)) = events.next().await.unwrap() {
        names.push(event.what.name());
    }
    assert_eq!(names, ["queued", "started", "ended"]);

    let bulk =
        BulkBody { base: query("x"), devices: (0..7).map(|n| host(&format!("198.51.100.{n}"))).collect() };
    let accepted = client.bulk(&bulk, &Sent::default()).await.unwrap();
    let hosts: Vec<_> = accepted.succeeded.iter().filter_map(|j| j.host.clone()).collect();
    assert_eq!(hosts, (0..7).map(|n| format!("198.51.100.{n}")).collect::<Vec<_>>());
    assert_eq!(client.why(accepted.succeeded[3].id).await.unwrap().ahead, Some(3));

    let waiting = JobFilter { state: Some("queued".into()), ..JobFilter::default() };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.jobs(&waiting, 3, cursor.as_deref()).await.unwrap();
        seen.extend(page.jobs.into_iter().map(|j| j.id));
        // What comes and goes meanwhile moves nothing.
        client.exec(&query("203.0.113.9"), &Sent::default()).await.unwrap();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut expected: Vec<JobId> = accepted.succeeded.iter().map(|j| j.id).collect();
    expected.reverse();
    assert_eq!(seen, expected);

    assert_eq!(client.cancel(expected[0]).await.unwrap().canceled, "before_start");
    let canceled = client.job(expected[0], None).await.unwrap();
    assert_eq!(canceled.status, JobStatus::Canceled);
    assert!(canceled.result.is_some());
    assert_eq!(client.cancel_waiting(None, Some("203.0.113.9")).await.unwrap().len(), 3);
    w.queue.close().await;
    let error = client.health().await.unwrap_err();
    assert_eq!(error.status(), Some(503));
}

#[tokio::test]
async fn promise_8_over_a_restart() {
    let (w, client, folder) = world().await;
    let sent = Sent { idempotency_key: Some("change-7".into()), ..Sent::default() };
    let first = client.exec(&query("192.0.2.1"), &sent).await.unwrap();
    w.queue.close().await;
    drop(w);
    // The lock on the folder goes with the last handle.
    let queue = loop {
        match Embedded::open(folder.path(), Options::default()) {
            Ok(queue) => break queue,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let w = world_on(config(), queue).await;
    let client = Client::new(&w.url, KEY).unwrap();
    let again = client.exec(&query("192.0.2.1"), &sent).await.unwrap();
    assert_eq!(again.id, first.id);
    let error = client.exec(&query("192.0.2.2"), &sent).await.unwrap_err();
    assert_eq!(error.status(), Some(409));
    w.queue.close().await;
}
