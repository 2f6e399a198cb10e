//! A job's hash, read back.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::job::RetryPolicy;
use netpulse_model::{DeviceKey, Job, JobId, JobKind, Priority, QueueName, Timestamp};
use redis::Value;
use serde::de::value::{Error as TextError, StrDeserializer};
use serde::{Deserialize, Serialize};

use crate::api::QueueError;

/// The fields that make a [`Job`], in the order of [`job`]. A claim answers only the first of them.
pub(super) const JOB_FIELDS: &[&str] = &[
    "status", "queue", "device", "kind", "about", "attempt", "created", "enqueued", "started", "worker",
    "node", "ended", "result", "expires", "hidden",
];

/// What the client asked for and no script needs: one field, as JSON, because every field has its price.
#[derive(Serialize, Deserialize)]
pub(super) struct About<'a> {
    #[serde(borrow)]
    pub(super) driver: Cow<'a, str>,
    pub(super) priority: Priority,
    /// The host as the client wrote it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) command: Cow<'a, [String]>,
    /// How long it may run, microseconds.
    pub(super) timeout: u64,
    pub(super) retry: RetryPolicy,
}

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
    /// How long it may run.
    pub(super) timeout: Duration,
    pub(super) retry: RetryPolicy,
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
    let about: About<'_> =
        serde_json::from_str(need("about")?).map_err(|error| bad("about", error.to_string()))?;
    let job = Job {
        id,
        status: status.parse().map_err(|why: String| bad("status", why))?,
        queue: need("queue")?.parse::<QueueName>().map_err(|error| bad("queue", error.to_string()))?,
        device: get("device").map(device).transpose()?,
        kind: if need("kind")? == "modification" { JobKind::Modification } else { JobKind::Query },
        priority: about.priority,
        driver: about.driver.into_owned(),
        device_name: about.name.map(Cow::into_owned),
        command: Some(about.command.into_owned()),
        task_id: None,
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
        timeout: Duration::from_micros(about.timeout),
        retry: about.retry,
        job,
    }))
}
