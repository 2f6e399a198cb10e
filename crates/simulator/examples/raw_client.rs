//! Prints what a raw russh client reaches against simulated devices in the same process.
//!
//! `cargo run --release -p netpulse-simulator --example raw_client -- --devices 1000 [--persona cisco_ios,arista_eos]`
//!
//! `--serve 30000` only serves, on ports from 30000 of 127.0.0.1, until it is killed; `--first 30000` only measures
//! what is served there. So the two ends can be weighed apart.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant;

use netpulse_simulator::raw::{RawOptions, RawSession, measure};
use netpulse_simulator::{JournalOptions, Plan, Simulator};

/// Resident memory of this process in KiB, from the kernel.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut devices, mut persona, mut command, mut targets) =
        (1_000u32, "cisco_ios".to_owned(), "show clock".to_owned(), Vec::new());
    let (mut serve, mut first) = (None, None::<u16>);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--devices" => devices = value.parse()?,
            "--persona" => persona = value,
            "--command" => command = value,
            "--serve" => serve = Some(value.parse()?),
            "--first" => first = Some(value.parse()?),
            "--target" => targets.push(value.parse()?),
            other => return Err(format!("there is no option {other}; there are --devices, --persona, --command, --serve, --first, --target").into()),
        }
    }
    if let Some(first) = first {
        let ports = (0..u16::try_from(devices)?).map(|i| first.checked_add(i).ok_or("ports past 65535"));
        targets =
            ports.map(|p| Ok::<_, &str>(SocketAddr::from(([127, 0, 0, 1], p?)))).collect::<Result<_, _>>()?;
    }
    let start = Instant::now();
    let running = if targets.is_empty() {
        let plan = Plan {
            ssh_port: Some(serve.unwrap_or(0)),
            journal: JournalOptions { off: true, ..JournalOptions::default() },
            personas: persona.split(',').map(str::to_owned).collect(),
            ..Plan::of(&persona, devices)
        };
        Some(Simulator::start(plan)?)
    } else {
        None
    };
    if let Some(running) = &running {
        println!(
            "{devices} devices listening after {} ms, {} KiB resident",
            start.elapsed().as_millis(),
            resident()
        );
        if serve.is_some() {
            std::future::pending::<()>().await;
        }
        targets = running.devices().iter().filter_map(|d| d.ssh).collect();
    }
    let options = RawOptions { command, ..RawOptions::new(targets.clone()) };
    println!("{}", serde_json::to_string_pretty(&measure(&options).await?)?);
    {
        let before = resident();
        let mut sessions = Vec::new();
        let some = targets.len().min(1_000);
        for target in &targets[..some] {
            sessions.push(RawSession::open(*target, &options).await?);
        }
        let ends = if running.is_some() { "both ends together" } else { "this end" };
        println!(
            "{some} idle sessions: {} KiB each, {ends}",
            resident().saturating_sub(before) / some as u64
        );
        if running.is_none() {
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        }
    }
    Ok(())
}
