//! `netpulse bench`: NetPulse beside a raw SSH client, against the same simulated devices, in one run.
//!
//! Absolute times depend on the machine and on what else it does; the ratios hold. Three
//! processes take part: the simulator, the server, and this one as the client.

mod http;
mod redis;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use self::http::Connection;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Text, Tone, Ui};
use netpulse_simulator::raw::{self, RawFigures, RawOptions};

/// Measure NetPulse beside a raw SSH client on simulated devices
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  netpulse bench --quick\n  netpulse bench --devices 1000 --idle 5000 --output json\n  netpulse bench --engine redis\n\nWith `--engine redis` it starts a redis-server of its own on a free port, a controller and nodes, each a\nprocess, and measures what many machines are for."
)]
pub struct BenchArgs {
    /// Devices for the bulk measurement
    #[arg(long, default_value_t = 1000)]
    devices: u32,
    /// Sessions for the memory measurement; 0 leaves it out
    #[arg(long, default_value_t = 5000)]
    idle: u32,
    /// Where jobs wait
    #[arg(long, value_enum, default_value_t = Engine::Embedded)]
    engine: Engine,
    /// A tenth of everything: a look, not a measurement
    #[arg(long)]
    quick: bool,
}

/// Which store is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// The embedded one, all in one process
    Embedded,
    /// Redis, with a controller and nodes
    Redis,
}

/// The key of the server that is measured.
const KEY: &str = "bench-key-0123456789";
/// Where the simulated devices live; each measurement that needs new ones takes its own range.
const PORT: u16 = 2222;

/// One row of the result.
struct Row {
    what: &'static str,
    figure: String,
    raw: String,
    reach: String,
    upstream: &'static str,
    value: f64,
}

/// The servers under test, ended with this value.
struct Stage {
    simulator: Child,
    server: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
    start_seconds: f64,
}

pub fn run(args: &BenchArgs, ui: &Ui) -> Outcome {
    crate::block_on(async {
        measure(args, ui).await.map_err(|error| Failure::new(Exit::Refused, "bench", format!("{error:#}")))
    })
}

async fn measure(args: &BenchArgs, ui: &Ui) -> anyhow::Result<Exit> {
    let scale = if args.quick { 10 } else { 1 };
    let devices = (args.devices / scale).max(10);
    let idle = args.idle / scale;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if args.engine == Engine::Redis {
        let progress = ui.progress(8, "bench");
        let rows = redis::measure(devices, idle, scale, |what| {
            progress.inc(1);
            progress.set_message(what);
        });
        let rows = Box::pin(rows).await?;
        progress.finish_and_clear();
        print(ui, &rows, load.trim())?;
        return Ok(Exit::Ok);
    }
    let all = devices * 2 + idle + 1000;
    let stage = Stage::set(all).await?;
    let mut rows = Vec::new();
    let progress = ui.progress(8, "bench");
    rows.push(Row {
        what: "start to first answer",
        figure: format!("{:.0} ms", stage.start_seconds * 1e3),
        raw: String::new(),
        reach: "150 ms".into(),
        upstream: "1.5 s",
        value: stage.start_seconds * 1e3,
    });
    let empty = resident(&stage.server)?;
    rows.push(Row {
        what: "idle resident memory",
        figure: format!("{:.0} MB", empty as f64 / 1e6),
        raw: String::new(),
        reach: "40 MB".into(),
        upstream: "432 MB",
        value: empty as f64 / 1e6,
    });

    progress.inc(1);
    progress.set_message("raw client");
    let raw = raw_client(devices, scale).await?;

    progress.inc(1);
    progress.set_message("warm query");
    let mut connection = Connection::open(stage.address, KEY).await?;
    let warm = warm(&mut connection, (400 / scale) as usize).await?;
    rows.push(Row {
        what: "warm query, one device, REST with wait, p50",
        figure: format!("{:.2} ms", warm * 1e3),
        raw: format!("{:.2} ms", raw.warm_p50_us as f64 / 1e3),
        reach: format!("{:.2} ms", raw.warm_p50_us as f64 / 1e3 + 2.0),
        upstream: "591 ms",
        value: warm * 1e3,
    });

    progress.inc(1);
    progress.set_message("first query on a new device");
    let cold = cold(&mut connection, (60 / scale).max(10)).await?;
    rows.push(Row {
        what: "first query on a new device, p50",
        figure: format!("{:.2} ms", cold * 1e3),
        raw: format!("{:.2} ms", raw.cold_p50_us as f64 / 1e3),
        reach: format!("{:.2} ms", raw.cold_p50_us as f64 / 1e3 + 15.0),
        upstream: "1,571 ms",
        value: cold * 1e3,
    });

    progress.inc(1);
    progress.set_message("bulk on new devices");
    let seconds = bulk(&mut connection, devices).await?;
    rows.push(Row {
        what: "new devices, one query each, bulk",
        figure: format!("{seconds:.2} s for {devices}"),
        raw: format!("{:.2} s", raw.new_devices_ms as f64 / 1e3),
        reach: format!("{:.2} s", raw.new_devices_ms as f64 * 3e-3),
        upstream: "25 to 58 s for 100",
        value: seconds,
    });

    progress.inc(1);
    progress.set_message("100 devices, 5 queued queries each");
    let rate = queued(&mut connection, 100, 5 * (10 / scale).max(1)).await?;
    rows.push(Row {
        what: "100 devices, queued queries, jobs per second",
        figure: format!("{rate:.0}/s"),
        raw: format!("{:.0} commands/s", raw.commands_per_second),
        reach: format!("{:.0}/s and 2,500/s", raw.commands_per_second * 0.4),
        upstream: "84",
        value: rate,
    });

    progress.inc(1);
    progress.set_message("reading a job");
    let id = last_job(&mut connection).await?;
    let reads = hammer(stage.address, 32, Duration::from_secs(u64::from(10 / scale).max(2)), |c, _| {
        c.prepare("GET", &format!("/jobs/{id}"), None)
    })
    .await?;
    rows.push(Row {
        what: "GET /jobs/{id}, 32 clients",
        figure: format!("{reads:.0}/s"),
        raw: String::new(),
        reach: "15,000/s".into(),
        upstream: "1,128",
        value: reads,
    });

    progress.inc(1);
    progress.set_message("durable acceptance");
    let accepts =
        accept(&mut connection, stage.address, Duration::from_secs(u64::from(10 / scale).max(2))).await?;
    rows.push(Row {
        what: "accepted (durable) POST /device/exec, 32 clients",
        figure: format!("{accepts:.0}/s"),
        raw: String::new(),
        reach: "5,000/s".into(),
        upstream: "358",
        value: accepts,
    });

    stage.end().await?;
    if idle > 0 {
        progress.inc(1);
        progress.set_message("idle sessions");
        let stage = Stage::set(idle).await?;
        let mut connection = Connection::open(stage.address, KEY).await?;
        bulk_on(&mut connection, 0, 10.min(idle)).await?;
        let before = resident(&stage.server)?;
        bulk_on(&mut connection, 0, idle).await?;
        let after = resident(&stage.server)?;
        let each = (after.saturating_sub(before)) as f64 / f64::from(idle.saturating_sub(10).max(1)) / 1024.0;
        rows.push(Row {
            what: "resident memory per idle pinned session",
            figure: format!("{each:.0} KiB at {idle}"),
            raw: String::new(),
            reach: "120 KiB".into(),
            upstream: "88 MB",
            value: each,
        });
    }
    progress.finish_and_clear();
    print(ui, &rows, load.trim())?;
    Ok(Exit::Ok)
}

fn print(ui: &Ui, rows: &[Row], load: &str) -> anyhow::Result<()> {
    if !ui.for_people() {
        let data: Vec<Value> = rows
            .iter()
            .map(|r| {
                json!({"measure": r.what, "value": r.value, "figure": r.figure, "raw_client": r.raw,
                    "reach": r.reach, "upstream": r.upstream})
            })
            .collect();
        return Ok(ui.document(&json!({"load_before": load, "rows": data}))?);
    }
    let cells = rows
        .iter()
        .map(|r| {
            vec![
                Text::from(r.what),
                Text(r.figure.clone(), Tone::Strong),
                Text::from(r.raw.clone()),
                Text::from(r.reach.clone()),
                Text(r.upstream.to_owned(), Tone::Dim),
            ]
        })
        .collect();
    ui.table(&["MEASURE", "NETPULSE", "RAW CLIENT", "REACH", "UPSTREAM"], cells);
    ui.note(&format!("load before: {load}"));
    Ok(())
}

/// The raw client's figures on the same devices, the ones that NetPulse meets later left out.
async fn raw_client(devices: u32, scale: u32) -> anyhow::Result<RawFigures> {
    let targets: Result<Vec<SocketAddr>, _> =
        (0..devices).map(|n| format!("{}:{PORT}", device(n)).parse::<SocketAddr>()).collect();
    let mut options = RawOptions::new(targets?);
    options.warm = (2000 / scale) as usize;
    options.cold = (50 / scale).max(10) as usize;
    options.rate_commands = (100 / scale) as usize;
    Ok(raw::measure(&options).await?)
}

/// The address of simulated device number `n`.
fn device(n: u32) -> String {
    let n = n + 1;
    format!("127.{}.{}.{}", 1 + (n >> 16), (n >> 8) & 255, n & 255)
}

fn args(host: &str) -> Value {
    json!({"device_type": "cisco_ios", "host": host, "port": PORT, "username": "admin", "password": "admin"})
}

fn query(host: &str) -> Value {
    json!({"driver": "netmiko", "connection_args": args(host), "command": "show clock", "ttl": 3600})
}

async fn warm(connection: &mut Connection, times: usize) -> anyhow::Result<f64> {
    let request = connection.prepare("POST", "/device/exec?wait=30", Some(&query(&device(0))));
    finished(&connection.send(&request).await?.json()?)?;
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let reply = connection.send(&request).await?;
        taken.push(began.elapsed().as_secs_f64());
        finished(&reply.json()?)?;
    }
    Ok(median(&mut taken))
}

async fn cold(connection: &mut Connection, times: u32) -> anyhow::Result<f64> {
    let mut taken = Vec::new();
    for n in 1..=times {
        let began = Instant::now();
        let reply = connection.ask("POST", "/device/exec?wait=30", Some(&query(&device(n)))).await?;
        taken.push(began.elapsed().as_secs_f64());
        finished(&reply.json()?)?;
    }
    Ok(median(&mut taken))
}

async fn bulk(connection: &mut Connection, devices: u32) -> anyhow::Result<f64> {
    bulk_on(connection, 500, devices).await
}

/// One bulk query on devices `first..first + count`, to the end; seconds.
async fn bulk_on(connection: &mut Connection, first: u32, count: u32) -> anyhow::Result<f64> {
    let devices: Vec<Value> = (first..first + count).map(|n| json!({"host": device(n)})).collect();
    let mut shared = args("");
    if let Some(map) = shared.as_object_mut() {
        map.remove("host");
    }
    let body =
        json!({"driver": "netmiko", "connection_args": shared, "command": "show clock", "devices": devices});
    let began = Instant::now();
    let reply = connection.ask("POST", "/device/bulk?wait=120", Some(&body)).await?.json()?;
    let taken = began.elapsed().as_secs_f64();
    let jobs = reply["succeeded"].as_array().context("no `succeeded` in the answer")?;
    if jobs.len() != count as usize {
        bail!("{} of {count} were accepted: {}", jobs.len(), reply["failed"]);
    }
    jobs.iter().try_for_each(finished)?;
    Ok(taken)
}

/// `each` queries on each of `devices` warm devices, all submitted at once; jobs per second.
async fn queued(connection: &mut Connection, devices: u32, each: u32) -> anyhow::Result<f64> {
    bulk_on(connection, 500, devices.min(100)).await?;
    let hosts: Vec<Value> =
        (0..each).flat_map(|_| (500..500 + devices).map(|n| json!({"host": device(n)}))).collect();
    let count = hosts.len();
    let mut shared = args("");
    if let Some(map) = shared.as_object_mut() {
        map.remove("host");
    }
    let body =
        json!({"driver": "netmiko", "connection_args": shared, "command": "show clock", "devices": hosts});
    let request = connection.prepare("POST", "/device/bulk?wait=120", Some(&body));
    let began = Instant::now();
    let reply = connection.send(&request).await?.json()?;
    let taken = began.elapsed().as_secs_f64();
    let jobs = reply["succeeded"].as_array().context("no `succeeded` in the answer")?;
    jobs.iter().try_for_each(finished)?;
    if jobs.len() != count {
        bail!("{} of {count} were accepted", jobs.len());
    }
    Ok(count as f64 / taken)
}

/// Durable acceptance alone: the devices are busy with a command that gives no answer, so that
/// nothing but acceptance goes on.
async fn accept(connection: &mut Connection, address: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let mut busy = Vec::new();
    for n in 0..32 {
        let mut body = query(&device(n));
        body["driver_args"] = json!({"expect_string": "never-seen", "read_timeout": 3600});
        body["execution_timeout"] = json!(3600);
        let job = connection.ask("POST", "/device/exec", Some(&body)).await?.json()?;
        busy.push(job["id"].as_str().context("no id")?.to_owned());
    }
    let rate = hammer(address, 32, time, |c, n| {
        c.prepare("POST", "/device/exec", Some(&query(&device(u32::try_from(n).unwrap_or(0)))))
    })
    .await?;
    for n in 0..32 {
        connection.ask("DELETE", &format!("/jobs?host={}", device(n)), None).await?.json()?;
    }
    for id in busy {
        connection.ask("DELETE", &format!("/jobs/{id}"), None).await?.json()?;
    }
    Ok(rate)
}

/// `clients` connections that send the same request as fast as they can; replies per second.
async fn hammer(
    address: SocketAddr,
    clients: usize,
    time: Duration,
    request: impl Fn(&Connection, usize) -> Vec<u8>,
) -> anyhow::Result<f64> {
    let mut tasks = Vec::new();
    let began = Instant::now();
    for n in 0..clients {
        let mut connection = Connection::open(address, KEY).await?;
        let bytes = request(&connection, n);
        tasks.push(tokio::spawn(async move {
            let mut count = 0_u64;
            while began.elapsed() < time {
                let reply = connection.send(&bytes).await?;
                if !(200..300).contains(&reply.status) {
                    bail!("the server answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
                }
                count += 1;
            }
            Ok(count)
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}

async fn last_job(connection: &mut Connection) -> anyhow::Result<String> {
    let job = connection.ask("POST", "/device/exec?wait=30", Some(&query(&device(0)))).await?.json()?;
    finished(&job)?;
    Ok(job["id"].as_str().context("no id")?.to_owned())
}

fn finished(job: &Value) -> anyhow::Result<()> {
    if job["status"] == "finished" { Ok(()) } else { bail!("a job did not finish: {job}") }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn resident(child: &Child) -> anyhow::Result<u64> {
    let pid = child.id().context("the server has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kib * 1024)
}

impl Stage {
    /// Ends both processes and waits until their ports are free.
    async fn end(mut self) -> anyhow::Result<()> {
        self.server.kill().await?;
        self.simulator.kill().await?;
        Ok(())
    }

    /// Starts simulator and server, each a process of its own.
    async fn set(devices: u32) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let program = std::env::current_exe()?;
        let (simulator, _) = launch(
            Command::new(&program)
                .args(["simulate", "--platform", "cisco_ios", "--bind", "127.1.0.1"])
                .args(["--devices", &devices.to_string(), "--port", &PORT.to_string()]),
            // The first row of its table: every device is up by then.
            "127.1.",
        )
        .await?;
        let config: PathBuf = dir.path().join("netpulse.yaml");
        let yaml = format!(
            "server: {{host: 127.0.0.1, port: 0, api_key: {KEY}}}\nstore: {{path: {d}/store}}\n\
             storage: {{staging: {d}/staging}}\nworker: {{pinned_idle_timeout: 3600}}\nlog: {{level: ERROR}}\n",
            d = dir.path().display()
        );
        std::fs::write(&config, yaml)?;
        let began = Instant::now();
        let (server, line) =
            launch(Command::new(&program).arg("serve").arg("--config").arg(&config), "http://").await?;
        let url =
            line.split_whitespace().find_map(|word| word.strip_prefix("http://")).context("no address")?;
        let address: SocketAddr = url.trim_end_matches('/').parse().context("no address")?;
        let mut connection = Connection::open(address, KEY).await?;
        connection.ask("GET", "/health", None).await?.json()?;
        let start_seconds = began.elapsed().as_secs_f64();
        Ok(Self { simulator, server, address, _dir: dir, start_seconds })
    }
}

/// Starts a child and waits for a line of its output that holds `mark`.
async fn launch(command: &mut Command, mark: &str) -> anyhow::Result<(Child, String)> {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut lines = BufReader::new(output).lines();
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(mark) {
                return Ok(line);
            }
        }
        bail!("it ended at once")
    });
    let line = found.await.context("not ready within 60 s")?.context("it did not start")?;
    // Somebody has to read what else it prints.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, line))
}
