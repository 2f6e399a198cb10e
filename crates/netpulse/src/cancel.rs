//! `netpulse cancel`: stop jobs.

use clap::Args;
use serde_json::json;

use crate::api::Api;
use crate::exit::{Exit, Failure, Outcome};
use crate::jobs::nothing_named;
use crate::ui::Ui;

/// Cancel jobs: waiting ones are taken out, running ones stop between two lines
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse cancel 6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55
  netpulse cancel --host 192.0.2.11
  netpulse cancel --queue FifoQ

--host and --queue cancel all jobs that wait there. Exits 0 when every named job was canceled, 6 when
one does not exist or has ended.")]
pub struct CancelArgs {
    /// The jobs' ids
    #[arg(value_name = "ID", value_parser = crate::jobs::job_id)]
    ids: Vec<String>,
    /// All jobs that wait for this device
    #[arg(long, conflicts_with_all = ["ids", "queue"])]
    host: Option<String>,
    /// All jobs that wait in this queue
    #[arg(long, conflicts_with = "ids")]
    queue: Option<String>,
}

pub async fn run(args: CancelArgs, api: &Api, ui: &Ui) -> Outcome {
    let (mut canceled, mut stopping) = (Vec::new(), 0);
    let mut refused: Vec<(String, Failure)> = Vec::new();
    match (args.host, args.queue) {
        (Some(host), _) => canceled = api.cancel_waiting(None, Some(&host)).await?,
        (None, Some(queue)) => canceled = api.cancel_waiting(Some(&queue), None).await?,
        (None, None) if args.ids.is_empty() => return Err(nothing_named("job ids, --host or --queue")),
        (None, None) => {
            for id in args.ids {
                match api.cancel(&id).await {
                    Ok(running) => {
                        if running {
                            stopping += 1;
                        }
                        canceled.push(id);
                    }
                    Err(failure) if failure.exit == Exit::NotFound => refused.push((id, failure)),
                    Err(failure) => return Err(failure),
                }
            }
        }
    }
    if ui.for_people() {
        canceled.iter().for_each(|id| ui.line(id));
        let count = canceled.len();
        ui.note(&format!("{count} job{} canceled", if count == 1 { "" } else { "s" }));
        if stopping > 0 {
            ui.note(&format!(
                "{stopping} of them already running: told to stop; the result says after which line"
            ));
        }
        refused.iter().for_each(|(_, failure)| ui.failure(failure));
    } else {
        let refused: Vec<_> = refused.iter().map(|(id, f)| json!({"id": id, "reason": f.what})).collect();
        ui.document(&json!({"canceled": canceled, "refused": refused}))?;
    }
    Ok(if refused.is_empty() { Exit::Ok } else { Exit::NotFound })
}
