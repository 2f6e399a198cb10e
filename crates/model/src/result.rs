//! What came of a job.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ErrorInfo;

/// What a modification did to the device, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it took effect.
    Applied,
    /// None of it took effect.
    NotApplied,
    /// The lines whose exit status is 0 took effect, the others did not.
    Partial,
    /// It cannot be known from here: look at the device before pushing again.
    Unknown,
}

impl Outcome {
    /// The word as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::NotApplied => "not_applied",
            Self::Partial => "partial",
            Self::Unknown => "unknown",
        }
    }
}

/// One command's or one configuration line's result (upstream: `DriverExecutionResult`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExecutionResult {
    /// What was sent.
    pub command: String,
    /// What the device answered: text for CLI drivers, an object for API drivers.
    pub stdout: Value,
    /// The error text, empty when there was none.
    pub stderr: String,
    /// 0 when the device accepted it; the real exit status on Linux; 1 for a refused line.
    pub exit_status: i32,
    /// Where a downloaded file can be fetched.
    #[serde(default)]
    pub download_url: Option<String>,
    /// At least `host`, `duration_seconds` (3 decimals) and `session_reused`.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// What the parser made of stdout.
    #[serde(default)]
    pub parsed: Option<Value>,
}

impl ExecutionResult {
    /// A result with its text, exit status 0 and empty metadata.
    pub fn ok(command: impl Into<String>, stdout: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            stdout: Value::String(stdout.into()),
            stderr: String::new(),
            exit_status: 0,
            download_url: None,
            metadata: Map::new(),
            parsed: None,
        }
    }

    /// A result that failed: exit status 1 with the reason in `stderr`.
    pub fn failed(command: impl Into<String>, stderr: impl Into<String>) -> Self {
        Self { exit_status: 1, stderr: stderr.into(), ..Self::ok(command, "") }
    }
}

/// How a job ended, as a number (the upstream's `result.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultType {
    /// 1
    Successful,
    /// 2
    Failed,
    /// 3
    Stopped,
    /// 4
    Retried,
}

impl ResultType {
    /// The number in today's API.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Successful => 1,
            Self::Failed => 2,
            Self::Stopped => 3,
            Self::Retried => 4,
        }
    }

    /// The word in webhooks and in the early API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Successful => "successful",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Retried => "retried",
        }
    }
}

impl Serialize for ResultType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for ResultType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self::Successful),
            2 => Ok(Self::Failed),
            3 => Ok(Self::Stopped),
            4 => Ok(Self::Retried),
            other => Err(serde::de::Error::custom(format!("{other} is no result type (1 to 4)"))),
        }
    }
}

/// A job's result: what each line gave, why it failed, and what a modification did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobResult {
    /// How it ended: 1 successful, 2 failed, 3 stopped, 4 retried.
    #[serde(rename = "type")]
    #[schema(value_type = u8, minimum = 1, maximum = 4)]
    pub kind: ResultType,
    /// One entry per command or line, also when the job failed part way.
    pub retval: Option<Vec<ExecutionResult>>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// For modifications: what took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}
