//! The measures of many machines: one controller and its nodes as processes of their own, around a
//! redis-server that this started.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::http::Connection;
use super::{
    KEY, PORT, Row, args, bulk_on, device, finished, launch, median, query, queued, raw_client, resident,
    warm,
};

/// Who sends bulk requests at the same time.
const CLIENTS: u32 = 4;

/// Jobs in one bulk request of the acceptance measure.
const BULK: u32 = 1000;
/// Jobs kept when the first page is read.
const KEPT: u32 = 10_000;
/// Longest that a killed node's devices may take to be served again, whatever the lease.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// Redis, the simulator and the processes between, ended with this value.
pub(super) struct Field {
    redis: Child,
    redis_port: u16,
    simulator: Child,
    controller: Child,
    nodes: Vec<(String, Child)>,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Field {
    /// Starts everything, with so many nodes and this lease.
    pub(super) async fn set(devices: u32, nodes: u32, lease: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let redis_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // As an operator is told to run it.
        let (redis, _) = launch(
            Command::new("redis-server")
                .args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                .args([
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "everysec",
                    "--maxmemory-policy",
                    "noeviction",
                ])
                .arg("--dir")
                .arg(dir.path()),
            "Ready to accept connections",
        )
        .await
        .context("redis-server (Debian package redis-server)")?;
        let program = std::env::current_exe()?;
        let (simulator, _) = launch(
            Command::new(&program)
                .args(["simulate", "--platform", "cisco_ios", "--bind", "127.1.0.1"])
                .args(["--devices", &devices.to_string(), "--port", &PORT.to_string()]),
            "127.1.",
        )
        .await?;
        let folder = dir.path().to_owned();
        let process = |name: &str, words: &[&str]| -> anyhow::Result<Command> {
            let home = folder.join(name);
            std::fs::create_dir_all(&home)?;
            let file = home.join("netpulse.yaml");
            let yaml = format!(
                "server: {{host: 127.0.0.1, port: 0, api_key: {KEY}}}\nstore: {{engine: redis, path: {d}/store}}\n\
                 storage: {{staging: {d}/staging}}\nredis: {{host: 127.0.0.1, port: {redis_port}}}\n\
                 worker: {{node: {name}, lease: {lease}, pinned_idle_timeout: 3600}}\nlog: {{level: ERROR}}\n",
                d = home.display()
            );
            std::fs::write(&file, yaml)?;
            let mut command = Command::new(&program);
            command.args(words).arg("--config").arg(file);
            Ok(command)
        };
        let (controller, line) = launch(&mut process("controller", &["controller"])?, "http://").await?;
        let url =
            line.split_whitespace().find_map(|word| word.strip_prefix("http://")).context("no address")?;
        let address: SocketAddr = url.trim_end_matches('/').parse().context("no address")?;
        let mut started = Vec::new();
        for n in 0..nodes {
            let name = format!("node-{n}");
            let (node, _) = launch(&mut process(&name, &["worker", "node"])?, "ready").await?;
            started.push((name, node));
        }
        Ok(Self { redis, redis_port, simulator, controller, nodes: started, address, dir })
    }

    /// Connections to Redis, this one not counted.
    async fn connections(&self) -> anyhow::Result<usize> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.redis_port)).await?;
        stream.write_all(b"CLIENT LIST\r\nQUIT\r\n").await?;
        let mut said = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut said)).await??;
        Ok(said.lines().filter(|line| line.starts_with("id=")).count().saturating_sub(1))
    }

    async fn end(mut self) -> anyhow::Result<()> {
        for (_, node) in &mut self.nodes {
            node.kill().await?;
        }
        self.controller.kill().await?;
        self.simulator.kill().await?;
        self.redis.kill().await?;
        self.dir.close()?;
        Ok(())
    }
}

/// All measures; `progress` is told what begins.
pub(super) async fn measure(
    devices: u32,
    idle: u32,
    scale: u32,
    progress: impl Fn(&'static str),
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let field = Field::set((devices * 2 + 1000).max(500 + BULK), 1, 10).await?;
    let mut connection = Connection::open(field.address, KEY).await?;

    progress("raw client");
    let raw = raw_client(devices, scale).await?;
    progress("warm query");
    let p50 = warm(&mut connection, (400 / scale) as usize).await?;
    let raw_ms = raw.warm_p50_us as f64 / 1e3;
    rows.push(Row {
        what: "warm query, one device, REST with wait, p50",
        figure: format!("{:.2} ms", p50 * 1e3),
        raw: format!("{raw_ms:.2} ms"),
        reach: format!("{:.2} ms", raw_ms + 4.0),
        upstream: "591 ms",
        value: p50 * 1e3,
    });

    progress("100 devices, 5 queued queries each");
    let rate = queued(&mut connection, 100, 5 * (10 / scale).max(1)).await?;
    rows.push(Row {
        what: "100 devices, queued queries, jobs per second",
        figure: format!("{rate:.0}/s"),
        raw: format!("{:.0} commands/s", raw.commands_per_second),
        reach: "2,000/s".into(),
        upstream: "84",
        value: rate,
    });

    progress("acceptance in bulks");
    let rate = accept(&mut connection, field.address, (10 / scale).max(2)).await?;
    rows.push(Row {
        what: "accepted in bulks of 1,000 by 4 clients, jobs per second",
        figure: format!("{rate:.0}/s"),
        raw: String::new(),
        reach: "20,000/s".into(),
        upstream: "",
        value: rate,
    });

    progress("first page of many jobs");
    let page = first_page(&mut connection, KEPT / scale).await?;
    rows.push(Row {
        what: "first page of 10,000 jobs, p50",
        figure: format!("{:.1} ms", page * 1e3),
        raw: String::new(),
        reach: "20 ms".into(),
        upstream: "",
        value: page * 1e3,
    });
    field.end().await?;

    if idle > 0 {
        progress("idle devices on one node");
        rows.extend(idle_devices(idle).await?);
    }
    for (what, lease, reach) in [
        ("kill -9 of a node to the next job done on its device", 10, "15 s"),
        ("the same with worker.lease 2", 2, "3 s"),
    ] {
        progress(what);
        let taken = taken_over(lease).await?;
        rows.push(Row {
            what,
            figure: format!("{taken:.1} s"),
            raw: String::new(),
            reach: reach.into(),
            upstream: "",
            value: taken,
        });
    }
    Ok(rows)
}

fn shared() -> Value {
    let mut shared = args("");
    if let Some(map) = shared.as_object_mut() {
        map.remove("host");
    }
    shared
}

/// As much of the answer to a bulk request as is looked at: the client shares its processors with those
/// that are measured.
#[derive(Deserialize)]
struct Answer {
    succeeded: Vec<IgnoredAny>,
    failed: Value,
}

/// Acceptance alone: the devices are busy with a command that gives no answer.
async fn accept(connection: &mut Connection, address: SocketAddr, bulks: u32) -> anyhow::Result<f64> {
    const BUSY: u32 = 100;
    let mut busy = Vec::new();
    for n in 0..BUSY {
        let mut body = query(&device(n));
        body["driver_args"] = json!({"expect_string": "never-seen", "read_timeout": 3600});
        body["execution_timeout"] = json!(3600);
        let job = connection.ask("POST", "/device/exec", Some(&body)).await?.json()?;
        busy.push(job["id"].as_str().context("no id")?.to_owned());
    }
    let list: Vec<Value> = (0..BULK).map(|n| json!({"host": device(n % BUSY)})).collect();
    let body = json!({"driver": "netmiko", "connection_args": shared(), "command": "show clock", "devices": list, "ttl": 3600});
    let request: Arc<[u8]> = connection.prepare("POST", "/device/bulk", Some(&body)).into();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Connection::open(address, KEY).await?);
    }
    let began = Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for mut client in clients {
        let request = Arc::clone(&request);
        sending.spawn(async move {
            for _ in 0..bulks {
                let reply: Answer = client.send(&request).await?.read()?;
                let accepted = reply.succeeded.len();
                if accepted != BULK as usize {
                    bail!("{accepted} of {BULK} were accepted: {}", reply.failed);
                }
            }
            Ok(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let rate = f64::from(BULK * CLIENTS * bulks) / began.elapsed().as_secs_f64();
    for n in 0..BUSY {
        connection.ask("DELETE", &format!("/jobs?host={}:{PORT}", device(n)), None).await?.json()?;
    }
    for id in busy {
        connection.ask("DELETE", &format!("/jobs/{id}"), None).await?.json()?;
    }
    Ok(rate)
}

/// The first hundred of at least `count` kept jobs.
async fn first_page(connection: &mut Connection, count: u32) -> anyhow::Result<f64> {
    let mut kept = 0;
    while kept < count {
        kept += BULK.min(count);
        bulk_on(connection, 500, BULK.min(count)).await?;
    }
    let request = connection.prepare("GET", "/jobs?limit=100&state=all", None);
    let mut taken = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let page = connection.send(&request).await?.json()?;
        taken.push(began.elapsed().as_secs_f64());
        if page.as_array().map_or(0, Vec::len) != 100 {
            bail!("the page is not full: {page}");
        }
    }
    Ok(median(&mut taken))
}

/// Memory of a node with so many idle sessions, and its connections to Redis.
async fn idle_devices(count: u32) -> anyhow::Result<Vec<Row>> {
    let field = Field::set(count, 0, 10).await?;
    let before = field.connections().await?;
    field.end().await?;
    let field = Field::set(count, 1, 10).await?;
    let mut connection = Connection::open(field.address, KEY).await?;
    let mut first = 0;
    while first < count {
        let some = BULK.min(count - first);
        bulk_on(&mut connection, first, some).await?;
        first += some;
    }
    let (_, node) = field.nodes.first().context("no node")?;
    let memory = resident(node)? as f64 / 1e6;
    let connections = field.connections().await?.saturating_sub(before);
    field.end().await?;
    Ok(vec![
        Row {
            what: "idle devices on one node, resident memory of it",
            figure: format!("{memory:.0} MB at {count}"),
            raw: String::new(),
            reach: "700 MB at 5000".into(),
            upstream: "88 MB each",
            value: memory,
        },
        Row {
            what: "its connections to Redis meanwhile",
            figure: connections.to_string(),
            raw: String::new(),
            reach: "4".into(),
            upstream: "",
            value: connections as f64,
        },
    ])
}

/// Seconds from the death of a device's node to the end of the next job on the device.
async fn taken_over(lease: u64) -> anyhow::Result<f64> {
    let mut field = Field::set(10, 2, lease).await?;
    let mut connection = Connection::open(field.address, KEY).await?;
    let request = connection.prepare("POST", "/device/exec?wait=60", Some(&query(&device(0))));
    let job = connection.send(&request).await?.json()?;
    finished(&job)?;
    let worker = job["worker"].as_str().context("no worker")?.to_owned();
    let owner = field.nodes.iter_mut().find(|(name, _)| worker.starts_with(&format!("{name}_")));
    let (_, owner) = owner.context("no such node")?;
    let began = Instant::now();
    owner.kill().await?;
    let reply = tokio::time::timeout(TAKEN_OVER, connection.send(&request)).await??.json()?;
    let taken = began.elapsed().as_secs_f64();
    finished(&reply)?;
    if reply["worker"].as_str() == Some(worker.as_str()) {
        bail!("the killed node ran it: {reply}");
    }
    field.end().await?;
    Ok(taken)
}
