//! `netpulse jobs`: the list of jobs.

use clap::Args;
use netpulse_client::JobFilter;
use serde_json::Value;

use crate::api::Api;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::Ui;
use crate::view;

/// List jobs, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse jobs
  netpulse jobs --status failed --since 2026-02-03
  netpulse jobs --host 192.0.2.11 --all -o json
  netpulse jobs --queue FifoQ --status queued")]
pub struct JobsArgs {
    /// Only jobs in this status: queued, started, finished, failed, canceled, scheduled
    #[arg(short, long, alias = "state", value_parser = status)]
    status: Option<String>,
    /// Only jobs of this device
    #[arg(long)]
    host: Option<String>,
    /// Only jobs of this queue: FifoQ, HostQ_<host> or HostQ_<host>:<port>
    #[arg(long)]
    queue: Option<String>,
    /// Only jobs of this node
    #[arg(long)]
    node: Option<String>,
    /// Only jobs accepted since then: 2026-02-03, 2026-02-03T04:05:06Z, or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
    /// Only jobs accepted before then
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<String>,
    /// How many
    #[arg(short, long, default_value_t = 50, value_name = "NUMBER")]
    limit: usize,
    /// All of them, page after page
    #[arg(short, long, conflicts_with = "limit")]
    all: bool,
}

fn status(text: &str) -> Result<String, String> {
    text.parse::<netpulse_model::JobStatus>().map(|status| status.to_string())
}

fn since(text: &str) -> Result<String, String> {
    netpulse_model::Timestamp::parse(text).map(|_| text.to_owned())
}

/// Jobs asked for at a time.
const PAGE: usize = 500;

pub async fn run(args: JobsArgs, api: &Api, ui: &Ui) -> Outcome {
    let filter = JobFilter {
        queue: args.queue,
        node: args.node,
        host: args.host,
        // Unasked, the server lists what waits in a queue; a person means its jobs.
        state: Some(args.status.unwrap_or_else(|| "all".to_owned())),
        since: args.since,
        until: args.until,
    };
    let wanted = if args.all { usize::MAX } else { args.limit };
    let (mut jobs, mut cursor): (Vec<Value>, Option<String>) = (Vec::new(), None);
    while jobs.len() < wanted {
        let limit = u32::try_from(PAGE.min(wanted - jobs.len())).unwrap_or(1);
        let (page, next) = api.jobs(&filter, limit, cursor.as_deref()).await?;
        let empty = page.is_empty();
        jobs.extend(page);
        cursor = next;
        if cursor.is_none() || empty {
            break;
        }
    }
    jobs.truncate(wanted);
    if !ui.for_people() {
        ui.document(&jobs)?;
    } else if jobs.is_empty() {
        ui.note("no jobs");
    } else {
        ui.table(view::JOB_COLUMNS, jobs.iter().map(view::job_row).collect());
        if cursor.is_some() {
            ui.note(&format!("there are more than {}: --limit or --all shows them", jobs.len()));
        }
    }
    Ok(Exit::Ok)
}

/// A job id, whole; a mistake here saves a round trip.
pub fn job_id(text: &str) -> Result<String, String> {
    text.parse::<netpulse_model::JobId>().map(|id| id.to_string()).map_err(|_| {
        "expected a job's id, like 6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55 (`netpulse jobs` lists them)"
            .to_owned()
    })
}

/// The failure of a filter that would mean every job.
pub fn nothing_named(what: &str) -> Failure {
    Failure::usage(format!("nothing is named: give {what}"))
}
