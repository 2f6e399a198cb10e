//! What becomes of leases when the clock of the server's machine is set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;
#[path = "../../../tests/support/wall_clock.rs"]
mod wall_clock;

use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_model::{JobStatus, Outcome};
use netpulse_queue::conformance::{
    SOON, accept, acquire, applied, change, claim, device, job, no_connection, outcome_of, query, sending,
    signal,
};
use netpulse_queue::{Queue, QueueError, Redis, RedisOptions, Signal, Verdict};
use server::{Server, free_port};
use wall_clock::WallClock;

const LEASE: Duration = Duration::from_millis(2400);
const HOUR: Duration = Duration::from_secs(3600);

async fn process(server: &Server, instance: &str) -> Arc<Redis> {
    let options = RedisOptions { instance: instance.into(), lease: LEASE, ..server.options() };
    Redis::open(options).await.unwrap()
}

/// Renews as a node does, and is never told that it lost anything.
fn alive(queue: &Arc<Redis>, node: &'static str) -> tokio::task::JoinHandle<()> {
    let queue = Arc::clone(queue);
    tokio::spawn(async move {
        loop {
            match queue.renew(node).await {
                Ok(lost) => assert_eq!(lost, [], "{node} lost a lease that it believed in"),
                Err(error) => assert!(matches!(error, QueueError::Unavailable(_)), "{error}"),
            }
            tokio::time::sleep(LEASE / 4).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_2_6_a_clock_that_is_set_takes_no_lease_and_prolongs_none() {
    let folder = tempfile::tempdir().unwrap();
    let clock = WallClock::new(folder.path(), "redis");
    let server = Server::start_in(free_port(), &[], &clock.environment()).await;
    let (owner, other) = (process(&server, "a").await, process(&server, "b").await);
    let _signals = owner.join("n1", 10.into()).await.unwrap();
    let mut signals = other.join("n2", 10.into()).await.unwrap();
    let (first, second) = (alive(&owner, "n1"), alive(&other, "n2"));

    for (turn, set) in ["fast", "right", "slow", "right again"].into_iter().enumerate() {
        let name = format!("sw{turn}");
        let changing = accept(&*owner, change(&name)).await;
        let lease = acquire(&*owner, "n1", &name).await;
        let held = claim(&*owner, &lease).await;
        match set {
            "fast" => clock.fast(HOUR),
            "slow" => clock.slow(HOUR),
            _ => clock.right(),
        }
        // A job can be accepted at once, by a process that has not heard of the new time, too.
        accept(&*other, query(&name)).await;
        // As long as two leases everybody looks whether something is theirs now.
        let until = Instant::now() + LEASE * 2;
        while Instant::now() < until {
            assert_eq!(other.acquire("n2", &device(&name)).await.unwrap(), None, "clock {set}");
            assert!(other.nodes().await.unwrap().iter().all(|node| node.alive), "clock {set}");
            tokio::time::sleep(LEASE / 10).await;
        }
        assert_eq!(owner.progress(&held.token, sending(0, "vlan 10")), Verdict::Taken);
        assert_eq!(owner.complete(&held.token, applied()).await.unwrap(), Verdict::Taken, "clock {set}");
        assert_eq!(outcome_of(&job(&*other, changing.id).await), Some(Outcome::Applied), "clock {set}");
        assert!(!first.is_finished() && !second.is_finished(), "clock {set}: a node lost its leases");
    }

    // Whoever dies right when the clock is set back is still found dead, not an hour later.
    let changing = accept(&*owner, change("sw0")).await;
    let lease = owner.acquire("n1", &device("sw0")).await.unwrap().unwrap();
    while let Some(held) = owner.claim(&lease).await.unwrap() {
        if held.job.id == changing.id {
            break;
        }
        owner.complete(&held.token, applied()).await.unwrap();
    }
    first.abort();
    owner.crash().await;
    clock.slow(HOUR);
    let began = Instant::now();
    let ended = other.ended(changing.id, SOON).await.unwrap().unwrap();
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::Unknown)));
    assert!(began.elapsed() < LEASE * 4, "{:?}", began.elapsed());
    accept(&*other, query("sw0")).await;
    signal(&mut signals, |s| *s == Signal::Device(device("sw0"))).await;
    second.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_try_does_not_wait_for_a_clock_that_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = WallClock::new(folder.path(), "redis");
    let server = Server::start_in(free_port(), &[], &clock.environment()).await;
    let queue = process(&server, "a").await;
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let beat = alive(&queue, "n1");
    let tried = accept(&*queue, query("sw1")).await;
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    queue.retry(&held.token, Duration::from_secs(2), &no_connection("no answer")).await.unwrap();
    clock.slow(HOUR);
    // Not before its time, and not an hour after it.
    let began = Instant::now();
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    loop {
        if let Some(again) = queue.claim(&lease).await.unwrap() {
            assert_eq!((again.job.id, again.job.attempt), (tried.id, 2));
            break;
        }
        assert!(began.elapsed() < SOON, "it still waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    beat.abort();
}
