//! One conversation with one device over its command line.
//!
//! [`transport`] brings bytes (SSH, Telnet); [`cli`] makes lines, prompts and modes of them after
//! the facts of a [`platform`]. Nothing here knows a job, a queue or a REST field.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cli;
pub mod platform;
pub mod transport;

mod error;

pub use error::{SessionError, SessionErrorKind};
