//! What happens to a job, as it happens.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{JobId, JobStatus};
use crate::result::Outcome;
use crate::time::Timestamp;

/// Position in the event stream: grows by time, also over restarts of the server.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct EventId(pub u64);

/// One thing that happened to one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Where a watcher resumes (`Last-Event-ID`).
    pub id: EventId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which job.
    pub job: JobId,
    /// The device, when the job has one.
    pub device: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. `event` in JSON and in the server-sent event's `event:` line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// Accepted and durable.
    Queued {
        /// The queue's name.
        queue: String,
    },
    /// A worker took it.
    Started {
        /// The worker's name.
        worker: String,
        /// 1 for the first try.
        attempt: u32,
    },
    /// A line is about to be sent.
    Sending {
        /// 0 for the first line.
        index: usize,
        /// How many lines there are.
        total: usize,
        /// The line, with secrets masked.
        command: String,
    },
    /// A line was answered.
    Line {
        /// 0 for the first line.
        index: usize,
        /// How many lines there are.
        total: usize,
        /// The line, with secrets masked.
        command: String,
        /// The answer, cut at 64 KiB.
        stdout: Value,
        /// The error text, if any.
        stderr: String,
        /// 0 when accepted.
        exit_status: i32,
    },
    /// The try failed and another one follows.
    Retrying {
        /// Why the try failed.
        reason: String,
        /// The number of the next try.
        attempt: u32,
        /// Seconds until then.
        delay: f64,
    },
    /// Final: nothing follows for this job.
    Ended {
        /// `finished`, `failed` or `canceled`.
        status: JobStatus,
        /// For modifications.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        outcome: Option<Outcome>,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        message: Option<String>,
    },
    /// Nobody could be told of the job's end: its webhook was given up. Comes after `Ended`, and
    /// changes nothing about the job.
    Undelivered {
        /// Why, and after how many attempts.
        message: String,
    },
}

impl What {
    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Started { .. } => "started",
            Self::Sending { .. } => "sending",
            Self::Line { .. } => "line",
            Self::Retrying { .. } => "retrying",
            Self::Ended { .. } => "ended",
            Self::Undelivered { .. } => "undelivered",
        }
    }
}
