//! `netpulse simulate`: devices to try things on, thousands in one process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use netpulse_simulator::{Faults, JournalOptions, Layout, Library, Plan, Running, Simulator};
use serde_json::json;

use crate::exit::{Exit, Failure, Outcome};
use crate::stop::Stop;
use crate::ui::{Text, Ui};

/// Devices listed at the start.
const SHOWN: usize = 12;

/// Simulate devices over SSH and Telnet, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse simulate
  netpulse simulate --platform cisco_ios --devices 1000 --bind 127.1.0.0 --port 2222
  netpulse simulate --platform cisco_ios --platform juniper_junos --devices 12 --ports --port 2201
  netpulse simulate --devices 10 --fault latency=50ms,junk_every=3 --journal lines.jsonl
  netpulse simulate --list

Each device has its own loopback address (Linux answers for all of 127.0.0.0/8), or with --ports its
own port. The journal holds every line that each device received.")]
pub struct SimulateArgs {
    /// Platform to simulate; repeat for several, which are taken in turn
    #[arg(short, long, value_name = "NAME", default_value = "cisco_ios")]
    platform: Vec<String>,
    /// How many devices
    #[arg(short = 'n', long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// First address
    #[arg(short, long, default_value = "127.1.0.0", value_name = "ADDRESS")]
    bind: IpAddr,
    /// SSH port; 0 takes free ones
    #[arg(long, default_value_t = 2222)]
    port: u16,
    /// Telnet port too; 0 takes free ones
    #[arg(long, value_name = "PORT")]
    telnet_port: Option<u16>,
    /// No SSH, only Telnet
    #[arg(long, requires = "telnet_port")]
    no_ssh: bool,
    /// All devices on the first address, each on its own port from --port on
    #[arg(long)]
    ports: bool,
    /// User and password, NAME:PASSWORD; repeat for several
    #[arg(long, value_name = "NAME:PASSWORD", default_value = "admin:admin", value_parser = user)]
    user: Vec<(String, String)>,
    /// Enable secret; empty: none is asked for
    #[arg(long, value_name = "TEXT", default_value = "enable")]
    enable_secret: String,
    /// What goes wrong: name=value,... (latency=50ms, junk_every=3, drop_mid_line=7, refuse_login, ...)
    #[arg(long, value_name = "FAULTS", value_parser = faults)]
    fault: Option<Faults>,
    /// Append every line that the devices receive to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Folder whose YAML files add personas or replace built-in ones
    #[arg(long, value_name = "FOLDER")]
    personas: Option<PathBuf>,
    /// The same host keys at every start, from this number
    #[arg(long, value_name = "NUMBER")]
    host_key_seed: Option<u64>,
    /// Each device has a host key of its own
    #[arg(long)]
    own_host_keys: bool,
    /// Offer only the SSH algorithms of 2010
    #[arg(long)]
    legacy: bool,
    /// List what can be simulated
    #[arg(long)]
    list: bool,
}

fn user(text: &str) -> Result<(String, String), String> {
    let (name, password) = text.split_once(':').ok_or("expected NAME:PASSWORD")?;
    if name.is_empty() { Err("the name is empty".into()) } else { Ok((name.to_owned(), password.to_owned())) }
}

fn faults(text: &str) -> Result<Faults, String> {
    Faults::parse(text)
}

pub fn run(args: SimulateArgs, ui: &Ui) -> Outcome {
    if args.list {
        return list(&args, ui);
    }
    if !args.bind.is_loopback() {
        ui.warn(&format!("{} can be reached from other machines, and the passwords are known", args.bind));
    }
    let plan = Plan {
        personas: args.platform,
        persona_dir: args.personas,
        devices: args.devices,
        bind: args.bind,
        layout: if args.ports { Layout::Ports } else { Layout::Addresses },
        ssh_port: (!args.no_ssh).then_some(args.port),
        telnet_port: args.telnet_port,
        users: args.user.iter().cloned().collect::<HashMap<_, _>>(),
        enable: args.enable_secret.clone(),
        own_host_keys: args.own_host_keys,
        host_key_seed: args.host_key_seed,
        legacy: args.legacy,
        faults: args.fault.unwrap_or_default(),
        // What is written to a file need not be kept in memory as well.
        journal: JournalOptions { off: args.journal.is_none(), file: args.journal, keep: 1 },
        ..Plan::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::local(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let running = Simulator::start(plan)
            .map_err(|error| Failure::new(Exit::Usage, "simulator_start", error.to_string()))?;
        tell(&running, &args.user, &args.enable_secret, ui)?;
        stop.asked().await;
        running.stop();
        if let Some(reason) = running.journal().failure() {
            return Err(Failure::local(format!("the journal is incomplete: {reason}")));
        }
        Ok(Exit::Ok)
    })
}

fn list(args: &SimulateArgs, ui: &Ui) -> Outcome {
    let wrong =
        |error: netpulse_simulator::PersonaError| Failure::new(Exit::Usage, "bad_persona", error.to_string());
    let library = match &args.personas {
        Some(folder) => Library::with_folder(folder).map_err(wrong)?,
        None => Library::embedded(),
    };
    let names = library.names();
    if ui.for_people() {
        names.iter().for_each(|name| ui.line(name));
    } else {
        ui.document(&names)?;
    }
    Ok(Exit::Ok)
}

fn tell(running: &Running, users: &[(String, String)], enable: &str, ui: &Ui) -> Result<(), Failure> {
    let devices = running.devices();
    let shown = |at: Option<std::net::SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
    if !ui.for_people() {
        let list: Vec<_> = devices
            .iter()
            .map(|d| json!({"index": d.index, "platform": d.persona.spec.name, "ssh": d.ssh, "telnet": d.telnet}))
            .collect();
        return ui.record(&list);
    }
    let rows = devices
        .iter()
        .take(SHOWN)
        .map(|device| {
            vec![
                Text::from(device.persona.spec.name.as_str()),
                shown(device.ssh).into(),
                shown(device.telnet).into(),
            ]
        })
        .collect();
    ui.table(&["PLATFORM", "SSH", "TELNET"], rows);
    if devices.len() > SHOWN {
        ui.line(&format!(
            "and {} more, up to {}",
            devices.len() - SHOWN,
            devices.last().map(|d| shown(d.ssh.or(d.telnet))).unwrap_or_default()
        ));
    }
    let users: Vec<String> = users.iter().map(|(name, password)| format!("{name} / {password}")).collect();
    let secret = if enable.is_empty() { String::new() } else { format!(", enable secret {enable}") };
    ui.note(&format!(
        "{} device(s) up; log in as {}{secret}. Ctrl-C ends.",
        devices.len(),
        users.join(" or ")
    ));
    Ok(())
}
