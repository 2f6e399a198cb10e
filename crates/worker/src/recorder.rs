//! What is known of a run while it goes on, so that nothing is lost when it is cut short.

use netpulse_model::event::What;
use netpulse_model::secret::scrub;
use netpulse_model::{ExecutionResult, JobId, Outcome};
use netpulse_plugin::Watch;
use netpulse_queue::{ClaimToken, Queue, Verdict};
use parking_lot::Mutex;

use crate::fence::Fence;

/// Tells the queue about each line, and remembers.
pub(crate) struct Recorder<'a> {
    queue: &'a dyn Queue,
    token: &'a ClaimToken,
    fence: &'a Fence,
    secrets: &'a [String],
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    results: Vec<ExecutionResult>,
    in_flight: Option<(usize, String)>,
    total: usize,
}

/// How far a run had come when it was cut short.
pub(crate) struct CutShort {
    /// The lines answered.
    pub(crate) results: Vec<ExecutionResult>,
    /// Where it stood, in words.
    pub(crate) place: String,
    /// What a modification did.
    pub(crate) outcome: Outcome,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(
        queue: &'a dyn Queue,
        token: &'a ClaimToken,
        fence: &'a Fence,
        secrets: &'a [String],
    ) -> Self {
        Self { queue, token, fence, secrets, seen: Mutex::default() }
    }

    /// The job it records.
    pub(crate) fn job(&self) -> JobId {
        self.token.job
    }

    /// Forgets an earlier try of the same claim.
    pub(crate) fn restart(&self) {
        *self.seen.lock() = Seen::default();
    }

    /// What is known now, for a run that will say nothing more.
    pub(crate) fn cut_short(&self) -> CutShort {
        let seen = std::mem::take(&mut *self.seen.lock());
        let mut results = seen.results;
        let (place, outcome) = match (&seen.in_flight, results.len()) {
            (None, 0) => ("before the first line was sent".to_owned(), Outcome::NotApplied),
            (None, n) => (format!("after line {n} of {}", seen.total), Outcome::Unknown),
            (Some((index, line)), _) => {
                (format!("with line {} of {} (`{line}`) on its way", index + 1, seen.total), Outcome::Unknown)
            }
        };
        if let Some((_, line)) = seen.in_flight {
            results.push(ExecutionResult::failed(line, "Sent, but its answer was not seen"));
        }
        CutShort { results, place, outcome }
    }
}

impl Watch for Recorder<'_> {
    fn sending(&self, index: usize, total: usize, line: &str) -> bool {
        if !self.fence.holds() {
            return false;
        }
        let command = scrub(line, self.secrets);
        {
            let mut seen = self.seen.lock();
            seen.in_flight = Some((index, command.clone()));
            seen.total = total;
        }
        let verdict = self.queue.progress(self.token, What::Sending { index, total, command });
        if verdict == Verdict::Stale {
            self.fence.token().cancel();
        }
        verdict == Verdict::Taken
    }

    fn answered(&self, index: usize, total: usize, result: &ExecutionResult) {
        let line = What::Line {
            index,
            total,
            command: scrub(&result.command, self.secrets),
            stdout: head(&result.stdout, self.secrets),
            stderr: scrub(&result.stderr, self.secrets),
            exit_status: result.exit_status,
        };
        {
            let mut seen = self.seen.lock();
            seen.in_flight = None;
            seen.total = total;
            seen.results.push(result.clone());
        }
        // A stale claim shows at the next line and at the end; an answer changes nothing.
        let _ = self.queue.progress(self.token, line);
    }
}

/// Bytes of an answer that an event carries.
const EVENT_STDOUT: usize = 64 * 1024;

fn head(stdout: &serde_json::Value, secrets: &[String]) -> serde_json::Value {
    match stdout {
        serde_json::Value::String(text) if text.len() > EVENT_STDOUT => {
            let mut end = EVENT_STDOUT;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            serde_json::Value::from(scrub(&text[..end], secrets))
        }
        serde_json::Value::String(text) => serde_json::Value::from(scrub(text, secrets)),
        other => other.clone(),
    }
}
