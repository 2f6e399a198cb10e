//! A job: one request to one device, from acceptance to result.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::device::{DeviceKey, QueueName};
use crate::result::JobResult;
use crate::time::Timestamp;

/// A job's identity, a UUID.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits in its queue.
    Queued,
    /// A worker has it.
    Started,
    /// Done as asked (a query's non-zero exit status on Linux is a result, not a failure).
    Finished,
    /// Not done, or not wholly: `result.error` says why, `result.outcome` what took effect.
    Failed,
    /// Waits for something else than its turn (kept for upstream's vocabulary).
    Deferred,
    /// Waits for a point in time: the next try.
    Scheduled,
    /// Upstream's word for a stopped job; ours end `canceled`.
    Stopped,
    /// Canceled, before or while it ran.
    Canceled,
}

impl JobStatus {
    /// All, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Deferred,
        Self::Scheduled,
        Self::Started,
        Self::Finished,
        Self::Failed,
        Self::Stopped,
        Self::Canceled,
    ];

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Deferred => "deferred",
            Self::Scheduled => "scheduled",
            Self::Stopped => "stopped",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Stopped | Self::Canceled)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobStatus {
    type Err = String;

    /// Accepts the British spelling too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.to_ascii_lowercase();
        let text = if text == "cancelled" { "canceled" } else { text.as_str() };
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|s| s.as_str()).collect();
            format!("`{text}` is no job status: expected one of {}", words.join(", "))
        })
    }
}

/// Whether a job changes the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Reads only: may be run again after a lost worker.
    Query,
    /// Changes the device: never pushed twice.
    Modification,
}

/// Who goes first among the jobs of one queue.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before the others.
    High,
    /// In order of acceptance.
    #[default]
    Normal,
    /// After the others.
    Low,
}

impl Priority {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// How often a query is tried again after a failed connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RetryPolicy {
    /// Tries after the first; 0 means none.
    pub max: u32,
    /// Seconds before each; the last one is used again. Empty means 1, 2, 4, ... up to 60.
    pub intervals: Vec<f64>,
}

impl RetryPolicy {
    /// Seconds to wait before try number `attempt + 1`, where `attempt` tries have been made.
    #[must_use]
    pub fn delay_after(&self, attempt: u32) -> f64 {
        let index = attempt.saturating_sub(1) as usize;
        match self.intervals.get(index).or(self.intervals.last()) {
            Some(seconds) => *seconds,
            None => f64::from(1_u32 << attempt.saturating_sub(1).min(6)).min(60.0),
        }
    }
}

/// What is known of a job without opening its payload. Holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// The queue it waits or waited in.
    pub queue: QueueName,
    /// The device it is for; absent only where a driver has none.
    pub device: Option<DeviceKey>,
    /// Whether it changes the device.
    pub kind: JobKind,
    /// Its place among others.
    pub priority: Priority,
    /// The driver's name.
    pub driver: String,
    /// The host as the client wrote it.
    pub device_name: Option<String>,
    /// The commands or lines, with secrets masked.
    pub command: Option<Vec<String>>,
    /// The detached task it belongs to.
    pub task_id: Option<String>,
    /// How often it was started.
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was put into its queue.
    pub enqueued_at: Option<Timestamp>,
    /// When a worker took it (the last time).
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who took it.
    pub worker: Option<String>,
    /// Its result: there exactly when the status is final.
    pub result: Option<std::sync::Arc<JobResult>>,
}

impl Job {
    /// Seconds it ran, when known.
    #[must_use]
    pub fn duration(&self) -> Option<f64> {
        Some(self.ended_at?.seconds_since(self.started_at?))
    }

    /// Seconds it waited, when known.
    #[must_use]
    pub fn queue_time(&self) -> Option<f64> {
        Some(self.started_at?.seconds_since(self.enqueued_at?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_back_and_both_spellings_count() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse::<JobStatus>().unwrap(), status);
        }
        assert_eq!("cancelled".parse::<JobStatus>().unwrap(), JobStatus::Canceled);
        assert!("done".parse::<JobStatus>().unwrap_err().contains("queued"));
    }

    #[test]
    fn retries_back_off() {
        let default = RetryPolicy::default();
        let delays: Vec<f64> = (1..9).map(|n| default.delay_after(n)).collect();
        assert_eq!(delays, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        let own = RetryPolicy { max: 9, intervals: vec![0.5, 3.0] };
        assert_eq!([own.delay_after(1), own.delay_after(2), own.delay_after(3)], [0.5, 3.0, 3.0]);
    }
}
