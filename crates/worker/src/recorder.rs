//! What is known of a run while it goes on, so that nothing is lost when it is cut short.

use netpulse_model::event::What;
use netpulse_model::secret::{scrub, scrub_value};
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

/// What an event shows of an output: its head, with no secret that the device may have echoed. In the
/// result it stands as the device gave it.
fn head(stdout: &serde_json::Value, secrets: &[String]) -> serde_json::Value {
    match stdout {
        // Masked before it is cut: half a secret at the cut would not be found.
        serde_json::Value::String(text) if text.len() > EVENT_STDOUT => {
            let longest = secrets.iter().map(String::len).max().unwrap_or(0);
            let more = boundary(text, (EVENT_STDOUT + longest).min(text.len()));
            let clean = scrub(&text[..more], secrets);
            let end = boundary(&clean, EVENT_STDOUT.min(clean.len()));
            serde_json::Value::from(&clean[..end])
        }
        other => scrub_value(other, secrets),
    }
}

/// The last place at or before `at` where a character begins.
fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn promise_12_an_event_shows_no_secret_whatever_the_output_is() {
        let secrets = ["pl4nted-Password".to_owned()];
        let echoed = json!({"users": [{"name": "ops", "line": "ops pl4nted-Password 15"}]});
        let shown = head(&echoed, &secrets).to_string();
        assert!(!shown.contains("pl4nted") && shown.contains("ops ****** 15"), "{shown}");
        // A secret across the cut.
        for before in EVENT_STDOUT - 20..EVENT_STDOUT + 4 {
            let text = format!("{}pl4nted-Password{}", "\u{e4}".repeat(before / 2), "x".repeat(100));
            let shown = head(&json!(text), &secrets);
            let shown = shown.as_str().unwrap();
            assert!(shown.len() <= EVENT_STDOUT && !shown.contains("pl4n"), "{}", &shown[shown.len() - 40..]);
        }
    }
}
