//! A job's hash, read back.

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::job::RetryPolicy;
use netpulse_model::{DeviceKey, Job, JobId, JobKind, Priority, QueueName, Timestamp};
use redis::Value;
use serde::Deserialize;
use serde::de::value::{Error as TextError, StrDeserializer};

use crate::api::QueueError;

/// The fields that make a [`Job`], in the order of [`job`].
pub(super) const JOB_FIELDS: &[&str] = &[
    "status", "queue", "device", "kind", "priority", "driver", "name", "command", "task_id", "attempt",
    "created", "enqueued", "started", "ended", "worker", "node", "result", "expires", "hidden",
];

/// What a claim needs besides.
pub(super) const CLAIM_FIELDS: &[&str] = &["timeout", "retry", "request"];

/// A device key as it was stored.
pub(super) fn device(text: &str) -> Result<DeviceKey, QueueError> {
    DeviceKey::deserialize(StrDeserializer::<TextError>::new(text))
        .map_err(|error| QueueError::Corrupt(format!("the device `{text}`: {error}")))
}

/// A text answer; none for nil.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A number answer, also where it comes as text.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// The items of a list answer; none of them when it is no list.
pub(super) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

/// A job with what is not shown.
pub(super) struct Record {
    pub(super) job: Job,
    /// Where it runs or ran.
    pub(super) node: Option<String>,
    /// When its end is forgotten.
    pub(super) expires: Option<Timestamp>,
    /// Its end is forgotten already.
    pub(super) hidden: bool,
}

/// Reads [`JOB_FIELDS`]; none when there is no such job.
pub(super) fn job(id: JobId, values: &[Value]) -> Result<Option<Record>, QueueError> {
    let bad = |what: &str, why: String| QueueError::Corrupt(format!("job {id}, field `{what}`: {why}"));
    let at = |name: &str| JOB_FIELDS.iter().position(|field| *field == name).and_then(|at| values.get(at));
    let get = |name: &str| at(name).and_then(text);
    let Some(status) = get("status") else {
        return Ok(None);
    };
    let need = |name: &str| get(name).ok_or_else(|| bad(name, "it is missing".into()));
    let time = |name: &str| at(name).and_then(number).map(Timestamp);
    let job = Job {
        id,
        status: status.parse().map_err(|why: String| bad("status", why))?,
        queue: need("queue")?.parse::<QueueName>().map_err(|error| bad("queue", error.to_string()))?,
        device: get("device").map(device).transpose()?,
        kind: if need("kind")? == "modification" { JobKind::Modification } else { JobKind::Query },
        priority: match need("priority")? {
            "high" => Priority::High,
            "low" => Priority::Low,
            _ => Priority::Normal,
        },
        driver: need("driver")?.to_owned(),
        device_name: get("name").map(str::to_owned),
        command: Some(
            serde_json::from_str(need("command")?).map_err(|error| bad("command", error.to_string()))?,
        ),
        task_id: get("task_id").map(str::to_owned),
        attempt: at("attempt").and_then(number).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        created_at: time("created").ok_or_else(|| bad("created", "it is missing".into()))?,
        // Until it is put back it was put into its queue when it was accepted.
        enqueued_at: time("enqueued").or_else(|| time("created")),
        started_at: time("started"),
        ended_at: time("ended"),
        worker: get("worker").map(str::to_owned),
        result: get("result")
            .map(|json| serde_json::from_str(json).map(Arc::new))
            .transpose()
            .map_err(|error| bad("result", error.to_string()))?,
    };
    Ok(Some(Record {
        node: get("node").map(str::to_owned),
        expires: time("expires"),
        hidden: get("hidden").is_some(),
        job,
    }))
}

/// What [`CLAIM_FIELDS`] hold.
pub(super) struct Request {
    pub(super) timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) sealed: Vec<u8>,
}

/// Reads [`CLAIM_FIELDS`], which follow [`JOB_FIELDS`].
pub(super) fn request(values: &[Value]) -> Request {
    let own = values.get(JOB_FIELDS.len()..).unwrap_or_default();
    let timeout = own.first().and_then(number).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let retry = own.get(1).and_then(text).and_then(|json| serde_json::from_str(json).ok());
    let sealed = match own.get(2) {
        Some(Value::BulkString(bytes)) => bytes.clone(),
        _ => Vec::new(),
    };
    Request { timeout: Duration::from_micros(timeout), retry: retry.unwrap_or_default(), sealed }
}
