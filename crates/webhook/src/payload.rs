//! The message: what a receiver is told.

use netpulse_model::webhook::Notice;
use netpulse_model::{Job, JobStatus};
use serde_json::{Map, Value, json};

/// The message about a job that has ended; the same every time it is asked for.
///
/// `legacy` is the early API's shape, `{id, status, result, device, driver, command}`, with `result`
/// as one text.
#[must_use]
pub fn payload(job: &Job, notice: &Notice, legacy: bool) -> Value {
    if legacy { early(job) } else { standard(job, notice) }
}

/// The name of what happened.
fn event(job: &Job) -> &'static str {
    if job.status == JobStatus::Finished { "job.completed" } else { "job.failed" }
}

fn standard(job: &Job, notice: &Notice) -> Value {
    let result = job.result.as_deref();
    let mut told = Map::new();
    told.insert("type".into(), result.map(|result| result.kind.word()).into());
    told.insert("retval".into(), json!(result.and_then(|result| result.retval.as_ref())));
    told.insert("error".into(), json!(result.and_then(|result| result.error.as_ref())));
    if let Some(outcome) = result.and_then(|result| result.outcome) {
        told.insert("outcome".into(), outcome.as_str().into());
    }
    json!({
        "id": job.id,
        "status": job.status,
        "event_type": event(job),
        "final": true,
        // Of the end, not of the attempt: every attempt says the same.
        "timestamp": job.ended_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "duration": job.duration(),
        "result": told,
        "device": {"host": job.device_name, "device_type": notice.device_type},
        "task_id": job.task_id,
        "device_name": job.device_name,
        "command": job.command,
    })
}

fn early(job: &Job) -> Value {
    let result = job.result.as_deref();
    let failed = result.and_then(|result| result.error.as_ref()).map(|error| error.message.clone());
    let outputs = || {
        let items = result.and_then(|result| result.retval.as_deref()).unwrap_or_default();
        let texts = items.iter().map(|item| match &item.stdout {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        texts.collect::<Vec<_>>().join("\n")
    };
    json!({
        "id": job.id,
        "status": if job.status == JobStatus::Finished { "success" } else { "failed" },
        "result": failed.unwrap_or_else(outputs),
        "device": job.device_name,
        "driver": job.driver,
        "command": job.command,
    })
}
