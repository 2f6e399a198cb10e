//! Many processes around a real Redis: controllers, nodes and a FIFO worker, with simulated devices
//! whose own journal says what they received.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[allow(dead_code)]
#[path = "shipped_plugins/built.rs"]
mod built;
#[path = "support/mischief.rs"]
mod mischief;
mod support;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mischief::Mischief;
use netpulse_simulator::Faults;
use reqwest::Method;
use serde_json::{Value, json};
use support::cluster::{
    Client, Cluster, Part, Process, RedisServer, change, device_args, devices, figure, netpulse, query,
    received,
};
use support::{KEY, eventually};

/// The node whose worker ran a job.
fn node_of(job: &Value) -> String {
    let worker = job["worker"].as_str().unwrap();
    worker.split("_HostQ_").next().unwrap().to_owned()
}

const TWO_OF_EACH: &[Part] = &[Part::Controller, Part::Controller, Part::Node, Part::Node, Part::Fifo];

#[tokio::test(flavor = "multi_thread")]
async fn jobs_spread_over_nodes_and_any_controller_answers() {
    const DEVICES: usize = 24;
    let running = devices(DEVICES as u32);
    // `least_load` fills one node before the next when many devices come at once.
    let cluster = Cluster::start(TWO_OF_EACH, "worker: {scheduler: load_weighted_random}");
    let client = cluster.client();
    let (one, other) = (cluster.url("controller-0").to_owned(), cluster.url("controller-1").to_owned());
    let list: Vec<Value> = (0..DEVICES)
        .map(|n| {
            let args = device_args(running.device(n));
            json!({"host": args["host"], "port": args["port"]})
        })
        .collect();
    let mut shared = device_args(running.device(0));
    for key in ["host", "port"] {
        shared.as_object_mut().unwrap().remove(key);
    }
    let bulk =
        json!({"driver": "netmiko", "connection_args": shared, "command": "show clock", "devices": list});
    let (status, answer) = client.at(Method::POST, &format!("{one}/device/bulk?wait=60"), Some(&bulk)).await;
    assert_eq!(status, 201, "{answer}");
    let jobs = answer["succeeded"].as_array().unwrap();
    assert_eq!(jobs.len(), DEVICES, "{answer}");
    let mut by_node: HashMap<String, usize> = HashMap::new();
    for job in jobs {
        assert_eq!(job["status"], "finished", "{job}\n{}", cluster.logs());
        *by_node.entry(node_of(job)).or_default() += 1;
        // What one controller accepted, the other shows whole.
        let url = format!("{other}/jobs/{}", job["id"].as_str().unwrap());
        let (status, seen) = client.at(Method::GET, &url, None).await;
        assert_eq!((status, &seen["result"]), (200, &job["result"]), "{seen}");
    }
    assert_eq!(by_node.keys().map(String::as_str).collect::<BTreeSet<_>>(), ["node-0", "node-1"].into());

    // A device keeps its node, and its session with it, unless it was moved to even the load out.
    let before: HashMap<String, String> =
        jobs.iter().map(|job| (job["queue"].to_string(), node_of(job))).collect();
    let mut kept = 0;
    for n in 0..DEVICES {
        let job = client.exec(&query(&running, n)).await;
        let same = before.get(&job["queue"].to_string()) == Some(&node_of(&job));
        // One that was moved may come back, with a new session.
        kept += usize::from(same && job["result"]["retval"][0]["metadata"]["session_reused"] == true);
    }
    assert!(kept * 2 > DEVICES, "only {kept} of {DEVICES} kept their node and session");

    let mut fifo = query(&running, 0);
    fifo["queue_strategy"] = json!("fifo");
    let job = client.exec(&fifo).await;
    assert_eq!((job["queue"].as_str(), job["worker"].as_str()), (Some("FifoQ"), Some("fifo-0_FifoQ")));

    let owned = |nodes: &Value| -> u64 {
        nodes.as_array().unwrap().iter().map(|n| n["devices"].as_u64().unwrap()).sum()
    };
    let (mut jobs, mut nodes) = (2 * DEVICES + 1, client.get("/nodes").await);
    // An idle device that was moved is nobody's until it has a job again; once the load is even, none is.
    for _ in 0..10 {
        if owned(&nodes) == DEVICES as u64 {
            break;
        }
        for n in 0..DEVICES {
            client.exec(&query(&running, n)).await;
        }
        (jobs, nodes) = (jobs + DEVICES, client.get("/nodes").await);
    }
    let seen: Vec<_> =
        nodes.as_array().unwrap().iter().map(|n| (n["name"].as_str().unwrap(), &n["state"])).collect();
    assert_eq!(
        seen,
        [("fifo-0_FifoQ", &json!("ready")), ("node-0", &json!("ready")), ("node-1", &json!("ready"))]
    );
    assert_eq!(owned(&nodes), DEVICES as u64, "{nodes}");
    let stats = client.get("/system/stats").await;
    assert_eq!(stats["nodes"], json!({"active": 3, "total_capacity": 20_000}));
    assert_eq!(stats["jobs"]["succeeded"], jobs);
    let workers = client.get("/workers?queue=FifoQ").await;
    assert_eq!(json!([workers[0]["name"], workers[0]["hostname"]]), json!(["fifo-0_FifoQ", "fifo-0"]));
    // Devices cost no connections: each process keeps a handful.
    let clients = cluster.redis.clients();
    assert!(
        clients <= 4 * cluster.processes.len(),
        "{clients} connections of {} processes",
        cluster.processes.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_tell_what_jobs_did_and_where_their_time_went() {
    let running = devices(2);
    let cluster = Cluster::start(&[Part::Controller, Part::Node], "");
    let client = cluster.client();
    client.exec(&query(&running, 0)).await;
    client.exec(&query(&running, 0)).await;
    client.exec(&change(&running, 0, 1)).await;
    let mut wrong = query(&running, 1);
    wrong["connection_args"]["password"] = json!("wrong");
    let failed = client.submit(&wrong).await;
    assert_eq!(client.ended(&failed).await["status"], "failed");
    let scrape = async |name: &str| {
        let (status, text) = client.at(Method::GET, &format!("{}/metrics", cluster.url(name)), None).await;
        assert_eq!(status, 200);
        text.as_str().unwrap().to_owned()
    };
    let node = scrape("node-0").await;
    let of_node = |name: &str| figure(&node, name).unwrap_or_else(|| panic!("no {name} in:\n{node}"));
    for phase in ["connect", "login", "prompt"] {
        let count = of_node(&format!("netpulse_job_phase_seconds_count{{role=\"node\",phase=\"{phase}\"}}"));
        assert_eq!(count, 1.0, "{phase}: one session was opened");
    }
    assert_eq!(of_node("netpulse_job_phase_seconds_count{role=\"node\",phase=\"queue\"}"), 4.0);
    assert_eq!(of_node("netpulse_job_phase_seconds_count{role=\"node\",phase=\"execute\"}"), 3.0);
    assert_eq!(of_node("netpulse_job_phase_seconds_count{role=\"node\",phase=\"lease\"}"), 2.0);
    assert!(of_node("netpulse_job_phase_seconds_sum{role=\"node\",phase=\"connect\"}") > 0.0);
    assert_eq!(of_node("netpulse_jobs_ended_total{role=\"node\",status=\"finished\",kind=\"query\"}"), 2.0);
    assert_eq!(
        of_node("netpulse_jobs_ended_total{role=\"node\",status=\"finished\",kind=\"modification\"}"),
        1.0
    );
    assert_eq!(of_node("netpulse_jobs_ended_total{role=\"node\",status=\"failed\",kind=\"query\"}"), 1.0);
    assert_eq!(of_node("netpulse_connects_failed_total{role=\"node\",code=\"authentication_failed\"}"), 1.0);
    assert_eq!(of_node("netpulse_sessions_open{role=\"node\"}"), 1.0);
    assert_eq!(of_node("netpulse_sessions_reused_total{role=\"node\"}"), 2.0);
    let controller = scrape("controller-0").await;
    let of_api =
        |name: &str| figure(&controller, name).unwrap_or_else(|| panic!("no {name} in:\n{controller}"));
    assert_eq!(of_api("netpulse_jobs{role=\"controller\",state=\"finished\"}"), 3.0);
    assert_eq!(of_api("netpulse_jobs{role=\"controller\",state=\"failed\"}"), 1.0);
    assert_eq!(of_api("netpulse_jobs_accepted_total{role=\"controller\",kind=\"query\"}"), 3.0);
    assert_eq!(of_api("netpulse_nodes{role=\"controller\",state=\"alive\"}"), 1.0);
    assert!(of_api("netpulse_store_seconds_count{role=\"controller\"}") > 4.0);
    assert!(!format!("{node}{controller}").contains("127.0.0.1"), "a host stands in a label");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_devices_go_to_the_other() {
    let running = devices(4);
    let mut cluster = Cluster::start(&[Part::Controller, Part::Node, Part::Node], "worker: {lease: 2}");
    let client = cluster.client();
    let mut owners = Vec::new();
    for n in 0..4 {
        owners.push(node_of(&client.exec(&query(&running, n)).await));
    }
    let dead = owners[0].clone();
    cluster.process(&dead).kill();
    let began = Instant::now();
    for (n, owner) in owners.iter().enumerate() {
        let job = client.exec(&query(&running, n)).await;
        assert_ne!(node_of(&job), dead, "{job}");
        if *owner != dead {
            assert_eq!(&node_of(&job), owner, "who lives keeps its devices: {job}");
        }
    }
    eprintln!("kill -9 to all devices served elsewhere, lease 2 s: {:.1} s", began.elapsed().as_secs_f64());
    let nodes = client.get("/nodes").await;
    let state =
        nodes.as_array().unwrap().iter().find(|n| n["name"] == dead.as_str()).map(|n| n["state"].clone());
    assert!(state.is_none_or(|state| state == "silent"), "{nodes}");
    // Killed and started again in its place, it is taken back at once.
    cluster.process(&dead).launch();
    let nodes = client.get("/nodes").await;
    let alive = nodes.as_array().unwrap().iter().filter(|n| n["state"] == "ready").count();
    assert_eq!(alive, 2, "{nodes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_gives_idle_devices_away_while_a_job_still_runs() {
    let running = devices(2);
    let mut cluster =
        Cluster::start(&[Part::Controller, Part::Node, Part::Node], "worker: {drain_timeout: 60}");
    let client = cluster.client();
    client.exec(&query(&running, 0)).await;
    client.exec(&query(&running, 1)).await;
    let (idle, busy) = (0, 1);
    // The node of the busy device drains; a hanging command keeps it.
    let mut hangs = query(&running, busy);
    hangs["driver_args"] = json!({"expect_string": "never-seen", "read_timeout": 600});
    let hanging = client.submit(&hangs).await;
    let mut leaving = String::new();
    for _ in 0..500 {
        let job = client.get(&format!("/jobs/{hanging}")).await;
        if job["status"] == "started" {
            leaving = node_of(&job);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!leaving.is_empty(), "it never started\n{}", cluster.logs());
    let waits = client.submit(&query(&running, busy)).await;
    let why = client.get(&format!("/jobs/{waits}/why")).await;
    assert_eq!((&why["kind"], &why["behind"]), (&json!("device_busy"), &json!(hanging)), "{why}");
    assert!(why["reason"].as_str().unwrap().contains(&format!("on node {leaving}")), "{why}");
    cluster.process(&leaving).signal("-TERM");
    let began = Instant::now();
    let moved = client.exec(&query(&running, idle)).await;
    assert_ne!(node_of(&moved), leaving, "a node that drains took a job: {moved}");
    assert!(began.elapsed() < Duration::from_secs(20), "it waited for the drain: {:?}", began.elapsed());
    assert!(!cluster.process(&leaving).has_ended(), "its job still runs");
    // The idle device may have been elsewhere already: then its job ends before the drain shows.
    let mut nodes = Value::Null;
    for _ in 0..500 {
        nodes = client.get("/nodes").await;
        let mut listed = nodes.as_array().unwrap().iter();
        if listed.any(|node| node["name"] == leaving && node["state"] == "draining") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let state =
        |name: &str| nodes.as_array().unwrap().iter().find(|n| n["name"] == name).unwrap()["state"].clone();
    assert_eq!(state(&leaving), "draining", "{nodes}");
    let (_, canceled) = client.send(Method::DELETE, &format!("/jobs/{hanging}"), None).await;
    assert_eq!(canceled["canceled"], "asked", "{canceled}");
    assert_eq!(cluster.process(&leaving).wait(), Some(0));
    let after = client.ended(&waits).await;
    assert_eq!(after["status"], "finished", "what waited behind it went along: {after}\n{}", cluster.logs());
    assert_ne!(node_of(&after), leaving);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_3_6_a_rolling_restart_under_load_loses_nothing_and_repeats_no_change() {
    const DEVICES: usize = 6;
    let running = Arc::new(devices(DEVICES as u32));
    running.set_faults(&Faults { latency_ms: 2, ..Faults::default() });
    // Two of everything: with one FIFO worker, jobs of FifoQ are refused while it restarts.
    let parts = [TWO_OF_EACH, &[Part::Fifo]].concat();
    let mut cluster = Cluster::start(&parts, "worker: {drain_timeout: 30}");
    let client = Arc::new(cluster.client());
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..3)
        .map(|lane: usize| {
            let (client, running, stop) = (client.clone(), running.clone(), stop.clone());
            tokio::spawn(async move {
                let mut accepted: Vec<(String, Option<(usize, usize)>)> = Vec::new();
                let mut n = lane;
                while !stop.load(Ordering::Relaxed) {
                    let device = n % DEVICES;
                    let what = (n.is_multiple_of(2)).then_some((device, n));
                    let mut body = match what {
                        Some((device, mark)) => change(&running, device, mark),
                        None => query(&running, device),
                    };
                    body["result_ttl"] = json!(600);
                    if n.is_multiple_of(5) {
                        body["queue_strategy"] = json!("fifo");
                    }
                    accepted.push((client.submit(&body).await, what));
                    n += 3;
                    // Load, not a flood: the restarts are what is tested.
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
                accepted
            })
        })
        .collect();
    for at in 0..cluster.processes.len() {
        let process = &mut cluster.processes[at];
        let (name, old) = (process.name.clone(), process.url.clone());
        let code = tokio::task::block_in_place(|| process.stop());
        assert_eq!(code, Some(0), "{name} did not end in order:\n{}", process.log());
        tokio::task::block_in_place(|| process.launch());
        client.moved(&old, &process.url.clone());
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for lane in load {
        accepted.extend(lane.await.unwrap());
    }
    eprintln!("{} jobs accepted while six processes were restarted one by one", accepted.len());
    assert!(accepted.len() > 50, "{}", accepted.len());
    for (id, what) in &accepted {
        let job = client.ended(id).await;
        assert_eq!(job["status"], "finished", "an accepted job was lost: {job}\n{}", cluster.logs());
        if let Some((device, mark)) = what {
            assert_eq!(job["result"]["outcome"], "applied", "{job}");
            assert_eq!(received(&running, *device, *mark), 1, "{job}");
        }
    }
    assert_eq!(running.journal().dropped(), 0);
}

#[test]
fn one_node_and_one_fifo_worker_on_a_work_folder() {
    let cluster = Cluster::start(&[Part::Controller, Part::Node, Part::Fifo], "");
    for process in &cluster.processes {
        if process.part == Part::Controller {
            continue;
        }
        let output = process.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let kind = if process.part == Part::Node { "node" } else { "fifo" };
        let expected = format!("a {kind} worker runs here already: process {} holds", process.pid());
        assert!(said.contains(&expected) && said.contains("worker.work_dir"), "{said}");
        // Elsewhere, but under the same name.
        let elsewhere = process.dir.join("elsewhere");
        let output = process.command().env("NETPULSE_WORKER__WORK_DIR", &elsewhere).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("lives already: give each node a name of its own"), "{said}");
        // `netpulse health` of the same configuration sees it at work.
        let config = process.dir.join("netpulse.yaml").display().to_string();
        let (code, out, said) = netpulse(&["health", "--config", &config], &[], &process.dir);
        assert_eq!(code, 0, "{said}");
        assert!(
            out.contains(&format!("the {kind} worker (process {}) renewed its leases", process.pid())),
            "{out}"
        );
    }
}

#[test]
fn a_wrong_start_stops_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let key = [("NETPULSE_SERVER__API_KEY", KEY)];
    for command in [vec!["serve"], vec!["controller"], vec!["worker", "node"], vec!["worker", "fifo"]] {
        let wrong =
            [key[0], ("NETPULSE_WORKER__SCHEDULER", "least_lod"), ("NETPULSE_STORE__ENGINE", "redis")];
        let (code, _, said) = netpulse(&command, &wrong, dir.path());
        assert_eq!(code, 2, "{command:?}: {said}");
        let expected = "there is no scheduler `least_lod` (did you mean `least_load`?): expected one of greedy, \
                        least_load, least_load_random, load_weighted_random";
        assert!(said.contains(expected), "{command:?}: {said}");
        if command[0] != "serve" {
            for more in [("NETPULSE_STORE__ENGINE", "embedded"), ("NETPULSE_FAKE_REDIS", "yes")] {
                let (code, _, said) = netpulse(&command, &[key[0], more], dir.path());
                assert_eq!(code, 2, "{command:?}: {said}");
                let sentence =
                    format!("`netpulse {}` works with other processes through Redis", command.join(" "));
                assert!(said.contains(&sentence) && said.contains("netpulse serve"), "{said}");
            }
        }
    }
}

#[test]
fn a_start_waits_for_redis_says_so_and_is_ended_by_a_signal() {
    let mut redis = RedisServer::stopped(&[]);
    let dir = tempfile::tempdir().unwrap();
    let mut ended = Process::spawn(Part::Controller, "ended", dir.path(), redis.port, "");
    let mut patient = Process::spawn(Part::Node, "patient", dir.path(), redis.port, "");
    for process in [&ended, &patient] {
        eventually(30, "the warning", || {
            process.log().contains("waiting for it, until a signal ends this process")
        });
        assert!(process.log().contains(&format!("Redis at 127.0.0.1:{} cannot be reached", redis.port)));
    }
    assert_eq!(ended.stop(), Some(0), "{}", ended.log());
    redis.launch();
    patient.ready();
    assert_eq!(patient.stop(), Some(0), "{}", patient.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_roles_in_one_process_join_the_others() {
    let running = devices(2);
    let mut cluster = Cluster::start(&[Part::All], "");
    let client = cluster.client();
    let job = client.exec(&query(&running, 0)).await;
    assert_eq!(node_of(&job), "all-0");
    let mut node = Process::spawn(Part::Node, "node-x", cluster.dir.path(), cluster.redis.port, "");
    node.ready();
    cluster.processes.push(node);
    let job = client.exec(&query(&running, 1)).await;
    assert_eq!(node_of(&job), "node-x", "the one that owns fewer is chosen: {job}");
    let stats = client.get("/system/stats").await;
    assert_eq!(stats["nodes"]["active"], 2);
    assert_eq!(cluster.process("all-0").stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_drains_refuses_new_work_and_ends_what_it_has() {
    let running = devices(1);
    running.set_faults(&Faults { latency_ms: 400, ..Faults::default() });
    let mut cluster = Cluster::start(&[Part::Controller, Part::Node], "");
    let client: Client = cluster.client();
    let url = cluster.url("controller-0").to_owned();
    let pending = tokio::spawn({
        let (client, url, body) = (cluster.client(), url.clone(), change(&running, 0, 7));
        async move { client.at(Method::POST, &format!("{url}/device/exec?wait=60"), Some(&body)).await }
    });
    while client.get("/jobs?state=all").await.as_array().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.process("controller-0").signal("-TERM");
    let mut refused = Value::Null;
    let (mut status, mut turns) = (201, 0);
    while status != 503 && turns < 200 {
        turns += 1;
        (status, refused) =
            client.at(Method::POST, &format!("{url}/device/exec"), Some(&query(&running, 0))).await;
    }
    assert_eq!(status, 503, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("takes nothing new"), "{refused}");
    let (status, ready) = client.at(Method::GET, &format!("{url}/health/ready"), None).await;
    assert_eq!((status, &ready["status"]), (503, &json!("draining")));
    let (status, _) = client.at(Method::GET, &format!("{url}/health/live"), None).await;
    assert_eq!(status, 200);
    let (status, job) = pending.await.unwrap();
    assert_eq!((status, &job["status"]), (201, &json!("finished")), "{job}");
    assert_eq!(cluster.process("controller-0").wait(), Some(0));
}

#[test]
fn the_doctor_says_what_to_change() {
    let mut redis = RedisServer::with(&["--appendonly", "no"]);
    let dir = tempfile::tempdir().unwrap();
    let port = redis.port.to_string();
    let environment = [
        ("NETPULSE_SERVER__API_KEY", KEY),
        ("NETPULSE_SERVER__PORT", "0"),
        ("NETPULSE_STORE__ENGINE", "redis"),
        ("NETPULSE_REDIS__HOST", "127.0.0.1"),
        ("NETPULSE_REDIS__PORT", port.as_str()),
        ("NETPULSE_WORKER__PINNED_PER_NODE", "1000000"),
    ];
    let look = || {
        let (code, out, said) = netpulse(&["doctor", "--output", "json"], &environment, dir.path());
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{said}"));
        (code, found)
    };
    let (code, found) = look();
    assert_eq!((code, &found["worst"]), (1, &json!("warning")), "{found}");
    let of = |found: &Value, words: &str| {
        let all = found["findings"].as_array().unwrap();
        let of = all.iter().find(|f| f["found"].as_str().unwrap().contains(words));
        of.unwrap_or_else(|| panic!("no finding with {words}: {found}")).clone()
    };
    let persistence = of(&found, "no append-only file");
    assert_eq!(persistence["severity"], "warning");
    assert!(persistence["change"].as_str().unwrap().contains("appendonly yes"), "{persistence}");
    let files = of(&found, "device sessions");
    assert!(files["change"].as_str().unwrap().contains("ulimit -n 1001064"), "{files}");
    assert_eq!(of(&found, "version: Redis")["severity"], "good");
    redis.kill();
    let (code, found) = look();
    assert_eq!((code, &found["worst"]), (2, &json!("bad")), "{found}");
    assert!(of(&found, "cannot be reached")["found"].as_str().unwrap().contains(&port), "{found}");
    // A mistake of the configuration is named with its place.
    std::fs::write(
        dir.path().join("np.yaml"),
        format!("server: {{api_key: {KEY}}}\nworker:\n  lease: soon\n"),
    )
    .unwrap();
    let (code, out, _) = netpulse(&["doctor", "--config", "np.yaml"], &[], dir.path());
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("np.yaml:3: worker.lease: `soon` is no whole number"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_a_scheduler_that_is_a_program_decides_and_when_it_lies_or_dies_one_job_fails() {
    let (running, mischief) = (devices(7), Mischief::new());
    let extra = format!("{}\nworker: {{scheduler: by_mood}}", mischief.config());
    let cluster = Cluster::start(&[Part::Controller, Part::Node, Part::Node], &extra);
    let client = cluster.client();
    let place = async |device: usize, mood: &str| {
        mischief.tell("scheduler", mood);
        client.exec(&query(&running, device)).await
    };
    assert_eq!(node_of(&place(0, "choose node-1").await), "node-1");
    assert_eq!(node_of(&place(1, "choose node-0").await), "node-0");
    let calls = mischief.calls("scheduler");
    assert_eq!(calls[0]["nodes"], json!(["node-0", "node-1"]), "{calls:?}");
    assert!(calls[0]["host"].as_str().unwrap().starts_with("127.0.0.1"), "{calls:?}");

    let refused = async |device: usize, mood: &str| {
        mischief.tell("scheduler", mood);
        let began = Instant::now();
        let url = format!("{}/device/exec", cluster.url("controller-0"));
        let (status, said) = client.at(Method::POST, &url, Some(&query(&running, device))).await;
        assert_eq!(status, 500, "{mood}: {said}");
        // Whoever has a node already needs no scheduler.
        let job = client.exec(&query(&running, 0)).await;
        assert_eq!(node_of(&job), "node-1", "{mood}");
        (said["detail"].as_str().unwrap().to_owned(), began.elapsed())
    };
    let (said, _) = refused(2, "choose nowhere").await;
    assert!(
        said.contains("test/mischief/v1") && said.contains("chose the node `nowhere`, which was not offered"),
        "{said}"
    );
    let (said, _) = refused(2, "full").await;
    assert!(said.contains("Insufficient capacity in node selection"), "{said}");
    assert_eq!(node_of(&place(2, "choose node-0").await), "node-0", "a lie costs one request");

    let (said, _) = refused(3, "die").await;
    assert!(said.contains("test/mischief/v1"), "{said}");
    assert_eq!(node_of(&place(3, "choose node-1").await), "node-1", "a crash costs one request");

    let (said, took) = refused(4, "hang").await;
    assert!(said.contains("did not answer within"), "{said}");
    assert!(took < Duration::from_secs(25), "one question, not several: {took:?}");
    assert_eq!(node_of(&place(4, "choose node-0").await), "node-0");

    // Many at a time: what is placed is placed, and each device has its own answer.
    mischief.tell("scheduler", "choose node-1");
    let mut shared = device_args(running.device(5));
    let list: Vec<Value> = [5, 6]
        .map(|n| {
            let args = device_args(running.device(n));
            json!({"host": args["host"], "port": args["port"]})
        })
        .into();
    for key in ["host", "port"] {
        shared.as_object_mut().unwrap().remove(key);
    }
    let bulk =
        json!({"driver": "netmiko", "connection_args": shared, "command": "show clock", "devices": list});
    let url = format!("{}/device/bulk?wait=60", cluster.url("controller-0"));
    let (status, answer) = client.at(Method::POST, &url, Some(&bulk)).await;
    assert_eq!(status, 201, "{answer}");
    let nodes: Vec<String> = answer["succeeded"].as_array().unwrap().iter().map(node_of).collect();
    assert_eq!(nodes, ["node-1", "node-1"], "{answer}");
}

#[test]
fn promise_14_only_a_scheduler_name_that_nobody_bears_stops_the_start() {
    let mischief = Mischief::new();
    let dir = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    // Its program will die at its first question, which is no reason not to start.
    mischief.tell("scheduler", "die");
    let extra = format!("{}\nworker: {{scheduler: by_mood}}", mischief.config());
    let mut good = Process::spawn(Part::All, "good", dir.path(), redis.port, &extra);
    good.ready();
    assert_eq!(good.stop(), Some(0));
    let extra = format!("{}\nworker: {{scheduler: by_mod}}", mischief.config());
    let mut wrong = Process::spawn(Part::All, "wrong", dir.path(), redis.port, &extra);
    assert_eq!(wrong.wait(), Some(2), "{}", wrong.log());
    assert!(wrong.log().contains("there is no scheduler `by_mod`"), "{}", wrong.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_14_jobs_of_a_lost_node_wait_out_a_scheduler_that_fails() {
    let (running, mischief) = (devices(1), Mischief::new());
    let extra = format!("{}\nworker: {{scheduler: by_mood, lease: 2}}", mischief.config());
    let mut cluster = Cluster::start(&[Part::Controller, Part::Node, Part::Node], &extra);
    let client = cluster.client();
    mischief.tell("scheduler", "choose node-0");
    assert_eq!(node_of(&client.exec(&query(&running, 0)).await), "node-0");
    mischief.tell("scheduler", "full");
    cluster.process("node-0").kill();
    // Accepted for the node that nobody misses yet.
    let id = client.submit(&query(&running, 0)).await;
    eventually(30, "a choice that failed", || cluster.logs().contains("no node for them"));
    mischief.tell("scheduler", "choose node-1");
    let job = client.ended(&id).await;
    assert_eq!((&job["status"], node_of(&job).as_str()), (&json!("finished"), "node-1"), "{job}");
}
