//! `netpulse health`: whether the process of this machine and configuration works. For containers,
//! which have no curl.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use netpulse_config::Config;
use serde_json::json;

use crate::exit::{Exit, Failure, Outcome};
use crate::serve;
use crate::server::lock::{self, Holder};
use crate::ui::{Tone, Ui};

/// Longest that the API may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tell whether the server or worker of this configuration works, on this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse health
  netpulse health --ready
  netpulse health --config /etc/netpulse/netpulse.yaml

A worker is judged by its lock file in worker.work_dir: held, and touched with each renewal of its
leases. Where no worker runs, the API is asked (/health/live; with --ready /health/ready). Exits 0 when
all is well, 3 when nothing runs or it does not answer, 7 when it runs and does not work.")]
pub struct HealthArgs {
    /// Configuration file [default: NETPULSE_CONFIG_FILE, config/netpulse.yaml or netpulse.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask the API whether it takes requests, not only whether it runs
    #[arg(long)]
    ready: bool,
}

pub fn run(args: &HealthArgs, ui: &Ui) -> Outcome {
    let config = serve::configuration(args.config.clone(), Vec::new(), ui)?;
    let mut said = Vec::new();
    if config.store.engine == "redis" && !args.ready {
        for name in ["node.lock", "fifo.lock"] {
            said.extend(worker(&config, name)?);
        }
    }
    if said.is_empty() {
        said.push(crate::block_on(api(&config, args.ready))?);
    }
    if ui.for_people() {
        said.iter().for_each(|line| ui.toned(line, Tone::Good));
    } else {
        ui.document(&json!({"ok": true, "seen": said}))?;
    }
    Ok(Exit::Ok)
}

/// What a lock file tells; none when nobody holds it.
fn worker(config: &Config, name: &str) -> Result<Option<String>, Failure> {
    let folder = lock::work_dir(config);
    let holder = lock::holder(&folder, name)
        .map_err(|e| Failure::local(format!("{}: {e}", folder.join(name).display())))?;
    let Holder::Process { pid, silent } = holder else { return Ok(None) };
    let kind = name.trim_end_matches(".lock");
    let who = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    // A lease is renewed four times in its life; after three lives it is long gone.
    let limit = Duration::from_secs(config.worker.lease.max(1) * 3 + 5);
    if silent > limit {
        let sentence = format!(
            "the {kind} worker{who} runs, and has not renewed its leases for {} s: it hangs, or its store is away",
            silent.as_secs()
        );
        return Err(Failure::new(Exit::Refused, "silent", sentence));
    }
    Ok(Some(format!("the {kind} worker{who} renewed its leases {} s ago", silent.as_secs())))
}

pub async fn api(config: &Config, ready: bool) -> Result<String, Failure> {
    let scheme = if config.server.tls_cert.is_some() { "https" } else { "http" };
    let host = match config.server.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" | "[::]" => "[::1]",
        host => host,
    };
    let path = if ready { "ready" } else { "live" };
    let url = format!("{scheme}://{host}:{}/health/{path}", config.server.port);
    // It is this machine's own server, by whatever name its certificate has.
    let client =
        reqwest::Client::builder().timeout(PATIENCE).danger_accept_invalid_certs(true).no_proxy().build();
    let client = client.map_err(|e| Failure::new(Exit::Refused, "internal", e.to_string()))?;
    let answer = client.get(&url).send().await.map_err(|error| {
        Failure::new(Exit::Unreachable, "unreachable", format!("{url}: {}", error.without_url()))
            .hint("no worker runs here either (`worker.work_dir`)")
    })?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    if status.is_success() {
        Ok(format!("{url}: ok"))
    } else {
        Err(Failure::new(Exit::Refused, "unhealthy", format!("{url}: {status}: {body}")))
    }
}
