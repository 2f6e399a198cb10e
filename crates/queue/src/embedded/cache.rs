//! Recent ends kept in memory, so that reading a result does not touch the disk.

use std::collections::{HashMap, VecDeque};

use netpulse_model::{Job, JobId, Timestamp};

struct Entry {
    job: Job,
    bytes: usize,
    expires_at: Timestamp,
}

/// The latest ends, up to so many bytes.
pub(super) struct Cache {
    entries: HashMap<JobId, Entry>,
    order: VecDeque<JobId>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, limit }
    }

    /// Keeps an end whose result takes `result` bytes as JSON; it is on disk already.
    pub(super) fn insert(&mut self, job: Job, result: usize, expires_at: Timestamp) {
        // The job itself and what keeping it costs, roughly.
        let commands: usize = job.command.iter().flatten().map(|line| line.len() + 24).sum();
        let bytes = result.saturating_add(800 + commands);
        if bytes > self.limit {
            return;
        }
        let id = job.id;
        if let Some(old) = self.entries.insert(id, Entry { job, bytes, expires_at }) {
            self.bytes -= old.bytes;
        } else {
            self.order.push_back(id);
        }
        self.bytes += bytes;
        while self.bytes > self.limit {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }

    /// The job, unless its time has come.
    pub(super) fn get(&self, id: JobId, now: Timestamp) -> Option<&Job> {
        self.entries.get(&id).filter(|entry| entry.expires_at > now).map(|entry| &entry.job)
    }
}
