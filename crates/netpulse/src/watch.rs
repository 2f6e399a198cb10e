//! `netpulse watch`: what happens, as it happens.

use clap::Args;
use netpulse_model::Timestamp;
use netpulse_model::event::{Event, What};

use crate::api::Api;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Text, Tone, Ui, plain, short, tone_of};

/// Follow a job, or all jobs, as things happen
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse watch 6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55
  netpulse watch
  netpulse watch all -o json | jq 'select(.event == \"ended\")'

Following one job ends with it and exits as `netpulse exec` does; following all ends with Ctrl-C.")]
pub struct WatchArgs {
    /// A job's id, or `all`
    #[arg(value_name = "ID|all", default_value = "all", value_parser = which)]
    which: String,
    /// With `all`: begin with the oldest event that the server keeps, not with the last minute
    #[arg(long)]
    from_start: bool,
}

/// Seconds of the past that `all` begins with: enough for clocks that differ a little.
const RECENT: i64 = 60;

fn which(text: &str) -> Result<String, String> {
    if text == "all" { Ok(text.to_owned()) } else { crate::jobs::job_id(text) }
}

pub async fn run(args: WatchArgs, api: &Api, ui: &Ui) -> Outcome {
    let one = (args.which != "all").then_some(args.which.as_str());
    let mut events = api.events(one)?;
    let from = Timestamp::now().plus_seconds(-RECENT);
    loop {
        let next = tokio::select! {
            next = events.next() => next?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        let Some(event) = next else {
            return Err(Failure::new(
                Exit::Unreachable,
                "events_ended",
                "the server ended the stream of events",
            ));
        };
        if one.is_none() && !args.from_start && event.at < from {
            continue;
        }
        if events.missed() {
            ui.warn("the server no longer keeps the events before this one; `netpulse jobs` knows what became of the jobs");
        }
        if ui.for_people() {
            print(ui, &event, one.is_none());
        } else {
            ui.record(&event)?;
        }
        if let (Some(_), What::Ended { status, .. }) = (one, &event.what) {
            return Ok(if status.as_str() == "finished" { Exit::Ok } else { Exit::JobFailed });
        }
    }
}

fn print(ui: &Ui, event: &Event, with_job: bool) {
    let (line, tone) = describe(event);
    let clock = event.at.to_string();
    let clock = clock.get(11..19).unwrap_or(&clock);
    let job = event.job.to_string();
    let job = if with_job { format!("{}  ", job.get(..8).unwrap_or(&job)) } else { String::new() };
    let device = event.device.as_deref().unwrap_or("-");
    ui.toned(&format!("{clock}  {job}{device:<18}  {:<8}  {line}", event.what.name()), tone);
    // Following one job, one wants its answers; following all, one line for each thing.
    if let (false, What::Line { stdout, .. }) = (with_job, &event.what) {
        let text = plain(stdout);
        if !text.trim().is_empty() {
            ui.line(text.trim_end());
        }
    }
}

fn describe(event: &Event) -> (String, Tone) {
    let Text(line, tone) = match &event.what {
        What::Queued { queue } => Text(queue.clone(), Tone::Dim),
        What::Started { worker, attempt: 1 } => Text(format!("by {worker}"), Tone::Plain),
        What::Started { worker, attempt } => Text(format!("by {worker}, try {attempt}"), Tone::Busy),
        What::Sending { index, total, command } => {
            Text(format!("[{}/{total}] {}", index + 1, short(command, 80)), Tone::Dim)
        }
        What::Line { index, total, command, stderr, exit_status, .. } => {
            let count = format!("[{}/{total}] {}", index + 1, short(command, 80));
            if *exit_status == 0 {
                Text(count, Tone::Plain)
            } else {
                Text(format!("{count}: exit status {exit_status}: {}", short(stderr, 80)), Tone::Bad)
            }
        }
        What::Retrying { reason, attempt, delay } => {
            Text(format!("try {attempt} in {delay:.0} s: {}", short(reason, 80)), Tone::Busy)
        }
        What::Ended { status, outcome, message } => {
            let outcome =
                outcome.map(|o| format!(", outcome: {}", o.as_str().replace('_', " "))).unwrap_or_default();
            let message = message.as_deref().map(|m| format!(": {}", short(m, 120))).unwrap_or_default();
            Text(format!("{status}{outcome}{message}"), tone_of(status.as_str()))
        }
        What::Undelivered { message } => Text(format!("webhook {}", short(message, 120)), Tone::Bad),
    };
    (line, tone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpulse_model::event::EventId;
    use netpulse_model::{JobId, JobStatus, Outcome};

    #[test]
    fn each_thing_that_happens_is_one_line() {
        let told = |what| {
            describe(&Event { id: EventId(1), at: Timestamp(0), job: JobId::random(), device: None, what }).0
        };
        assert_eq!(told(What::Started { worker: "w".into(), attempt: 2 }), "by w, try 2");
        let line = What::Line {
            index: 1,
            total: 3,
            command: "vlan 5000".into(),
            stdout: "x".into(),
            stderr: "% Bad".into(),
            exit_status: 1,
        };
        assert_eq!(told(line), "[2/3] vlan 5000: exit status 1: % Bad");
        let ended = What::Ended {
            status: JobStatus::Failed,
            outcome: Some(Outcome::NotApplied),
            message: Some("a\nb".into()),
        };
        assert_eq!(told(ended), "failed, outcome: not applied: a b");
    }
}
