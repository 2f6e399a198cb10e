//! A real plugin process (`mischief.py`) that is a scheduler, a webhook and a credential provider,
//! and does to each what a test tells it.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::built::Folder;

/// The plugin in a folder of plugins, and the folder through which it is told what to do.
pub struct Mischief {
    folder: Folder,
    told: tempfile::TempDir,
}

impl Mischief {
    pub fn new() -> Self {
        let folder = Folder::new().python("tests/support/mischief.py", "mischief", None);
        Self { folder, told: tempfile::tempdir().unwrap() }
    }

    /// The configuration of a server that has it.
    pub fn config(&self) -> String {
        self.folder.config(&json!({"mischief": {"folder": self.told.path()}}))
    }

    /// How the next calls of `kind` go.
    pub fn tell(&self, kind: &str, mood: &str) {
        let fresh = self.told.path().join(format!("{kind}.new"));
        std::fs::write(&fresh, mood).unwrap();
        std::fs::rename(&fresh, self.told.path().join(kind)).unwrap();
    }

    /// What it was called with.
    pub fn calls(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.told.path().join(format!("{kind}.log"))).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the calls of `kind` are as `ready` says.
    pub async fn until(
        &self,
        kind: &str,
        seconds: u64,
        what: &str,
        ready: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let calls = self.calls(kind);
            if ready(&calls) {
                return calls;
            }
            assert!(Instant::now() < end, "{what} did not happen within {seconds} s: {calls:?}");
            // Another process is being waited for: there is nothing to be notified by.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
