//! `netpulse job`: one job, whole.

use clap::Args;

use crate::api::Api;
use crate::exec;
use crate::exit::Outcome;
use crate::ui::{Tone, Ui, plain, seconds};
use crate::view::{self, text};

/// Show a job with all its results
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse job 6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55
  netpulse job 6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55 --wait 60 -o json

Exits 0 unless the job failed or was canceled (1). A job that has not ended yet is no failure.")]
pub struct JobArgs {
    /// The job's id
    #[arg(value_name = "ID", value_parser = crate::jobs::job_id)]
    id: String,
    /// Seconds to wait for its end
    #[arg(short, long, default_value_t = 0, value_name = "SECONDS")]
    wait: u64,
}

pub async fn run(args: JobArgs, api: &Api, ui: &Ui) -> Outcome {
    let job = api.job(&args.id, args.wait).await?;
    if !ui.for_people() {
        ui.document(&job)?;
    } else {
        ui.note_toned(
            &format!("{} on {}", view::commands(&job).join("; "), view::device(&job)),
            Tone::Strong,
        );
        for (label, key) in [
            ("queue", "queue"),
            ("worker", "worker"),
            ("accepted", "created_at"),
            ("started", "started_at"),
            ("ended", "ended_at"),
            ("waited", "queue_time"),
        ] {
            let Some(value) = job.get(key).filter(|value| !value.is_null()) else { continue };
            let shown = match value.as_f64() {
                Some(number) => seconds(number),
                None if key.ends_with("_at") => view::moment(&plain(value)),
                None => plain(value),
            };
            ui.note(&format!("{label:<9}{shown}"));
        }
        if text(&job, "status") == "queued" {
            ui.note(&format!("{:<9}{}", "waits", api.why(&args.id).await?));
        }
        exec::show(ui, &job, 0);
    }
    Ok(match text(&job, "status") {
        "failed" | "canceled" | "stopped" => view::exit_of(&job),
        _ => crate::exit::Exit::Ok,
    })
}
