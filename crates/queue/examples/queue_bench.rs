//! Measures the embedded engine: durable submits, whole lives of jobs, reads.
//!
//! `cargo run --release -p netpulse-queue --example queue_bench [FOLDER]`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpulse_model::job::RetryPolicy;
use netpulse_model::result::ResultType;
use netpulse_model::{DeviceKey, ExecutionResult, JobId, JobKind, JobResult, JobStatus, Priority, QueueName};
use netpulse_queue::{Completion, Embedded, JobQuery, NewJob, Options, Queue, Submitted, Verdict};

const CALLERS: usize = 32;

fn job(device: usize, kind: JobKind, fifo: bool) -> NewJob {
    let key = DeviceKey::new(&format!("192.0.2.{device}"), 22, 22);
    NewJob {
        id: JobId::random(),
        queue: if fifo { QueueName::Fifo } else { QueueName::Host(key.clone()) },
        device: Some(key),
        kind,
        priority: Priority::Normal,
        driver: "netmiko".into(),
        device_name: Some(format!("192.0.2.{device}")),
        command: vec!["show version".into()],
        ttl: Duration::from_secs(1800),
        timeout: Duration::from_secs(300),
        result_ttl: Duration::from_secs(300),
        retry: RetryPolicy::default(),
        idempotency_key: None,
        digest: [0; 32],
        payload: vec![b'x'; 1024],
        notify: None,
    }
}

fn finished() -> Completion {
    let retval = Some(vec![ExecutionResult::ok("show version", "y".repeat(1024))]);
    Completion {
        status: JobStatus::Finished,
        result: JobResult { kind: ResultType::Successful, retval, error: None, outcome: None },
    }
}

fn rate(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<58} {:>9.0}/s   ({count} in {seconds:.2} s)", count as f64 / seconds);
}

async fn submit_from_callers(queue: &Arc<Embedded>, count: usize, kind: JobKind, fifo: bool) -> Vec<JobId> {
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        let queue = queue.clone();
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..count / CALLERS {
                let new = job((caller * 997 + n) % 1000, kind, fifo);
                match queue.submit(vec![new]).await.unwrap().pop() {
                    Some(Submitted::Accepted(job)) => ids.push(job.id),
                    other => println!("not accepted: {other:?}"),
                }
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    ids
}

#[tokio::main]
async fn main() {
    let own = tempfile::tempdir().unwrap();
    let folder = std::env::args().nth(1).map_or(own.path().to_owned(), Into::into);
    let options = Options { max_queued: 1_000_000, max_queued_per_device: 100_000, ..Options::default() };
    let queue = Embedded::open(&folder.join("bench"), options).unwrap();
    let _signals = queue.join("n1", 10_000.into()).await.unwrap();
    let alive = queue.clone();
    let heart = tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        loop {
            beat.tick().await;
            alive.renew("n1").await.unwrap();
        }
    });

    let start = Instant::now();
    let count = 32_000;
    let ids = submit_from_callers(&queue, count, JobKind::Query, true).await;
    rate("durable submits, 32 callers, one job each", ids.len(), start);

    let start = Instant::now();
    let done = AtomicUsize::new(0);
    while let Some(claim) = queue.claim_fifo("n1", 1).await.unwrap() {
        assert_eq!(queue.complete(&claim.token, finished()).await.unwrap(), Verdict::Taken);
        done.fetch_add(1, Ordering::Relaxed);
    }
    rate("claim + complete of queries", done.into_inner(), start);

    // Acceptance order, so that the newest ones are those kept in memory.
    let all = queue.list(&JobQuery::default()).await.unwrap().jobs;
    assert_eq!(all.len(), ids.len());
    let newest_first: Arc<Vec<JobId>> = Arc::new(all.iter().map(|job| job.id).collect());
    for (what, reads, from) in [
        ("reads of recent jobs, 32 callers", 200_000, 0),
        ("reads of older jobs from disk, 32 callers", 20_000, count - 8_000),
    ] {
        let start = Instant::now();
        let mut tasks = Vec::new();
        for caller in 0..CALLERS {
            let (queue, ids) = (queue.clone(), newest_first.clone());
            tasks.push(tokio::spawn(async move {
                for n in 0..reads / CALLERS {
                    let id = ids[from + (caller * 131 + n * 7) % 8_000];
                    assert!(queue.job(id).await.unwrap().is_some());
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        rate(what, reads, start);
    }

    let start = Instant::now();
    let page = queue.list(&JobQuery { limit: 100, ..JobQuery::default() }).await.unwrap();
    println!(
        "first page of {} jobs among {count}: {:.1} ms",
        page.jobs.len(),
        start.elapsed().as_secs_f64() * 1e3
    );
    let status = vec![JobStatus::Finished];
    let host = Some("192.0.2.7".to_owned());
    let start = Instant::now();
    let page = queue.list(&JobQuery { limit: 100, status, host, ..JobQuery::default() }).await.unwrap();
    println!(
        "first page of one host, {} jobs: {:.1} ms",
        page.jobs.len(),
        start.elapsed().as_secs_f64() * 1e3
    );

    let start = Instant::now();
    let bulk: Vec<NewJob> = (0..1000).map(|n| job(n, JobKind::Query, true)).collect();
    queue.submit(bulk).await.unwrap();
    println!("bulk of 1000: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    while let Some(claim) = queue.claim_fifo("n1", 1).await.unwrap() {
        queue.complete(&claim.token, finished()).await.unwrap();
    }

    for (kind, what) in [
        (JobKind::Query, "whole lives of queries, 32 callers, submit to end"),
        (JobKind::Modification, "whole lives of modifications, 32 callers"),
    ] {
        let start = Instant::now();
        let mut tasks = Vec::new();
        let each = 250;
        for caller in 0..CALLERS {
            let queue = queue.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..each {
                    let new = job(2000 + caller, kind, false);
                    let key = new.device.clone().unwrap();
                    queue.submit(vec![new]).await.unwrap();
                    let lease = queue.acquire("n1", &key).await.unwrap().unwrap();
                    let claim = queue.claim(&lease).await.unwrap().unwrap();
                    queue.complete(&claim.token, finished()).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        rate(what, each * CALLERS, start);
    }

    let start = Instant::now();
    let each = 500;
    for _ in 0..each {
        let new = job(5000, JobKind::Query, false);
        let key = new.device.clone().unwrap();
        queue.submit(vec![new]).await.unwrap();
        let lease = queue.acquire("n1", &key).await.unwrap().unwrap();
        let claim = queue.claim(&lease).await.unwrap().unwrap();
        queue.complete(&claim.token, finished()).await.unwrap();
    }
    rate("whole lives of queries, one caller (one fsync each)", each, start);
    println!("counts: {:?}", queue.counts().await.unwrap());
    heart.abort();
    queue.close().await;
}
