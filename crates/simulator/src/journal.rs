//! What the devices received, in the order they received it: the history that tests judge by.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use chrono::{SecondsFormat, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A TCP connection was accepted.
    Connect,
    /// A user came in; `line` is the user's name.
    Login,
    /// A user was turned away; `line` is the user's name.
    LoginFailed,
    /// A whole line was received at a prompt.
    Line,
    /// Enter at a prompt with nothing typed.
    Empty,
    /// A key that acts by itself: `^C`, `^D`, a key at a pager or a pause.
    Key,
    /// An answer to a question (a confirmation, a password, which shows as `****`).
    Answer,
    /// A command over an exec channel.
    Exec,
    /// The line was refused; `line` repeats it.
    Rejected,
    /// The candidate became the running configuration.
    Commit,
    /// The candidate was thrown away.
    Discard,
    /// An unconfirmed commit was taken back.
    Rollback,
    /// Running was copied to startup.
    Save,
    /// The device went down to come up again.
    Reboot,
    /// A fault acted; `line` names it.
    Fault,
    /// The connection ended; `line` holds what had been typed and not been ended by Enter.
    Close,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up by one over all devices, from 1, without gaps.
    pub seq: u64,
    /// UTC, microseconds, RFC 3339.
    pub time: String,
    /// The device's index, from 0.
    pub device: u32,
    /// The connection's number on that device, from 1; 0 when none was concerned.
    pub connection: u64,
    /// What happened.
    pub kind: Kind,
    /// The text, without line ending.
    pub line: String,
    /// The mode before.
    pub before: String,
    /// The mode after.
    pub after: String,
}

/// Where entries go: a ring in memory and, when asked, a file of JSON lines.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalOptions {
    /// Appended to; created when missing.
    pub file: Option<PathBuf>,
    /// Entries kept in memory; 0 means 200,000. [`Journal::dropped`] tells whether older ones were pushed out.
    pub keep: usize,
    /// Nothing is recorded at all (for figures).
    pub off: bool,
}

struct Inner {
    ring: VecDeque<Entry>,
    file: Option<File>,
    seq: u64,
    dropped: u64,
    failed: Option<String>,
}

/// The journal of one simulator.
pub struct Journal {
    inner: Mutex<Inner>,
    keep: usize,
    off: bool,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("keep", &self.keep).field("off", &self.off).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the file when one is named.
    pub fn open(options: &JournalOptions) -> std::io::Result<Journal> {
        let file = match &options.file {
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let keep = if options.keep == 0 { 200_000 } else { options.keep };
        Ok(Journal {
            inner: Mutex::new(Inner { ring: VecDeque::new(), file, seq: 0, dropped: 0, failed: None }),
            keep,
            off: options.off,
        })
    }

    /// Adds one entry. The order of the calls is the order of the file and the ring.
    pub(crate) fn add(
        &self,
        device: u32,
        connection: u64,
        kind: Kind,
        line: &str,
        before: &str,
        after: &str,
    ) {
        if self.off {
            return;
        }
        let mut inner = self.inner.lock();
        inner.seq += 1;
        // Taken inside the lock, so that times never run backwards along the sequence.
        let entry = Entry {
            seq: inner.seq,
            time: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
            device,
            connection,
            kind,
            line: line.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        if let Some(file) = inner.file.as_mut() {
            // Unbuffered: what the device received must survive the end of the process.
            let written = serde_json::to_vec(&entry).map_err(std::io::Error::other).and_then(|mut bytes| {
                bytes.push(b'\n');
                file.write_all(&bytes)
            });
            if let Err(error) = written {
                tracing::error!(%error, "the simulator's journal file can no longer be written");
                inner.failed = Some(error.to_string());
                inner.file = None;
            }
        }
        if inner.ring.len() >= self.keep {
            inner.ring.pop_front();
            inner.dropped += 1;
        }
        inner.ring.push_back(entry);
    }

    /// Everything kept in memory, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.inner.lock().ring.iter().cloned().collect()
    }

    /// What one device saw, oldest first.
    pub fn device(&self, device: u32) -> Vec<Entry> {
        self.inner.lock().ring.iter().filter(|e| e.device == device).cloned().collect()
    }

    /// The lines that one device received at prompts and over exec channels, oldest first.
    pub fn lines(&self, device: u32) -> Vec<String> {
        let inner = self.inner.lock();
        inner
            .ring
            .iter()
            .filter(|e| e.device == device && matches!(e.kind, Kind::Line | Kind::Exec))
            .map(|e| e.line.clone())
            .collect()
    }

    /// Entries pushed out of memory; 0 means that [`Journal::entries`] is complete.
    pub fn dropped(&self) -> u64 {
        self.inner.lock().dropped
    }

    /// Why the file is no longer written, if so.
    pub fn failure(&self) -> Option<String> {
        self.inner.lock().failed.clone()
    }

    /// Forgets what is in memory (the file stays).
    pub fn clear(&self) {
        self.inner.lock().ring.clear();
    }
}
