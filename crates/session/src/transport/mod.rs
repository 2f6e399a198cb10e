//! Bytes to and from a device, whatever carries them.
//!
//! [`ssh`] and [`telnet`] open connections; both hand out a [`Transport`], which the conversation
//! reads and writes. [`hostkeys`] remembers which key a device showed. [`testing`] replays
//! recorded bytes.

pub mod hostkeys;
pub mod ssh;
pub mod telnet;
pub mod testing;

mod inbox;
mod tcp;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::SessionError;

/// A two-way byte stream to a device's command line. The bytes are the terminal's: SSH channel
/// data, or Telnet data with every negotiation already taken out.
#[async_trait]
pub trait Transport: Send {
    /// Sends all of `data`, within `deadline`.
    ///
    /// # Errors
    /// `SessionLost` when the stream is closed, `ReadTimeout` when the peer takes nothing.
    async fn send(&mut self, data: &[u8], deadline: Duration) -> Result<(), SessionError>;

    /// The next bytes, as they come; `None` when the stream has ended. Never an empty chunk.
    /// Safe to drop: nothing is lost.
    async fn recv(&mut self) -> Option<Bytes>;

    /// Asks the carrier itself for a sign of life (SSH global request, Telnet NOP).
    ///
    /// # Errors
    /// `SessionLost` when the carrier is dead.
    async fn probe(&mut self, deadline: Duration) -> Result<(), SessionError>;

    /// What the carrier knows of the peer: `SSH-2.0-OpenSSH_9.6`, or `telnet`.
    fn remote_version(&self) -> &str;

    /// Why the stream ended, when it has and is known.
    fn end_reason(&self) -> Option<String>;

    /// Whether the carrier itself logs the user in. Telnet does not: its login is text that the
    /// conversation has to answer.
    fn authenticated(&self) -> bool;

    /// Closes now; what was not sent is lost.
    async fn close(&mut self);
}

/// The terminal that a device is told it talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pty {
    /// Its type, `vt100` unless a platform wants another.
    pub term: String,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Default for Pty {
    /// Wide enough that no device wraps a line, high enough that few start to page.
    fn default() -> Self {
        Self { term: "vt100".to_owned(), width: 511, height: 1000 }
    }
}
