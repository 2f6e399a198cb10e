//! Several processes on one store: who runs what, where devices go, what happens to the dead.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netpulse_model::worker::NodeInfo;
use netpulse_model::{DeviceKey, JobId, JobKind, JobStatus, Outcome, QueueName};
use netpulse_queue::conformance::{
    SOON, accept, acquire, applied, change, claim, device, error_of, fifo_change, fifo_query, finished, job,
    new_job, outcome_of, query, sending, signal,
};
use netpulse_queue::{
    NewJob, NodeName, Placer, Queue, QueueError, Redis, RedisOpenError, RedisOptions, Role, Severity, Signal,
    Submitted, Verdict,
};
use server::{Server, free_port};
use tokio::sync::mpsc::UnboundedReceiver;

/// An engine of a process of its own.
async fn process(server: &Server, instance: &str) -> Arc<Redis> {
    let options = RedisOptions { instance: instance.into(), ..server.options() };
    Redis::open(options).await.unwrap()
}

/// Renews as long as it lives.
fn alive(queue: &Arc<Redis>, node: &str) -> tokio::task::JoinHandle<()> {
    let (queue, node) = (Arc::clone(queue), node.to_owned());
    tokio::spawn(async move {
        loop {
            drop(queue.renew(&node).await);
            tokio::time::sleep(queue.lease_time() / 4).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_2_3_two_processes_never_run_the_same_job_nor_two_changes_of_a_device() {
    let server = Server::start(&[]).await;
    let engines = [process(&server, "a").await, process(&server, "b").await];
    let mut hold = Vec::new();
    for (n, engine) in engines.iter().enumerate() {
        hold.push(engine.join(&format!("n{n}"), 100.into()).await.unwrap());
    }
    // Submitted by both at once.
    let mut submits = Vec::new();
    for engine in &engines {
        for part in 0..5 {
            let engine = Arc::clone(engine);
            submits.push(tokio::spawn(async move {
                let jobs = (0..40).map(|n| {
                    let make = if n % 3 == 0 { fifo_change } else { fifo_query };
                    make(&format!("sw{}", (n + part) % 7))
                });
                let answers = engine.submit(jobs.collect()).await.unwrap();
                assert!(answers.iter().all(|answer| matches!(answer, Submitted::Accepted(_))));
            }));
        }
    }
    for submit in submits {
        submit.await.unwrap();
    }
    // Claimed by many at once in both; what runs on a device is watched.
    let running: Arc<parking_lot::Mutex<HashMap<DeviceKey, Vec<JobKind>>>> = Arc::default();
    let started: Arc<parking_lot::Mutex<HashSet<JobId>>> = Arc::default();
    let mut workers = Vec::new();
    for worker in 0..16 {
        let (engine, node) = (Arc::clone(&engines[worker % 2]), format!("n{}", worker % 2));
        let (running, started) = (Arc::clone(&running), Arc::clone(&started));
        workers.push(tokio::spawn(async move {
            loop {
                let Some(claim) = engine.claim_fifo(&node, 3).await.unwrap() else {
                    let counts = engine.counts().await.unwrap();
                    if counts.queued == 0 {
                        return;
                    }
                    tokio::task::yield_now().await;
                    continue;
                };
                assert!(started.lock().insert(claim.job.id), "claimed twice");
                let key = claim.job.device.clone().unwrap();
                {
                    let mut running = running.lock();
                    let beside = running.entry(key.clone()).or_default();
                    beside.push(claim.job.kind);
                    let changes = beside.iter().filter(|kind| **kind == JobKind::Modification).count();
                    assert!(changes == 0 || beside.len() == 1, "something beside a change: {beside:?}");
                    assert!(beside.len() <= 3);
                }
                tokio::task::yield_now().await;
                {
                    let mut running = running.lock();
                    let beside = running.get_mut(&key).unwrap();
                    let at = beside.iter().position(|kind| *kind == claim.job.kind).unwrap();
                    beside.remove(at);
                }
                let end = if claim.job.kind == JobKind::Modification { applied() } else { finished() };
                assert_eq!(engine.complete(&claim.token, end).await.unwrap(), Verdict::Taken);
            }
        }));
    }
    for worker in workers {
        tokio::time::timeout(SOON * 2, worker).await.unwrap().unwrap();
    }
    assert_eq!(started.lock().len(), 400);
    assert_eq!(engines[0].counts().await.unwrap().finished, 400);

    // One device, asked for by all at once: one owner.
    let mut racing = Vec::new();
    for racer in 0..16 {
        let (engine, node) = (Arc::clone(&engines[racer % 2]), format!("n{}", racer % 2));
        racing.push(tokio::spawn(async move { engine.acquire(&node, &device("sw99")).await.unwrap() }));
    }
    let mut leases = HashSet::new();
    for racer in racing {
        leases.extend(racer.await.unwrap());
    }
    assert_eq!(leases.len(), 1, "{leases:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_nodes_name_is_refused_elsewhere_and_taken_over_at_home() {
    let server = Server::start(&[]).await;
    let first = process(&server, "rack-1 /var/lib/netpulse").await;
    let _signals = first.join("n1", 10.into()).await.unwrap();
    let running = accept(&*first, change("sw1")).await;
    let lease = acquire(&*first, "n1", "sw1").await;
    let held = claim(&*first, &lease).await;
    let other = process(&server, "rack-2 /var/lib/netpulse").await;
    let taken = other.join("n1", 10.into()).await.unwrap_err();
    assert!(matches!(taken, QueueError::NameTaken(_)), "{taken}");
    assert!(taken.to_string().contains("n1") && taken.to_string().contains("worker.node"), "{taken}");
    assert_eq!(
        first.complete(&held.token, applied()).await.unwrap(),
        Verdict::Taken,
        "nothing happened to it"
    );
    assert_eq!(outcome_of(&job(&*first, running.id).await), Some(Outcome::Applied));

    // Killed and started again in the same place: it does not wait for its own leases.
    let half = accept(&*first, change("sw1")).await;
    claim(&*first, &lease).await;
    first.crash().await;
    let again = process(&server, "rack-1 /var/lib/netpulse").await;
    let ended = job(&*again, half.id).await;
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::Unknown)));
    let _signals = again.join("n1", 10.into()).await.unwrap();
    acquire(&*again, "n1", "sw1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_6_whoever_lives_settles_the_dead_by_the_servers_clock() {
    let server = Server::start(&[]).await;
    let lease = Duration::from_millis(1500);
    let options = |instance: &str| RedisOptions { instance: instance.into(), lease, ..server.options() };
    let (dying, living) =
        (Redis::open(options("a")).await.unwrap(), Redis::open(options("b")).await.unwrap());
    let _dead = dying.join("n1", 10.into()).await.unwrap();
    let mut signals = living.join("n2", 10.into()).await.unwrap();
    let beat = alive(&living, "n2");
    let asked = accept(&*living, query("sw1")).await;
    let changed = accept(&*living, change("sw2")).await;
    let silent = accept(&*living, change("sw3")).await;
    for name in ["sw1", "sw2", "sw3"] {
        let lease = acquire(&*dying, "n1", name).await;
        let claim = claim(&*dying, &lease).await;
        if name == "sw2" {
            assert_eq!(dying.progress(&claim.token, sending(0, "vlan 10")), Verdict::Taken);
        }
    }
    // What it noted has arrived.
    let _ = dying.list(&netpulse_queue::JobQuery::default()).await.unwrap();
    let began = Instant::now();
    dying.crash().await;
    // Nobody asks: the other process does it when the lease is over, not before.
    let ended = living.ended(changed.id, SOON).await.unwrap().unwrap();
    assert!(began.elapsed() > lease - Duration::from_millis(800), "{:?}", began.elapsed());
    assert_eq!((ended.status, outcome_of(&ended)), (JobStatus::Failed, Some(Outcome::Unknown)));
    assert!(error_of(&ended).message.contains("vlan 10"), "{}", error_of(&ended));
    let ended = living.ended(silent.id, SOON).await.unwrap().unwrap();
    assert_eq!(outcome_of(&ended), Some(Outcome::Unknown), "what a dead process sent last is not known");
    signal(&mut signals, |s| *s == Signal::Device(device("sw1"))).await;
    let lease = acquire(&*living, "n2", "sw1").await;
    let again = claim(&*living, &lease).await;
    assert_eq!((again.job.id, again.job.attempt), (asked.id, 2));
    assert!(!living.nodes().await.unwrap().iter().any(|node| node.name == "n1" && node.alive));
    beat.abort();
}

/// The fewest devices first; as the scheduler `least_load`.
struct Fewest;

#[async_trait]
impl Placer for Fewest {
    async fn place(
        &self,
        nodes: &[NodeInfo],
        devices: &[DeviceKey],
    ) -> Result<Vec<Option<NodeName>>, String> {
        let mut nodes = nodes.to_vec();
        Ok(devices
            .iter()
            .map(|_| {
                let free = nodes.iter_mut().filter(|node| node.count < node.capacity);
                let node = free.min_by_key(|node| (node.count, node.hostname.clone()))?;
                node.count += 1;
                Some(node.hostname.clone())
            })
            .collect())
    }
}

/// Refuses a batch that does not fit whole, as the batch forms of the schedulers do.
struct AllOrNothing;

#[async_trait]
impl Placer for AllOrNothing {
    async fn place(
        &self,
        nodes: &[NodeInfo],
        devices: &[DeviceKey],
    ) -> Result<Vec<Option<NodeName>>, String> {
        let room: usize = nodes.iter().map(|node| node.capacity.saturating_sub(node.count)).sum();
        if room < devices.len() {
            return Err("Insufficient capacity in node selection".into());
        }
        Fewest.place(nodes, devices).await
    }
}

async fn placed(server: &Server, instance: &str, placer: impl Placer) -> Arc<Redis> {
    let lease = Duration::from_secs(2);
    let placer: Arc<dyn Placer> = Arc::new(placer);
    let options = RedisOptions { instance: instance.into(), placer: Some(placer), lease, ..server.options() };
    Redis::open(options).await.unwrap()
}

/// Owns what it is told of, runs what waits there, and gives back what it is asked for.
fn serve(
    queue: &Arc<Redis>,
    node: &str,
    mut signals: UnboundedReceiver<Signal>,
) -> tokio::task::JoinHandle<()> {
    let (queue, node) = (Arc::clone(queue), node.to_owned());
    tokio::spawn(async move {
        let mut leases = HashMap::new();
        let mut wanted: Vec<DeviceKey> = Vec::new();
        let mut beat = tokio::time::interval(queue.lease_time() / 4);
        loop {
            let signal = tokio::select! {
                signal = signals.recv() => signal,
                _ = beat.tick() => { drop(queue.renew(&node).await); continue }
            };
            match signal {
                Some(Signal::Device(key)) => wanted.push(key),
                Some(Signal::HandOver(key)) => {
                    if let Some(lease) = leases.remove(&key) {
                        queue.release(&lease).await.unwrap();
                    }
                }
                Some(_) => {}
                None => return,
            }
            let mut later = Vec::new();
            for key in wanted.drain(..) {
                let lease = match queue.acquire(&node, &key).await {
                    Ok(Some(lease)) => lease,
                    _ => {
                        later.push(key);
                        continue;
                    }
                };
                leases.insert(key, lease.clone());
                while let Ok(Some(claim)) = queue.claim(&lease).await {
                    queue.complete(&claim.token, finished()).await.unwrap();
                }
            }
            wanted = later;
        }
    })
}

fn names(answers: &[Submitted]) -> Vec<String> {
    answers
        .iter()
        .map(|answer| match answer {
            Submitted::Accepted(_) => "accepted".to_owned(),
            Submitted::NoNode { why } => why.clone(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_living_node_nothing_is_kept_and_the_answer_says_why() {
    let server = Server::start(&[]).await;
    let queue = placed(&server, "a", Fewest).await;
    let answers = queue.submit(vec![query("sw1"), fifo_query("sw1")]).await.unwrap();
    assert_eq!(
        names(&answers),
        ["No available node to run the job", "No available FIFO worker to run the job"]
    );
    assert_eq!(queue.counts().await.unwrap().queued, 0);
    // A node for FifoQ alone serves no device.
    let _fifo = queue.join("f1", Role { capacity: 10, devices: false, fifo: true }).await.unwrap();
    let answers = queue.submit(vec![query("sw1"), fifo_query("sw1")]).await.unwrap();
    assert_eq!(names(&answers), ["No available node to run the job", "accepted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_go_to_nodes_with_room_and_one_too_many_leaves_the_others_be() {
    for together in [true, false] {
        let server = Server::start(&[]).await;
        let queue = if together {
            placed(&server, "a", Fewest).await
        } else {
            placed(&server, "a", AllOrNothing).await
        };
        let mut one = queue.join("n1", 2.into()).await.unwrap();
        let mut two = queue.join("n2", 1.into()).await.unwrap();
        let bulk: Vec<NewJob> = (1..=4).map(|n| query(&format!("sw{n}"))).collect();
        let mut answers = names(&queue.submit(bulk).await.unwrap());
        answers.sort();
        assert_eq!(answers, ["No capacity on nodes", "accepted", "accepted", "accepted"]);
        let mut told = HashSet::new();
        for (signals, count) in [(&mut one, 2), (&mut two, 1)] {
            for _ in 0..count {
                let Signal::Device(key) = signal(signals, |s| matches!(s, Signal::Device(_))).await else {
                    panic!("another signal")
                };
                assert!(told.insert(key), "told once, to the one that was chosen");
            }
        }
        let counts: HashMap<String, usize> =
            queue.nodes().await.unwrap().into_iter().map(|node| (node.name, node.devices)).collect();
        assert_eq!((counts["n1"], counts["n2"]), (2, 1), "given to them, and counted");
        // A known device stays where it is.
        let known = told.iter().next().unwrap();
        let again = new_job(QueueName::Host(known.clone()), known.clone(), JobKind::Query);
        assert_eq!(names(&queue.submit(vec![again]).await.unwrap()), ["accepted"]);
        let map = server.admin(&["HGETALL", "netpulse:host_to_node_map"]).await;
        assert!(map.contains("n1") && map.contains("n2") && map.contains(known.as_str()), "{map}");
        let info = server.admin(&["HGET", "netpulse:node_info_map", "n1"]).await;
        assert!(info.contains("\"hostname\":\"n1\"") && info.contains("\"capacity\":2"), "{info}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_devices_find_another_and_a_new_node_gets_its_share() {
    let server = Server::start(&[]).await;
    let (dying, living) = (placed(&server, "a", Fewest).await, placed(&server, "b", Fewest).await);
    let silent = dying.join("n1", 100.into()).await.unwrap();
    let jobs: Vec<NewJob> = (0..10).map(|n| query(&format!("sw{n}"))).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    assert!(names(&living.submit(jobs).await.unwrap()).iter().all(|answer| answer == "accepted"));
    let why = living.waiting(ids[0]).await.unwrap().unwrap();
    assert_eq!((why.node.as_deref(), why.nobody), (Some("n1"), None));
    drop(silent);
    dying.crash().await;
    // With nobody else there they wait, and say so.
    let end = Instant::now() + SOON;
    loop {
        let why = living.waiting(ids[0]).await.unwrap().unwrap();
        if why.nobody.is_some() {
            assert_eq!(why.nobody.as_deref(), Some("No available node to run the job"));
            break;
        }
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let signals = living.join("n2", 100.into()).await.unwrap();
    let serving = serve(&living, "n2", signals);
    for id in &ids {
        let ended = living.ended(*id, SOON).await.unwrap().unwrap();
        assert_eq!(ended.status, JobStatus::Finished);
    }
    // n2 owns ten idle devices; n3 comes, and half of them are handed over.
    let third = placed(&server, "c", Fewest).await;
    let signals = third.join("n3", 100.into()).await.unwrap();
    let new = serve(&third, "n3", signals);
    let end = Instant::now() + SOON;
    loop {
        let nodes = third.nodes().await.unwrap();
        let owned = nodes.iter().find(|node| node.name == "n2").unwrap().devices;
        if owned == 5 {
            break;
        }
        assert!(owned > 5 && Instant::now() < end, "{nodes:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let jobs: Vec<NewJob> = (0..10).map(|n| query(&format!("sw{n}"))).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    third.submit(jobs).await.unwrap();
    let mut by_node: HashMap<String, usize> = HashMap::new();
    for id in ids {
        let ended = third.ended(id, SOON).await.unwrap().unwrap();
        assert_eq!(ended.status, JobStatus::Finished);
        *by_node.entry(ended.worker.unwrap().split('_').next().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((by_node["n2"], by_node["n3"]), (5, 5));
    serving.abort();
    new.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_gives_an_idle_device_back_for_one_with_jobs() {
    let server = Server::start(&[]).await;
    let queue = placed(&server, "a", Fewest).await;
    let signals = queue.join("n1", 2.into()).await.unwrap();
    let serving = serve(&queue, "n1", signals);
    for name in ["sw1", "sw2", "sw3", "sw4"] {
        let asked = accept(&*queue, query(name)).await;
        let ended = queue.ended(asked.id, SOON).await.unwrap().unwrap();
        assert_eq!(ended.status, JobStatus::Finished, "{name}");
    }
    assert_eq!(queue.nodes().await.unwrap()[0].devices, 2, "never more than its capacity");
    serving.abort();
}

/// Three masters; everything of a store lies in one slot of one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_holds_a_store() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        // The cluster bus takes the port ten thousand above.
        let port = loop {
            let port = free_port();
            if port < 55_000 && std::net::TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
                break port;
            }
        };
        servers.push(
            Server::start_on(port, &["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]).await,
        );
    }
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (server, (from, to)) in servers.iter().zip(ranges) {
        server.admin(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        server.admin(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port.to_string()]).await;
    }
    for server in &servers {
        let end = Instant::now() + SOON;
        while !server.admin(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
            assert!(Instant::now() < end, "the cluster does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Whichever of them is asked first.
    let mut counted = 0;
    for (n, server) in servers.iter().enumerate() {
        let queue = placed(server, &format!("p{n}"), Fewest).await;
        let mut signals = queue.join(&format!("n{n}"), 100.into()).await.unwrap();
        let name = format!("sw{n}");
        let changed = accept(&*queue, NewJob { idempotency_key: Some(name.clone()), ..change(&name) }).await;
        signal(&mut signals, |s| *s == Signal::Device(device(&name))).await;
        let node = queue.waiting(changed.id).await.unwrap().unwrap().node.unwrap();
        if node == format!("n{n}") {
            let lease = acquire(&*queue, &node, &name).await;
            let held = claim(&*queue, &lease).await;
            assert_eq!(queue.progress(&held.token, sending(0, "vlan 10")), Verdict::Taken);
            assert_eq!(queue.complete(&held.token, applied()).await.unwrap(), Verdict::Taken);
            counted += 1;
            assert_eq!(queue.counts().await.unwrap().finished, counted);
        }
        queue.leave(&format!("n{n}")).await.unwrap();
        queue.close().await;
    }
    assert_eq!(counted, 3);
    let mut holding = 0;
    for server in &servers {
        holding += usize::from(server.admin(&["DBSIZE"]).await.trim() != ":0");
    }
    assert_eq!(holding, 1, "one slot, one of the three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_12_requests_are_sealed_in_redis_and_removed_at_the_end() {
    const SECRET: &str = "hunter2-never-in-redis";
    let server = Server::start(&["--appendfsync", "always"]).await;
    let queue = process(&server, "a").await;
    let _signals = queue.join("n1", 10.into()).await.unwrap();
    let secret = NewJob {
        payload: SECRET.as_bytes().to_vec(),
        notify: Some(SECRET.as_bytes().to_vec()),
        ..change("sw1")
    };
    let id = accept(&*queue, secret).await.id;
    let stored = |text: &str| {
        let mut folders = vec![server.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text.as_bytes()) {
                    return true;
                }
            }
        }
        false
    };
    assert!(stored("show version"), "this looks where it should");
    assert!(!stored(SECRET));
    let key = format!("np:{{0}}:job:{id}");
    assert_eq!(server.admin(&["HEXISTS", &key, "request"]).await.trim(), ":1");
    let lease = acquire(&*queue, "n1", "sw1").await;
    let held = claim(&*queue, &lease).await;
    assert_eq!(held.payload, SECRET.as_bytes());
    queue.complete(&held.token, applied()).await.unwrap();
    assert_eq!(server.admin(&["HEXISTS", &key, "request"]).await.trim(), ":0", "needed no more");
    // Another key opens nothing.
    let stranger = RedisOptions {
        instance: "b".into(),
        keys: vec![netpulse_queue::SealKey::from_passphrase("another")],
        ..server.options()
    };
    let stranger = Redis::open(stranger).await.unwrap();
    assert!(stranger.deliveries(10, Duration::from_secs(30)).await.unwrap().deliveries.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_keeps_four_connections_at_most_however_many_devices_it_owns() {
    let server = Server::start(&[]).await;
    let queue = process(&server, "a").await;
    let _signals = queue.join("n1", 1000.into()).await.unwrap();
    let mut watching = Vec::new();
    for n in 0..200 {
        let name = format!("sw{n}");
        let id = accept(&*queue, query(&name)).await.id;
        acquire(&*queue, "n1", &name).await;
        let queue = Arc::clone(&queue);
        watching.push(tokio::spawn(async move {
            use futures_util::StreamExt;
            let _ended = queue.ended(id, Duration::from_secs(2)).await;
            let mut events = queue.follow(netpulse_queue::Follow::Job(id), None);
            assert!(events.next().await.is_some());
        }));
    }
    for watcher in watching {
        tokio::time::timeout(SOON, watcher).await.unwrap().unwrap();
    }
    let list = server.admin(&["CLIENT", "LIST"]).await;
    let own = list
        .lines()
        .filter(|line| line.contains("lib-name=netpulse") || line.contains("cmd=subscribe"))
        .count();
    let all = list.lines().filter(|line| line.starts_with("id=")).count() - 1;
    assert!(all <= 4, "{own} of {all}:\n{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_examined_and_an_unfit_one_refused_with_a_sentence() {
    let server = Server::start(&[]).await;
    let queue = process(&server, "a").await;
    let findings = queue.examine().await.unwrap();
    let of = |what: &str| findings.iter().find(|finding| finding.what == what).unwrap();
    for good in ["version", "eviction", "persistence", "clocks", "latency", "encryption"] {
        assert_eq!(of(good).severity, Severity::Good, "{:?}", of(good));
    }
    assert_eq!(of("replicas").severity, Severity::Warning, "{:?}", of("replicas"));
    server.admin(&["CONFIG", "SET", "appendonly", "no"]).await;
    server.admin(&["CONFIG", "SET", "maxmemory", "100mb"]).await;
    server.admin(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let findings = queue.examine().await.unwrap();
    let of = |what: &str| findings.iter().find(|finding| finding.what == what).unwrap();
    assert_eq!((of("persistence").severity, of("eviction").severity), (Severity::Warning, Severity::Bad));
    let refused = Redis::open(server.options()).await.err().unwrap();
    assert!(matches!(refused, RedisOpenError::Unfit { .. }));
    let text = refused.to_string();
    assert!(text.contains("allkeys-lru") && text.contains("noeviction"), "{text}");
    server.kill();
    let nobody = RedisOptions { deadline: Duration::from_millis(500), ..server.options() };
    let text = Redis::open(nobody).await.err().unwrap().to_string();
    assert!(text.contains(&server.port.to_string()) && text.contains("redis.host"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_with_odd_characters_read_back() {
    let server = Server::start(&[]).await;
    let options = RedisOptions { prefix: "it's {a} \\ \"prefix\"\n".into(), ..server.options() };
    let queue = Redis::open(options).await.unwrap();
    let _signals = queue.join("n'1\"\\ ü", 10.into()).await.unwrap();
    for host in ["2001:db8::1", "sw\"1\\", "gerät-ß", "a'b; FLUSHALL", "with space"] {
        let key = DeviceKey::new(host, 2222, 22);
        let mut new = new_job(QueueName::Host(key.clone()), key.clone(), JobKind::Modification);
        new.command = vec!["show \"x\" | i 'y'\n".into()];
        new.ttl = Duration::MAX;
        new.idempotency_key = Some(host.to_owned());
        let before = accept(&*queue, new).await;
        assert_eq!(job(&*queue, before.id).await, before);
        let lease = queue.acquire("n'1\"\\ ü", &key).await.unwrap().unwrap();
        let held = claim(&*queue, &lease).await;
        assert_eq!((held.job.id, held.job.device.as_ref()), (before.id, Some(&key)));
        assert_eq!(queue.progress(&held.token, sending(0, "näme \"users\"")), Verdict::Taken);
        queue.release(&lease).await.unwrap();
        let ended = job(&*queue, before.id).await;
        assert!(error_of(&ended).message.contains("näme \"users\""), "{}", error_of(&ended));
    }
}
