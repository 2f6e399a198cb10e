//! The catalogue of what can go wrong with a job, each with a stable code.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// Why a job did not do what was asked. The text form is stable: programs match on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[doc = $doc])+ $name),+ }

        impl ErrorCode {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable text, `snake_case`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What the code means and what to do, one paragraph.
            #[must_use]
            pub fn explain(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

codes! {
    /// The device did not answer on its address and port: check host, port, route and firewall.
    ConnectFailed = "connect_failed",
    /// The device did not answer, or refused this login, several times in a row: it is left alone until the time that the message names (`worker.breaker_failures`, `worker.breaker_pause`); nothing was sent.
    BreakerOpen = "breaker_open",
    /// The device refused user, password or key: check the credential; NetPulse does not try it again.
    AuthenticationFailed = "authentication_failed",
    /// The credential's provider refused the secret to NetPulse, or the configuration does not allow its path: nothing was sent to the device.
    CredentialDenied = "credential_denied",
    /// There is no secret where the credential points, or it lacks a field: nothing was sent to the device.
    CredentialNotFound = "credential_not_found",
    /// The credential's provider did not answer: nothing was sent to the device; the job's `retry` tries again.
    CredentialUnavailable = "credential_unavailable",
    /// The device's host key is not the one stored: verify the new key out of band, then remove the old one from the store that the message names.
    HostKeyChanged = "host_key_changed",
    /// The device's host key is unknown and the policy is `strict`: add it to the store, or use `accept-new`.
    HostKeyUnknown = "host_key_unknown",
    /// No common SSH algorithm, or the SSH or Telnet handshake broke off: try `ssh_profile: legacy`.
    HandshakeFailed = "handshake_failed",
    /// No prompt was recognised after login: check `device_type`, or whether the device asks something first.
    PromptNotFound = "prompt_not_found",
    /// Privileged mode was not reached: check `secret`.
    EnableFailed = "enable_failed",
    /// Configuration mode was not reached: check privilege, or whether somebody holds the lock.
    ConfigModeFailed = "config_mode_failed",
    /// The prompt (or `expect_string`) did not come within `read_timeout`.
    ReadTimeout = "read_timeout",
    /// The device answered a configuration line with an error; later lines were not sent.
    LineRejected = "line_rejected",
    /// The commit was refused; the candidate was discarded.
    CommitFailed = "commit_failed",
    /// The lines were applied, but saving them to the start-up configuration failed.
    SaveFailed = "save_failed",
    /// The connection broke while the job ran.
    SessionLost = "session_lost",
    /// The command's output passed the limit that the message names; it was interrupted.
    OutputTooLarge = "output_too_large",
    /// The job ran longer than its `execution_timeout`.
    JobTimeout = "job_timeout",
    /// The job waited in its queue longer than its `ttl` and was never started.
    ExpiredInQueue = "expired_in_queue",
    /// The job was canceled; the message says between which lines.
    Canceled = "canceled",
    /// The process that ran the job was lost: a query is run again, a modification is not.
    WorkerLost = "worker_lost",
    /// The template could not be rendered.
    RenderFailed = "render_failed",
    /// The output could not be parsed; stdout is kept.
    ParseFailed = "parse_failed",
    /// No driver of that name.
    UnknownDriver = "unknown_driver",
    /// No platform of that name (`device_type`): `netpulse platforms` lists them.
    UnknownPlatform = "unknown_platform",
    /// The request was wrong in a way that only the worker could see.
    BadRequest = "bad_request",
    /// What was asked for is not available in this version.
    NotSupported = "not_supported",
    /// A plugin crashed, hung or answered nonsense.
    PluginFailed = "plugin_failed",
    /// A defect in NetPulse: please report it with the job id.
    Internal = "internal",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A store written by a later version may know more codes than we do.
        Ok(Self::ALL.iter().copied().find(|c| c.as_str() == text).unwrap_or(Self::Internal))
    }
}

/// What a failed job says: `{"type": code, "message": sentence}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorInfo {
    /// The stable code.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "connect_failed")]
    pub code: ErrorCode,
    /// What happened, where, and what to do. Never a secret.
    pub message: String,
}

impl ErrorInfo {
    /// An error of `code` with a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ErrorInfo {}
