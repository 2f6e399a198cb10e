//! What an idle session costs: a measurement, printed, never judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod netmiko_support;

use netmiko_support::{ask, connect, object};
use netpulse_simulator::{Plan, Simulator};
use serde_json::json;

/// Where the other half of the measurement finds the simulator.
const PORTS: &str = "NETPULSE_IDLE_PORTS";

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn idle_sessions() {
    // The devices live in this process, the sessions in a child, so that only sessions are counted.
    let running = Simulator::start(Plan::of("cisco_ios", 400)).unwrap();
    let ports: Vec<String> = running.devices().iter().map(|d| d.ssh.unwrap().port().to_string()).collect();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "idle_child", "--nocapture"])
        .env(PORTS, ports.join(","))
        .output()
        .await
        .unwrap();
    print!("{}", String::from_utf8_lossy(&child.stdout));
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other half of idle_sessions"]
async fn idle_child() {
    let Ok(ports) = std::env::var(PORTS) else { return };
    let mut sessions = Vec::new();
    let mut before = 0;
    for (index, port) in ports.split(',').enumerate() {
        let args = object(
            json!({"device_type": "cisco_ios", "host": "127.0.0.1", "port": port.parse::<u16>().unwrap(),
            "username": "admin", "password": "admin", "secret": "enable"}),
        );
        let mut session = connect(&args).await;
        let report = ask(&mut *session, json!({"command": "simulator-lines 2000"})).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        drop(report);
        sessions.push(session);
        if index == 99 {
            before = resident_kib();
        }
    }
    let after = resident_kib();
    println!("per idle session: {} KiB", (after - before) / (sessions.len() as u64 - 100));
}
