//! Measures an engine: durable submits, whole lives of jobs, reads.
//!
//! `cargo run --release -p netpulse-queue --example queue_bench [FOLDER]`
//! `cargo run --release -p netpulse-queue --example queue_bench -- --engine redis [PORT [FSYNC]]`
//!
//! Without a port a redis-server of its own is started (AOF, `everysec` unless told otherwise) and
//! ended again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpulse_model::event::What;
use netpulse_model::job::RetryPolicy;
use netpulse_model::result::ResultType;
use netpulse_model::{DeviceKey, ExecutionResult, JobId, JobKind, JobResult, JobStatus, Priority, QueueName};
use netpulse_queue::{
    Completion, Embedded, JobQuery, NewJob, Options, Queue, Redis, RedisOptions, SealKey, Submitted, Verdict,
};

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

/// Processor seconds of a process so far (fields 14 and 15 of proc's stat, ticks of 10 ms).
fn processor(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// The server's process, when this bench started one.
static SERVER: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// When something began, by the clock and by what each process had used.
struct Start(Instant, f64, f64);

fn begin() -> Start {
    Start(Instant::now(), processor("self"), SERVER.get().map_or(0.0, |pid| processor(pid)))
}

/// Jobs a second, and what one took of the processors: a busy machine changes only the first.
fn rate(what: &str, count: usize, start: Start) {
    let seconds = start.0.elapsed().as_secs_f64();
    let each = |before: f64, now: f64| (now - before) * 1e6 / count as f64;
    let own = each(start.1, processor("self"));
    let server = SERVER.get().map_or(0.0, |pid| each(start.2, processor(pid)));
    println!(
        "{what:<58} {:>9.0}/s   ({count} in {seconds:.2} s; processor {own:.0} us each, server {server:.0} us)",
        count as f64 / seconds
    );
}

async fn submit_from_callers<Q: Queue>(
    queue: &Arc<Q>,
    count: usize,
    kind: JobKind,
    fifo: bool,
) -> Vec<JobId> {
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

/// A server of its own, ended with it.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn redis(folder: &std::path::Path, words: &[String]) -> (Arc<Redis>, Option<Server>) {
    let mut server = None;
    let port = match words.first().and_then(|port| port.parse().ok()).filter(|port| *port != 0) {
        Some(port) => port,
        None => {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let fsync = words.get(1).map_or("everysec", String::as_str);
            let child = std::process::Command::new("redis-server")
                .args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "yes",
                ])
                .args(["--appendfsync", fsync, "--dir"])
                .arg(folder)
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("redis-server is installed");
            SERVER.set(child.id().to_string()).unwrap();
            server = Some(Server(child));
            port
        }
    };
    let options = RedisOptions {
        host: "127.0.0.1".into(),
        port,
        max_queued: 1_000_000,
        max_queued_per_device: 100_000,
        keys: vec![SealKey::new([7; 32])],
        instance: "bench".into(),
        ..RedisOptions::default()
    };
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match Redis::open(options.clone()).await {
            Ok(queue) => return (queue, server),
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

#[tokio::main]
async fn main() {
    let own = tempfile::tempdir().unwrap();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--engine")
        && words.get(1).is_some_and(|word| word == "redis")
    {
        let (queue, server) = redis(own.path(), &words[2..]).await;
        for finding in queue.examine().await.unwrap() {
            println!("{}: {} ({:?})", finding.what, finding.found, finding.severity);
        }
        measure(queue).await;
        drop(server);
        return;
    }
    let folder = words.first().map_or(own.path().to_owned(), Into::into);
    let options = Options { max_queued: 1_000_000, max_queued_per_device: 100_000, ..Options::default() };
    measure(Embedded::open(&folder.join("bench"), options).unwrap()).await;
}

/// Jobs a second over the whole path: submitted in bulk, claimed by device, noted, ended.
async fn whole_path<Q: Queue>(queue: &Arc<Q>, devices: usize, each: usize) {
    let start = begin();
    let submitting = {
        let queue = queue.clone();
        tokio::spawn(async move {
            for _ in 0..each {
                let bulk = (0..devices).map(|n| job(6000 + n, JobKind::Query, false)).collect();
                queue.submit(bulk).await.unwrap();
            }
        })
    };
    let mut tasks = Vec::new();
    for n in 0..devices {
        let queue = queue.clone();
        tasks.push(tokio::spawn(async move {
            let key = job(6000 + n, JobKind::Query, false).device.unwrap();
            let lease = queue.acquire("n1", &key).await.unwrap().unwrap();
            let mut done = 0;
            while done < each {
                let Some(claim) = queue.claim(&lease).await.unwrap() else {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    continue;
                };
                let command = "show version".to_owned();
                let sending = What::Sending { index: 0, total: 1, command };
                assert_eq!(queue.progress(&claim.token, sending), Verdict::Taken);
                assert_eq!(queue.complete(&claim.token, finished()).await.unwrap(), Verdict::Taken);
                done += 1;
            }
        }));
    }
    submitting.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    rate(&format!("whole path, {devices} devices: submit, claim, note, complete"), devices * each, start);
}

async fn measure<Q: Queue>(queue: Arc<Q>) {
    let _signals = queue.join("n1", 10_000.into()).await.unwrap();
    let alive = queue.clone();
    let heart = tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        loop {
            beat.tick().await;
            alive.renew("n1").await.unwrap();
        }
    });

    let start = begin();
    let count = 32_000;
    let ids = submit_from_callers(&queue, count, JobKind::Query, true).await;
    rate("durable submits, 32 callers, one job each", ids.len(), start);

    let start = begin();
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
        let start = begin();
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

    let start = begin();
    let page = queue.list(&JobQuery { limit: 100, ..JobQuery::default() }).await.unwrap();
    println!(
        "first page of {} jobs among {count}: {:.1} ms",
        page.jobs.len(),
        start.0.elapsed().as_secs_f64() * 1e3
    );
    let status = vec![JobStatus::Finished];
    let host = Some("192.0.2.7".to_owned());
    let start = begin();
    let page = queue.list(&JobQuery { limit: 100, status, host, ..JobQuery::default() }).await.unwrap();
    println!(
        "first page of one host, {} jobs: {:.1} ms",
        page.jobs.len(),
        start.0.elapsed().as_secs_f64() * 1e3
    );

    for fifo in [true, false] {
        let start = begin();
        for _ in 0..20 {
            let bulk: Vec<NewJob> = (0..1000).map(|n| job(n, JobKind::Query, fifo)).collect();
            queue.submit(bulk).await.unwrap();
        }
        rate(
            if fifo { "bulks of 1000 for FifoQ" } else { "bulks of 1000 for devices' queues" },
            20_000,
            start,
        );
        if !fifo {
            queue.cancel_waiting(&JobQuery { limit: 0, ..JobQuery::default() }).await.unwrap();
        }
    }
    while let Some(claim) = queue.claim_fifo("n1", 1).await.unwrap() {
        queue.complete(&claim.token, finished()).await.unwrap();
    }

    for (kind, what) in [
        (JobKind::Query, "whole lives of queries, 32 callers, submit to end"),
        (JobKind::Modification, "whole lives of modifications, 32 callers"),
    ] {
        let start = begin();
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

    whole_path(&queue, 100, 100).await;

    let start = begin();
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
