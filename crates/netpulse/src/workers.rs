//! `netpulse workers`: who works, and stopping them.

use clap::{Args, Subcommand};
use netpulse_client::WorkerFilter;
use serde_json::Value;

use crate::api::Api;
use crate::exit::{Exit, Outcome};
use crate::jobs::nothing_named;
use crate::ui::{Text, Tone, Ui, plain, tone_of};
use crate::view::{self, text};

/// List workers, or stop them
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  netpulse workers
  netpulse workers --host 192.0.2.11
  netpulse workers stop node-a_HostQ_192.0.2.11
  netpulse workers stop --host 192.0.2.11

Stopping a device's worker closes its session; the next job for the device opens a new one."
)]
pub struct WorkersArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Stop workers; a job that runs ends first
    Stop {
        /// Names of workers
        names: Vec<String>,
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Debug, Args)]
struct Filter {
    /// Only workers of this device
    #[arg(long)]
    host: Option<String>,
    /// Only workers of this node
    #[arg(long)]
    node: Option<String>,
    /// Only workers of this queue
    #[arg(long)]
    queue: Option<String>,
}

impl From<Filter> for WorkerFilter {
    fn from(filter: Filter) -> Self {
        Self { queue: filter.queue, node: filter.node, host: filter.host }
    }
}

pub async fn run(args: WorkersArgs, api: &Api, ui: &Ui) -> Outcome {
    match args.action {
        None => list(&api.workers(&args.filter.into()).await?, ui),
        Some(Action::Stop { names, filter }) => stop(names, filter, api, ui).await,
    }
}

fn list(workers: &[Value], ui: &Ui) -> Outcome {
    if !ui.for_people() {
        ui.document(&workers)?;
    } else if workers.is_empty() {
        ui.note("no workers");
    } else {
        let rows = workers
            .iter()
            .map(|worker| {
                let status = text(worker, "status");
                let number = |key: &str| worker.get(key).map(plain).unwrap_or_default();
                vec![
                    text(worker, "name").into(),
                    Text(status.to_owned(), tone_of(status)),
                    text(worker, "hostname").into(),
                    number("pid").into(),
                    number("successful_job_count").into(),
                    Text(
                        number("failed_job_count"),
                        if number("failed_job_count") == "0" { Tone::Plain } else { Tone::Bad },
                    ),
                    Text(view::moment(text(worker, "birth_at")), Tone::Dim),
                ]
            })
            .collect();
        ui.table(&["NAME", "STATUS", "NODE", "PID", "FINISHED", "FAILED", "SINCE"], rows);
    }
    Ok(Exit::Ok)
}

async fn stop(names: Vec<String>, filter: Filter, api: &Api, ui: &Ui) -> Outcome {
    let mut stopped = Vec::new();
    let filtered = filter.host.is_some() || filter.node.is_some() || filter.queue.is_some();
    if names.is_empty() && !filtered {
        return Err(nothing_named("names of workers, --host, --node or --queue"));
    }
    for name in names {
        api.stop_worker(&name).await?;
        stopped.push(name);
    }
    if filtered {
        stopped.extend(api.stop_workers(&filter.into()).await?);
    }
    if ui.for_people() {
        stopped.iter().for_each(|name| ui.line(name));
        ui.note(&format!("{} worker{} stopped", stopped.len(), if stopped.len() == 1 { "" } else { "s" }));
    } else {
        ui.document(&stopped)?;
    }
    Ok(Exit::Ok)
}
