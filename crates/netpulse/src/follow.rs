//! Waiting for jobs: live by events, and by asking where events are not to be had.

use std::time::Duration;

use netpulse_model::event::What;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::api::Api;
use crate::exit::{Exit, Failure};
use crate::ui::{Tone, Ui};
use crate::view;

/// Seconds that one request for a job's end is held by the server.
const HOLD: u64 = 20;

/// What an event's `stdout` is cut at; a longer one is printed from the result.
const CUT: usize = 64 * 1024;

/// Waits for the end of a job and prints its lines as they are answered, when `live`.
/// Comes with the job and how many lines were printed already.
pub async fn follow(
    api: &Api,
    ui: &Ui,
    id: &str,
    wait: Duration,
    live: bool,
) -> Result<(Value, usize), Failure> {
    let deadline = Instant::now() + wait;
    let mut printed = 0;
    let waiting = async {
        if live {
            // Without events there are still results: the reason is not the user's concern.
            if let Err(failure) = print_live(api, ui, id, &mut printed).await {
                tracing::debug!(%failure, "no live lines");
            }
        }
        until_the_end(api, id).await
    };
    tokio::select! {
        done = timeout_at(deadline, waiting) => match done {
            Ok(job) => Ok((job?, printed)),
            Err(_) => Err(Failure::new(
                Exit::Timeout,
                "wait_timeout",
                format!("job {id} has not ended within {} s; it goes on", wait.as_secs()),
            )
            .hint(format!("`netpulse watch {id}` waits on, `netpulse cancel {id}` stops it"))),
        },
        _ = tokio::signal::ctrl_c() => Err(Failure::new(
            Exit::Interrupted,
            "interrupted",
            format!("job {id} goes on without you"),
        )
        .hint(format!("`netpulse watch {id}` waits on, `netpulse cancel {id}` stops it"))),
    }
}

/// Asks for the job, each time held by the server until it ends or a while passes.
async fn until_the_end(api: &Api, id: &str) -> Result<Value, Failure> {
    loop {
        let asked = Instant::now();
        let job = api.job(id, HOLD).await?;
        if is_final(&job) {
            return Ok(job);
        }
        // A server that does not hold requests (the Python one) must not be flooded.
        if asked.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Whether nothing follows for this job.
pub fn is_final(job: &Value) -> bool {
    view::text(job, "status")
        .parse::<netpulse_model::JobStatus>()
        .is_ok_and(netpulse_model::JobStatus::is_final)
}

/// Prints each line of the job when it is answered, up to the first that an event cannot hold whole.
async fn print_live(api: &Api, ui: &Ui, id: &str, printed: &mut usize) -> Result<(), Failure> {
    let mut events = api.events(Some(id))?;
    let mut whole = true;
    while let Some(event) = events.next().await? {
        match event.what {
            What::Line { index, total, command, stdout, stderr, exit_status } => {
                let size = stdout.as_str().map_or(0, str::len);
                whole &= size < CUT && index == *printed;
                if whole {
                    let result = json!({"command": command, "stdout": stdout, "stderr": stderr, "exit_status": exit_status});
                    view::print_result(ui, index, total, &result);
                    *printed += 1;
                }
            }
            What::Retrying { reason, attempt, delay } => {
                ui.note_toned(&format!("try {attempt} follows in {delay:.0} s: {reason}"), Tone::Busy);
                (*printed, whole) = (0, true);
            }
            What::Ended { .. } => return Ok(()),
            What::Queued { .. } | What::Started { .. } | What::Sending { .. } | What::Undelivered { .. } => {}
        }
    }
    Ok(())
}
