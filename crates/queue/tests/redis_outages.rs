//! What becomes of jobs when the server is killed, frozen, full, cut off or replaced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod proxy;
mod server;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_model::worker::{WorkerRecord, WorkerState};
use netpulse_model::{JobId, JobKind, JobStatus, Outcome, Timestamp};
use netpulse_queue::conformance::{
    SOON, accept, acquire, applied, change, claim, device, fifo_query, finished, job, outcome_of, query,
    sending, signal,
};
use netpulse_queue::{
    ClaimToken, Completion, JobQuery, Next, Queue, QueueError, Redis, RedisOptions, RedisSentinel, Signal,
    Submitted, Verdict,
};
use proxy::Proxy;
use server::{Server, free_port};

const DEADLINE: Duration = Duration::from_secs(1);

async fn open(options: RedisOptions) -> Arc<Redis> {
    // Nobody renews here, however slow the machine.
    Redis::open(RedisOptions { deadline: DEADLINE, lease: Duration::from_secs(120), ..options })
        .await
        .unwrap()
}

/// Completes as a worker does: until there is a verdict.
async fn complete(queue: Arc<Redis>, token: ClaimToken, end: Completion) -> Verdict {
    loop {
        match queue.complete(&token, end.clone()).await {
            Ok(verdict) => return verdict,
            Err(QueueError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn refused(queue: &Redis) {
    let asked = Instant::now();
    let answer = queue.submit(vec![query("sw1")]).await;
    assert!(matches!(answer, Err(QueueError::Unavailable(_))), "{answer:?}");
    assert!(asked.elapsed() < DEADLINE * 3, "bounded: {:?}", asked.elapsed());
}

async fn renewed(queue: &Redis, node: &str) {
    let end = Instant::now() + SOON;
    while let Err(error) = queue.renew(node).await {
        assert!(Instant::now() < end, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_11_a_killed_server_loses_nothing_and_what_was_held_is_delivered() {
    let server = Server::start(&["--appendfsync", "always"]).await;
    let queue = open(server.options()).await;
    let mut signals = queue.join("n1", 100.into()).await.unwrap();
    let mut accepted = Vec::new();
    for n in 0..50 {
        accepted.push(accept(&*queue, change(&format!("sw{n}"))).await.id);
    }
    let lease = acquire(&*queue, "n1", "sw0").await;
    let held = claim(&*queue, &lease).await;
    assert_eq!(queue.progress(&held.token, sending(0, "vlan 10")), Verdict::Taken);

    server.kill();
    refused(&queue).await;
    assert!(queue.health().await.is_err());
    assert_eq!(queue.progress(&held.token, sending(1, "name users")), Verdict::Taken, "sessions stay up");
    let completing = tokio::spawn(complete(Arc::clone(&queue), held.token.clone(), applied()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!completing.is_finished());

    server.restart().await;
    assert_eq!(tokio::time::timeout(SOON, completing).await.unwrap().unwrap(), Verdict::Taken);
    renewed(&queue, "n1").await;
    for id in &accepted {
        job(&*queue, *id).await;
    }
    assert_eq!(outcome_of(&job(&*queue, held.job.id).await), Some(Outcome::Applied));
    assert_eq!(queue.counts().await.unwrap().queued, 49, "what was refused was not accepted");
    accept(&*queue, query("sw99")).await;
    signal(&mut signals, |s| *s == Signal::Device(device("sw99"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_11_a_frozen_server_accepts_nothing_afterwards_that_was_refused() {
    let server = Server::start(&[]).await;
    let queue = open(server.options()).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    accept(&*queue, query("sw1")).await;
    let waiting = accept(&*queue, change("sw2")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    let second = acquire(&*queue, "n1", "sw2").await;

    server.signal("STOP");
    let claiming = queue.claim(&second).await;
    assert!(matches!(claiming, Err(QueueError::Unavailable(_))));
    refused(&queue).await;
    let completing = tokio::spawn(complete(Arc::clone(&queue), held.token.clone(), finished()));
    let canceling = queue.cancel(waiting.id, "").await;
    assert!(matches!(canceling, Err(QueueError::Unavailable(_))), "{canceling:?}");
    server.signal("CONT");

    assert_eq!(tokio::time::timeout(SOON, completing).await.unwrap().unwrap(), Verdict::Taken);
    renewed(&queue, "n1").await;
    // What lay in the server's sockets was too late to be done.
    let claimed = tokio::time::timeout(SOON, async {
        loop {
            if let Ok(Some(claim)) = queue.claim(&second).await {
                return claim;
            }
            tokio::task::yield_now().await;
        }
    });
    let claimed = claimed.await.expect("the claim whose answer was lost is taken back");
    assert_eq!((claimed.job.id, claimed.job.attempt), (waiting.id, 1), "nobody had it before");
    assert_eq!(queue.counts().await.unwrap().queued, 0, "what was refused was not accepted after all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_11_a_server_without_memory_takes_nothing_new_but_lets_jobs_end() {
    let server = Server::start(&[]).await;
    let queue = open(server.options()).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    for name in ["sw1", "sw2"] {
        accept(&*queue, change(name)).await;
    }
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    server.admin(&["CONFIG", "SET", "maxmemory", "1"]).await;
    refused(&queue).await;
    assert!(queue.health().await.is_err());
    // A worker says that it lives: the server takes no such thing now, and nothing waits behind it.
    queue.put_worker(worker("n1_HostQ_sw1"));
    assert_eq!(queue.progress(&held.token, sending(0, "vlan 10")), Verdict::Taken);
    assert_eq!(queue.complete(&held.token, applied()).await.unwrap(), Verdict::Taken);
    assert_eq!(queue.renew("n1").await.unwrap(), []);
    let lease = acquire(&*queue, "n1", "sw2").await;
    let held = claim(&*queue, &lease).await;
    assert_eq!(queue.complete(&held.token, applied()).await.unwrap(), Verdict::Taken);
    server.admin(&["CONFIG", "SET", "maxmemory", "0"]).await;
    queue.health().await.unwrap();
    accept(&*queue, query("sw1")).await;
    // The next record is whole again: it is listed, and goes with its node.
    queue.put_worker(worker("n1_HostQ_sw1"));
    assert_eq!(queue.workers().await.unwrap().len(), 1);
    queue.leave("n1").await.unwrap();
    assert_eq!(queue.workers().await.unwrap(), []);
}

fn worker(name: &str) -> WorkerRecord {
    let now = Timestamp::now();
    WorkerRecord {
        name: name.into(),
        status: WorkerState::Busy,
        pid: std::process::id(),
        hostname: "n1".into(),
        queues: Vec::new(),
        last_heartbeat: now,
        birth_at: now,
        successful_job_count: 0,
        failed_job_count: 0,
        self_healing: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_11_a_server_whose_disk_fails_refuses_and_results_are_held() {
    let server = Server::start(&[]).await;
    let queue = open(server.options()).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    accept(&*queue, change("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    // A snapshot that cannot be put in its place: the server stops taking writes (MISCONF).
    let place = server.path().join("dump.rdb");
    std::fs::create_dir_all(place.join("in the way")).unwrap();
    server.admin(&["CONFIG", "SET", "save", "3600 1"]).await;
    server.admin(&["BGSAVE"]).await;
    let snapshot = async |wanted: &str| {
        let end = Instant::now() + SOON;
        while !server.admin(&["INFO", "persistence"]).await.contains(wanted) {
            assert!(Instant::now() < end, "no {wanted}");
        }
    };
    snapshot("rdb_last_bgsave_status:err").await;
    refused(&queue).await;
    let completing = tokio::spawn(complete(Arc::clone(&queue), held.token.clone(), applied()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!completing.is_finished());
    assert_eq!(job(&*queue, held.job.id).await.status, JobStatus::Started);
    std::fs::remove_dir_all(&place).unwrap();
    server.admin(&["BGSAVE"]).await;
    snapshot("rdb_last_bgsave_status:ok").await;
    assert_eq!(tokio::time::timeout(SOON, completing).await.unwrap().unwrap(), Verdict::Taken);
    accept(&*queue, query("sw1")).await;
}

/// Connections are cut again and again while jobs are submitted and run: each ends once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_7_cut_connections_neither_lose_nor_repeat_jobs() {
    let server = Server::start(&[]).await;
    let queue = open(server.options()).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    let submitting = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            let mut ids = HashSet::new();
            for n in 0..300 {
                let mut new = fifo_query(&format!("sw{}", n % 20));
                new.result_ttl = Duration::from_secs(3000);
                let id = new.id;
                // A call may be given up, but then its job is not accepted.
                match queue.submit(vec![new]).await {
                    Ok(answers) => {
                        assert!(matches!(answers[0], Submitted::Accepted(_)));
                        ids.insert(id);
                    }
                    Err(QueueError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            ids
        })
    };
    let running = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            let mut ran = HashSet::new();
            loop {
                match queue.claim_fifo("n1", 1).await {
                    Ok(Some(claim)) => {
                        assert!(ran.insert(claim.job.id), "started twice");
                        assert_eq!(claim.job.attempt, 1);
                        let verdict = complete(Arc::clone(&queue), claim.token, finished()).await;
                        assert_eq!(verdict, Verdict::Taken, "a repeated end is taken once");
                    }
                    Ok(None) | Err(QueueError::Unavailable(_)) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
                if ran.len() == 300 || queue.health().await.is_ok() && ran.len() >= 290 {
                    let left = queue.counts().await;
                    if left.is_ok_and(|counts| counts.queued + counts.started == 0) && ran.len() >= 290 {
                        return ran;
                    }
                }
            }
        })
    };
    for _ in 0..15 {
        server.admin(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let accepted = tokio::time::timeout(SOON, submitting).await.unwrap().unwrap();
    assert!(accepted.len() >= 290, "{}", accepted.len());
    let ran = tokio::time::timeout(SOON, running).await.unwrap().unwrap();
    assert!(accepted.is_subset(&ran), "every accepted job ran");
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts.finished as usize, ran.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_notification_loses_no_wake_up() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.port).await;
    let queue = open(RedisOptions { port: proxy.port, ..server.options() }).await;
    let other = open(RedisOptions { instance: "other".into(), ..server.options() }).await;
    let mut signals = queue.join("n1", 100.into()).await.unwrap();
    let first = accept(&*other, query("sw0")).await;
    signal(&mut signals, |s| *s == Signal::Device(device("sw0"))).await;
    let lease = acquire(&*queue, "n1", "sw0").await;
    let held = claim(&*queue, &lease).await;
    let waiter = {
        let (queue, id) = (Arc::clone(&queue), first.id);
        tokio::spawn(async move { queue.ended(id, SOON).await.unwrap().unwrap() })
    };
    // This process hears nothing while these things happen.
    proxy.swallow_answers(true);
    accept(&*other, query("sw1")).await;
    other.cancel(first.id, "enough").await.unwrap();
    proxy.cut();
    proxy.swallow_answers(false);
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    let mut end = finished();
    end.status = JobStatus::Canceled;
    assert_eq!(complete(Arc::clone(&queue), held.token, end).await, Verdict::Taken);
    assert_eq!(tokio::time::timeout(SOON, waiter).await.unwrap().unwrap().status, JobStatus::Canceled);
}

/// The end arrives, its answer does not: the same end again is taken, and counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_7_an_end_whose_answer_was_lost_is_taken_when_repeated() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.port).await;
    let queue = open(RedisOptions { port: proxy.port, ..server.options() }).await;
    let other = open(RedisOptions { instance: "other".into(), ..server.options() }).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    let changed = accept(&*queue, change("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    assert_eq!(queue.progress(&held.token, sending(0, "vlan 10")), Verdict::Taken);
    // A listing comes after the notes made before it: it is the end's own answer that is lost.
    queue.list(&JobQuery::default()).await.unwrap();
    proxy.swallow_answers(true);
    let completing = tokio::spawn(complete(Arc::clone(&queue), held.token.clone(), applied()));
    let ended = other.ended(changed.id, SOON).await.unwrap().unwrap();
    assert_eq!(ended.status, JobStatus::Finished, "it has arrived");
    assert!(!completing.is_finished(), "but nobody was told");
    proxy.swallow_answers(false);
    proxy.cut();
    assert_eq!(tokio::time::timeout(SOON, completing).await.unwrap().unwrap(), Verdict::Taken);
    assert_eq!(other.counts().await.unwrap().finished, 1);
    assert_eq!(queue.complete(&held.token, applied()).await.unwrap(), Verdict::Stale, "said once");
}

/// The end arrives and takes the next job, the answer does not come: repeated, it brings the same claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_7_an_end_whose_answer_was_lost_brings_the_same_claim_when_repeated() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.port).await;
    let queue = open(RedisOptions { port: proxy.port, ..server.options() }).await;
    let other = open(RedisOptions { instance: "other".into(), ..server.options() }).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    accept(&*queue, change("sw1")).await;
    let (second, third) = (accept(&*queue, change("sw1")).await, accept(&*queue, change("sw1")).await);
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    proxy.swallow_answers(true);
    let completing = {
        let (queue, lease) = (Arc::clone(&queue), lease.clone());
        tokio::spawn(async move {
            loop {
                match queue.complete_and_claim(&held.token, applied(), &lease).await {
                    Ok((verdict, Next::Job(claim))) => return (verdict, claim),
                    Ok(_) => panic!("the next one waits"),
                    Err(QueueError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    let end = Instant::now() + SOON;
    let started = loop {
        let job = other.job(second.id).await.unwrap().unwrap();
        if job.status == JobStatus::Started {
            break job;
        }
        assert!(Instant::now() < end, "it is taken in the step that ends the first");
        tokio::task::yield_now().await;
    };
    assert!(!completing.is_finished(), "but nobody was told");
    proxy.swallow_answers(false);
    proxy.cut();
    let (verdict, claim) = tokio::time::timeout(SOON, completing).await.unwrap().unwrap();
    assert_eq!(verdict, Verdict::Taken);
    assert_eq!((claim.job.id, claim.job.attempt, claim.job.started_at), (second.id, 1, started.started_at));
    assert_eq!(claim.payload, format!("payload of {}", second.id).into_bytes());
    assert_eq!(other.job(third.id).await.unwrap().unwrap().status, JobStatus::Queued, "one was taken");
    assert_eq!(complete(Arc::clone(&queue), claim.token, applied()).await, Verdict::Taken);
}

/// The same, but the worker has gone meanwhile: the next job waits on for whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_nobody_waits_for_any_more_is_taken_back() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.port).await;
    let queue = open(RedisOptions { port: proxy.port, ..server.options() }).await;
    let other = open(RedisOptions { instance: "other".into(), ..server.options() }).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    let first = accept(&*queue, change("sw1")).await;
    let second = accept(&*queue, change("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    proxy.swallow_answers(true);
    let completing = {
        let (queue, lease) = (Arc::clone(&queue), lease.clone());
        tokio::spawn(
            async move { queue.complete_and_claim(&held.token, applied(), &lease).await.map(|_| ()) },
        )
    };
    let ended = other.ended(first.id, SOON).await.unwrap().unwrap();
    assert_eq!(ended.status, JobStatus::Finished);
    completing.abort();
    assert!(completing.await.unwrap_err().is_cancelled());
    proxy.swallow_answers(false);
    proxy.cut();
    let end = Instant::now() + SOON;
    let claim = loop {
        if let Ok(Some(claim)) = queue.claim(&lease).await {
            break claim;
        }
        assert!(Instant::now() < end, "the job is held by nobody");
        tokio::task::yield_now().await;
    };
    assert_eq!((claim.job.id, claim.job.attempt), (second.id, 1));
}

/// Connections are cut again and again while an owner goes from job to job: each runs once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_3_7_cut_connections_neither_lose_nor_repeat_what_ends_bring() {
    const JOBS: usize = 400;
    let server = Server::start(&[]).await;
    let queue = open(server.options()).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    let mut accepted = Vec::new();
    for n in 0..JOBS {
        let mut new = if n % 3 == 0 { change("sw1") } else { query("sw1") };
        new.result_ttl = Duration::from_secs(3000);
        accepted.push(accept(&*queue, new).await.id);
    }
    let lease = acquire(&*queue, "n1", "sw1").await;
    let running = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            let mut ran = Vec::new();
            let mut next = Next::Unknown;
            while ran.len() < JOBS {
                let claim = match next {
                    Next::Job(claim) => *claim,
                    Next::Nothing => panic!("{} waits", JOBS - ran.len()),
                    Next::Unknown => {
                        // An answer that is lost is taken back before the job can be had again.
                        next = match queue.claim(&lease).await {
                            Ok(Some(claim)) => Next::Job(Box::new(claim)),
                            Ok(None) | Err(QueueError::Unavailable(_)) => Next::Unknown,
                            Err(error) => panic!("{error}"),
                        };
                        tokio::task::yield_now().await;
                        continue;
                    }
                };
                ran.push(claim.job.id);
                assert_eq!(claim.job.attempt, 1);
                queue.progress(&claim.token, sending(0, "show clock"));
                let end = if claim.job.kind == JobKind::Modification { applied() } else { finished() };
                next = loop {
                    match queue.complete_and_claim(&claim.token, end.clone(), &lease).await {
                        Ok((verdict, next)) => {
                            assert_eq!(verdict, Verdict::Taken, "a repeated end is taken once");
                            break next;
                        }
                        Err(QueueError::Unavailable(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                };
            }
            ran
        })
    };
    while !running.is_finished() {
        server.admin(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(running.await.unwrap(), accepted, "each once, in order");
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.finished as usize, counts.started, counts.queued), (JOBS, 0, 0));
}

/// A master, a replica and a sentinel, each a process: the master is killed.
/// A change that a replica confirmed; one that is slow to (its disk) makes the engine refuse, rightly.
async fn accept_confirmed(queue: &Redis, name: &str) -> JobId {
    let end = Instant::now() + SOON;
    loop {
        match queue.submit(vec![change(name)]).await.as_deref() {
            Ok([Submitted::Accepted(job)]) => return job.id,
            Err(QueueError::Unavailable(_)) if Instant::now() < end => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_a_failover_keeps_what_a_replica_confirmed() {
    let master = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
    let replica = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
    replica.admin(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]).await;
    let end = Instant::now() + SOON;
    while !replica.admin(&["INFO", "replication"]).await.contains("master_link_status:up") {
        assert!(Instant::now() < end, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sentinel = Server::sentinel(free_port(), master.port).await;
    let options = RedisOptions {
        sentinel: Some(RedisSentinel {
            hosts: vec![("127.0.0.1".into(), sentinel.port)],
            master_name: "mymaster".into(),
            password: None,
        }),
        host: "unused.invalid".into(),
        min_replicas: 1,
        ..master.options()
    };
    let end = Instant::now() + SOON;
    while !sentinel.admin(&["SENTINEL", "replicas", "mymaster"]).await.contains(&replica.port.to_string()) {
        assert!(Instant::now() < end, "the sentinel knows no replica");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let queue = open(options.clone()).await;
    let _signals = queue.join("n1", 100.into()).await.unwrap();
    let mut accepted = Vec::new();
    for n in 0..20 {
        accepted.push(accept_confirmed(&queue, &format!("sw{n}")).await);
    }
    let lease = acquire(&*queue, "n1", "sw0").await;
    let held = claim(&*queue, &lease).await;
    master.kill();
    let completing = tokio::spawn(complete(Arc::clone(&queue), held.token.clone(), applied()));
    let verdict =
        tokio::time::timeout(Duration::from_secs(60), completing).await.expect("a new master").unwrap();
    assert_eq!(verdict, Verdict::Taken);
    for id in &accepted {
        job(&*queue, *id).await;
    }
    // One replica is wanted and none is left: what is submitted now is not confirmed, so not accepted.
    refused(&queue).await;
    queue.close().await;
    let queue = open(RedisOptions { min_replicas: 0, ..options }).await;
    accept(&*queue, query("sw50")).await;
    assert_eq!(queue.list(&JobQuery::default()).await.unwrap().jobs[0].queue, query("sw50").queue);
}
