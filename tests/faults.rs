//! Many machines under faults: processes are killed and frozen, cables cut, Redis taken away, while
//! clients ask for queries and changes. What is judged is the devices' own journal.
//!
//! Everything random comes from one seed: `NETPULSE_SEED=7` runs that history again (as far as the
//! machine's own timing allows), and a failure prints its seed and history. `./scripts/soak` runs long.
//!
//! With `appendfsync always` nothing acknowledged is ever lost. With `everysec` Redis writes before
//! it answers, but syncs each second, and while a sync is slow it holds writes back for at most two
//! seconds: killing the process may lose what was acknowledged in that time, losing the machine one
//! second more. The check allows just that, and only for jobs submitted right before a kill.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "faults/check.rs"]
mod check;
#[path = "faults/fleet.rs"]
mod fleet;
#[path = "faults/history.rs"]
mod history;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/proxy.rs"]
mod proxy;
#[path = "faults/random.rs"]
mod random;
#[path = "support/receiver.rs"]
mod receiver;
#[path = "faults/schedule.rs"]
mod schedule;
mod support;
#[path = "support/wall_clock.rs"]
mod wall_clock;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::{Engine, Fleet};
use history::History;
use load::Clients;
use netpulse_simulator::{Faults, Plan, Simulator};
use random::Random;
use receiver::Receiver;
use serde_json::json;

/// One history: load and faults for `time`, then peace, then the judgement.
async fn history(engine: Engine, seed: u64, time: Duration) {
    let began = Instant::now();
    // Kept when this fails, however it does.
    let dir = tempfile::Builder::new().prefix("netpulse-faults-").tempdir().unwrap().keep();
    let mut random = Random::new(seed);
    let plan = Plan { enable: String::new(), ..Plan::of("cisco_ios", 6) };
    let running = Simulator::start(plan).unwrap();
    // Slow enough that changes are in the middle of something when the fault comes.
    running.set_faults(&Faults { latency_ms: 50, ..Faults::default() });
    let receiver = Receiver::start().await;
    let fleet = Arc::new(Fleet::start(engine, &dir).await);
    let history = Arc::new(History::new());
    let urls = fleet.controllers.iter().map(|(_, url)| url.clone()).collect();
    let clients = Clients::new(urls, receiver.url("/ok"), Arc::clone(&history));
    let until = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for device in 0..running.devices().len() {
        let at = running.device(device).ssh.unwrap();
        let args = json!({"device_type": "cisco_ios", "host": at.ip().to_string(), "port": at.port(),
            "username": "admin", "password": "admin"});
        tasks.spawn(Arc::clone(&clients).run(device, args, Random::new(random.next()), until));
    }
    schedule::run(Arc::clone(&fleet), Arc::clone(&history), Random::new(random.next()), until).await;
    fleet.heal();
    history.note("peace".into());
    let answered = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
    if answered.await.is_err() {
        history.wrong("requests are still not answered a minute after the last fault".into());
        tasks.abort_all();
    }
    let summary = check::check(engine, &clients, &running, &receiver, &history).await;
    fleet.heal();
    eprintln!(
        "{engine:?}, seed {seed}: {} requests, {} faults, {:?}, {} webhooks, {} forgotten, {:.0} s",
        summary.jobs,
        history.faults(),
        summary.outcomes,
        summary.webhooks,
        summary.forgotten,
        began.elapsed().as_secs_f64()
    );
    let mistakes = history.mistakes();
    if !mistakes.is_empty() {
        let at = &dir;
        std::fs::write(at.join("history.txt"), history.text()).unwrap();
        let journal: String = running
            .journal()
            .entries()
            .iter()
            .map(|entry| format!("{}\n", serde_json::to_string(entry).unwrap()))
            .collect();
        std::fs::write(at.join("journal.jsonl"), journal).unwrap();
        panic!(
            "seed {seed} on {engine:?}: {} promises broken; logs, journal and history in {}\n{}\n\n{}",
            mistakes.len(),
            at.display(),
            mistakes.join("\n"),
            history.text().lines().filter(|line| !line.contains(" is job ")).collect::<Vec<_>>().join("\n")
        );
    }
    assert!(summary.jobs > 0 && summary.webhooks > 0);
    drop(fleet);
    std::fs::remove_dir_all(dir).unwrap();
}

fn seed() -> u64 {
    std::env::var("NETPULSE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121)
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_1_to_9_hold_on_many_machines_under_faults() {
    history(Engine::Redis("always"), seed(), Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_1_to_9_hold_on_one_machine_under_faults() {
    history(Engine::Embedded, seed(), Duration::from_secs(10)).await;
}

/// `NETPULSE_SOAK` minutes, history after history, each a minute long and with a seed of its own,
/// on `NETPULSE_ENGINE` (`redis`, `everysec`, `embedded`; all in turn when not given).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "as long as NETPULSE_SOAK says: ./scripts/soak"]
async fn soak() {
    let minutes: f64 = std::env::var("NETPULSE_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let engines: &[Engine] = match std::env::var("NETPULSE_ENGINE").unwrap_or_default().as_str() {
        "embedded" => &[Engine::Embedded],
        "everysec" => &[Engine::Redis("everysec")],
        "redis" => &[Engine::Redis("always")],
        _ => &[Engine::Redis("always"), Engine::Embedded, Engine::Redis("everysec")],
    };
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let first = seed();
    for round in 0.. {
        let engine = engines[round % engines.len()];
        history(engine, first + round as u64, Duration::from_secs(45)).await;
        if Instant::now() >= until {
            return;
        }
    }
}
