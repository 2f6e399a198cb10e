//! An engine with nothing to do does nothing. Alone in its file: it counts the process's time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use netpulse_queue::{Embedded, Options, Queue};

/// Processor time of this process so far, in clock ticks of 10 ms (fields 14 and 15 of proc's stat).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_engine_sleeps_until_something_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { lease: Duration::from_secs(2), ..Options::default() };
    let queue = Embedded::open(folder.path(), options).unwrap();
    let mut signals = queue.join("n1", 10.into()).await.unwrap();
    let lease = queue.acquire("n1", &netpulse_model::DeviceKey::new("sw1", 22, 22)).await.unwrap().unwrap();
    let before = ticks();
    // Nothing is asked: the timer alone notices, after the lease, that the node is silent.
    let start = std::time::Instant::now();
    let lost = tokio::time::timeout(Duration::from_secs(60), signals.recv()).await.unwrap();
    assert_eq!(lost, Some(netpulse_queue::Signal::LeaseLost(lease)));
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    let used = ticks() - before;
    assert!(used < 20, "two idle seconds took {used}0 ms of processor time");
    queue.close().await;
}
