//! What can go wrong in a conversation.

use netpulse_model::ErrorCode;

/// Which step failed.
pub type SessionErrorKind = ErrorCode;

/// A failed step: its kind, and a sentence with host, port and what was seen. Never a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SessionError {
    /// Which step failed.
    pub kind: SessionErrorKind,
    /// What happened, where, what to do.
    pub message: String,
}

impl SessionError {
    /// An error of `kind` with a sentence.
    pub fn new(kind: SessionErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
