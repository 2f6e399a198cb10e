//! What an external plugin costs: beside the same driver built in, in one run.
//!
//! ```text
//! cargo build --release -p netpulse-plugin --bins && cargo build --release -p netpulse-plugin-sdk --examples
//! cargo run --release -p netpulse-plugin --example plugin_bench -- \
//!     target/release/netpulse-plugin-guard target/release/examples/echo_driver target/release/netpulse-stress-plugin
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netpulse_model::{ConnectionArgs, ErrorInfo, ExecutionRequest, ExecutionResult};
use netpulse_plugin::{
    Driver, DriverSession, Drivers, Folders, GuardProgram, HostSettings, Plugins, Report, Run, Watch, Work,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CALLS: usize = 5_000;

/// The echo driver, in this process.
struct BuiltIn(String);

#[async_trait]
impl DriverSession for BuiltIn {
    async fn run(&mut self, run: Run<'_>) -> Report {
        let Work::Commands(commands) = &run.work else { panic!("commands") };
        let mut report = Report { reusable: true, ..Report::default() };
        for (index, command) in commands.iter().enumerate() {
            assert!(run.watch.sending(index, commands.len(), command));
            let result = ExecutionResult::ok(command, format!("{}: {command}", self.0));
            run.watch.answered(index, commands.len(), &result);
            report.results.push(result);
        }
        report
    }

    async fn keepalive(&mut self) -> Result<(), ErrorInfo> {
        Ok(())
    }

    async fn closed(&mut self) {
        std::future::pending().await
    }

    fn keepalive_interval(&self) -> Option<Duration> {
        None
    }

    async fn close(&mut self) {}
}

struct Nobody;

impl Watch for Nobody {
    fn sending(&self, _: usize, _: usize, _: &str) -> bool {
        true
    }

    fn answered(&self, _: usize, _: usize, _: &ExecutionResult) {}
}

fn args() -> ConnectionArgs {
    let Value::Object(map) = json!({"host": "192.0.2.1"}) else { unreachable!() };
    ConnectionArgs(map)
}

async fn once(session: &mut Box<dyn DriverSession>, command: &str) -> Report {
    let body = json!({"driver": "echo", "connection_args": args().0, "command": command});
    let request = ExecutionRequest::read(&body, 300).unwrap();
    let (cancel, fence) = (CancellationToken::new(), CancellationToken::new());
    let work = Work::Commands(vec![command.to_owned()]);
    session.run(Run { request: &request, work, watch: &Nobody, cancel, fence, reused: true }).await
}

async fn calls(session: &mut Box<dyn DriverSession>) -> (Duration, Duration) {
    let mut took = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        let report = once(session, "show version").await;
        took.push(began.elapsed());
        assert_eq!(report.error, None);
    }
    took.sort();
    (took[CALLS / 2], took[CALLS * 99 / 100])
}

fn folder_of(plugins: &[(&str, &Path)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in plugins {
        std::os::unix::fs::symlink(file, folder.path().join(name)).unwrap();
    }
    folder
}

fn registry(folder: &Path, host: &HostSettings) -> Plugins {
    let cache = Some(folder.join("cache.json"));
    Plugins::new(Folders { folders: vec![folder.to_owned()], cache, ..Folders::default() }, host.clone())
}

async fn driver(plugins: &Plugins, name: &str) -> Arc<dyn Driver> {
    Drivers::of(plugins.clone()).find(name).await.unwrap_or_else(|| panic!("no driver {name}"))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[tokio::main]
async fn main() {
    let files: Vec<PathBuf> =
        std::env::args().skip(1).map(|a| PathBuf::from(a).canonicalize().unwrap()).collect();
    let [guard, echo, stress] = files.as_slice() else { panic!("give guard, echo_driver and stress plugin") };
    let host = HostSettings::new(GuardProgram { program: guard.clone(), arguments: Vec::new() });
    println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());

    let folder = folder_of(&[("echo", echo)]);
    registry(folder.path(), &host).list().await;
    let mut cold = Vec::new();
    for _ in 0..20 {
        let plugins = registry(folder.path(), &host);
        let began = Instant::now();
        let mut session = driver(&plugins, "echo").await.connect(&args()).await.unwrap();
        assert_eq!(once(&mut session, "show version").await.error, None);
        cold.push(began.elapsed());
        session.close().await;
        plugins.stop().await;
    }
    cold.sort();
    println!(
        "first call on a cold plugin (discovery cached, start, connect, command): p50 {:.1} ms, max {:.1} ms",
        milliseconds(cold[10]),
        milliseconds(cold[19])
    );

    let plugins = registry(folder.path(), &host);
    let mut external = driver(&plugins, "echo").await.connect(&args()).await.unwrap();
    let mut built_in: Box<dyn DriverSession> = Box::new(BuiltIn("192.0.2.1".into()));
    let (inside, inside_99) = calls(&mut built_in).await;
    let (outside, outside_99) = calls(&mut external).await;
    println!(
        "driver call built in: p50 {:.4} ms, p99 {:.4} ms",
        milliseconds(inside),
        milliseconds(inside_99)
    );
    println!(
        "driver call external: p50 {:.4} ms, p99 {:.4} ms",
        milliseconds(outside),
        milliseconds(outside_99)
    );
    println!("overhead p50: {:.4} ms", milliseconds(outside.saturating_sub(inside)));
    plugins.stop().await;

    // Fifty files, each a version of its own.
    let fifty = tempfile::tempdir().unwrap();
    for n in 0..50 {
        let file = fifty.path().join(format!("plugin_{n}"));
        let said = json!({"contract": "netpulse.plugin/v1", "id": format!("bench/driver/p{n}/v1"), "version": "1",
                          "capabilities": [{"type": "driver", "name": format!("p{n}")}]});
        std::fs::write(&file, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let began = Instant::now();
    assert_eq!(registry(fifty.path(), &host).list().await.len(), 50);
    println!(
        "discovery of 50 plugins, never seen before (shell scripts): {:.0} ms",
        milliseconds(began.elapsed())
    );
    let began = Instant::now();
    assert_eq!(registry(fifty.path(), &host).list().await.len(), 50);
    println!(
        "discovery of 50 plugins, cached: {:.2} ms (the server's start does not wait for it)",
        milliseconds(began.elapsed())
    );

    let folder = folder_of(&[("stress", stress)]);
    let plugins = registry(folder.path(), &host);
    let mut worst = Duration::ZERO;
    let mut again = Duration::ZERO;
    for _ in 0..2 {
        let mut session = driver(&plugins, "stress").await.connect(&args()).await.unwrap();
        let report = once(&mut session, "show pid").await;
        let pid: i32 = report.results[0].stdout.as_str().unwrap().trim_start_matches("pid ").parse().unwrap();
        let call = tokio::spawn(async move {
            let report = once(&mut session, "hang").await;
            (Instant::now(), report)
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let killed = Instant::now();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let (ended, report) = call.await.unwrap();
        assert!(report.error.is_some());
        worst = worst.max(ended.duration_since(killed));
        if again.is_zero() {
            let began = Instant::now();
            let mut session = driver(&plugins, "stress").await.connect(&args()).await.unwrap();
            assert_eq!(once(&mut session, "show clock").await.error, None);
            again = began.elapsed();
        }
    }
    println!(
        "kill -9 in a call: its error after at most {:.1} ms; the next call, with a new process, {:.1} ms",
        milliseconds(worst),
        milliseconds(again)
    );
    plugins.stop().await;
    println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}
