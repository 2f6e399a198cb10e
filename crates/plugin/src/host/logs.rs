//! What a plugin says on stdout and stderr: drained for its whole life, bounded, masked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netpulse_model::secret::MASK;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use zeroize::Zeroizing;

/// Bytes of a line that are kept.
const LINE: usize = 16 * 1024;
/// Lines at once.
const BURST: f64 = 200.0;
/// Lines a second after that.
const RATE: f64 = 50.0;
/// Last words kept for error messages.
const TAIL: usize = 3;
/// Lines held back at a time.
const HELD: usize = 256;
/// Secrets remembered per start, the latest.
const SECRETS: usize = 1024;

/// The secrets that were sent to a plugin.
#[derive(Default)]
pub(crate) struct Secrets(Mutex<VecDeque<Zeroizing<String>>>);

impl Secrets {
    /// Remembers what must not come back.
    pub(crate) fn add(&self, secrets: Vec<String>) {
        if secrets.is_empty() {
            return;
        }
        let mut known = self.0.lock();
        for secret in secrets {
            if known.iter().any(|k| **k == secret) {
                continue;
            }
            if known.len() == SECRETS {
                known.pop_front();
            }
            known.push_back(Zeroizing::new(secret));
        }
    }

    /// `text` with every remembered secret masked.
    pub(crate) fn clean(&self, text: &str) -> String {
        let known = self.0.lock();
        let mut clean = text.to_owned();
        for secret in known.iter() {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), MASK);
            }
        }
        clean
    }
}

/// Whose output it is, and what is known of it.
pub(crate) struct Voice {
    /// The plugin's id.
    pub(crate) id: String,
    pub(crate) secrets: Arc<Secrets>,
    tail: Mutex<VecDeque<String>>,
    plain: AtomicU64,
    held: Mutex<Held>,
}

/// Lines that wait until it is known what of them is secret.
#[derive(Default)]
struct Held {
    /// Calls that may tell us of further secrets.
    calls: usize,
    lines: Vec<String>,
    dropped: usize,
}

/// While it lives, lines wait; then they are passed on, masked by what was learned meanwhile.
pub(crate) struct Hush<'a>(&'a Voice);

impl Drop for Hush<'_> {
    fn drop(&mut self) {
        let (lines, dropped) = {
            let mut held = self.0.held.lock();
            held.calls -= 1;
            if held.calls > 0 {
                return;
            }
            (std::mem::take(&mut held.lines), std::mem::take(&mut held.dropped))
        };
        lines.iter().for_each(|line| self.0.pass_on(line));
        if dropped > 0 {
            tracing::warn!(target: "plugin", plugin = self.0.id, dropped, "lines of the plugin's log were dropped");
        }
    }
}

impl Voice {
    /// Holds lines back while a call is on its way whose answer holds secrets.
    pub(crate) fn hush(&self) -> Hush<'_> {
        self.held.lock().calls += 1;
        Hush(self)
    }

    pub(crate) fn new(id: &str) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            secrets: Arc::default(),
            tail: Mutex::default(),
            plain: AtomicU64::new(0),
            held: Mutex::default(),
        })
    }

    /// Lines that were no JSON.
    pub(crate) fn plain_lines(&self) -> u64 {
        self.plain.load(Ordering::Relaxed)
    }

    /// What it said last on stderr, for an error message; empty when nothing.
    pub(crate) fn last_words(&self) -> String {
        let tail = self.tail.lock();
        if tail.is_empty() {
            return String::new();
        }
        format!("; its last words: {}", tail.iter().cloned().collect::<Vec<_>>().join(" | "))
    }

    fn remember(&self, text: &str) {
        let mut tail = self.tail.lock();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(text.chars().take(300).collect());
    }

    /// Takes one line of stderr.
    fn log(&self, line: &str) {
        {
            let mut held = self.held.lock();
            if held.calls > 0 {
                if held.lines.len() < HELD {
                    held.lines.push(line.to_owned());
                } else {
                    held.dropped += 1;
                }
                return;
            }
        }
        self.pass_on(line);
    }

    /// Turns one line into a log record.
    fn pass_on(&self, line: &str) {
        let line = self.secrets.clean(line);
        let (level, message, fields) = read(&line);
        if !line.trim_start().starts_with('{') {
            self.plain.fetch_add(1, Ordering::Relaxed);
        }
        self.remember(&message);
        let fields = if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
        match level {
            Level::Error => tracing::error!(target: "plugin", plugin = self.id, fields, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin = self.id, fields, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin = self.id, fields, "{message}"),
            Level::Debug => tracing::debug!(target: "plugin", plugin = self.id, fields, "{message}"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// A line as level, sentence and further fields. Whatever the line is, it is never lost and never
/// a fault: a `level` that is no text counts as `info`.
fn read(line: &str) -> (Level, String, Map<String, Value>) {
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(line) else {
        return (Level::Info, line.trim_end().to_owned(), Map::new());
    };
    let level = fields.remove("level");
    let level = match level.as_ref().and_then(Value::as_str).map(str::to_ascii_lowercase).as_deref() {
        Some("error" | "err" | "fatal" | "critical" | "panic") => Level::Error,
        Some("warn" | "warning") => Level::Warn,
        Some("debug" | "trace") => Level::Debug,
        _ => Level::Info,
    };
    let message = match fields.remove("msg").or_else(|| fields.remove("message")) {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    fields.remove("time");
    (level, message, netpulse_model::secret::masked_map(&fields))
}

/// Reads a line of at most [`LINE`] bytes into `line`; the rest of a longer one is dropped.
/// False at the end of the stream.
pub(crate) async fn next_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    line.clear();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let (taken, done) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (chunk.len(), false),
        };
        let room = LINE.saturating_sub(line.len());
        let text = chunk.get(..if done { taken - 1 } else { taken }).unwrap_or_default();
        line.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
        reader.consume(taken);
        if done {
            return Ok(true);
        }
    }
}

/// A bucket of lines.
struct Bucket {
    left: f64,
    at: Instant,
    dropped: u64,
}

impl Bucket {
    fn new() -> Self {
        Self { left: BURST, at: Instant::now(), dropped: 0 }
    }

    /// Whether one more line may pass; what was dropped before it, when a flood is over.
    fn take(&mut self, now: Instant) -> Option<u64> {
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        // After a flood there must be some room first, or it would be said over and over.
        let needed = if self.dropped > 0 { RATE } else { 1.0 };
        if self.left < needed {
            self.dropped += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// Drains stderr into the log until it closes.
pub(crate) async fn drain_stderr(mut reader: impl AsyncBufRead + Unpin, voice: Arc<Voice>) {
    let mut bucket = Bucket::new();
    let mut line = Vec::new();
    loop {
        match next_line(&mut reader, &mut line).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(plugin = voice.id, %error, "stderr ended");
                break;
            }
        }
        match bucket.take(Instant::now()) {
            Some(0) => voice.log(&String::from_utf8_lossy(&line)),
            Some(dropped) => {
                tracing::warn!(target: "plugin", plugin = voice.id, dropped, "the plugin's log goes on");
                voice.log(&String::from_utf8_lossy(&line));
            }
            None if bucket.dropped == 1 => {
                tracing::warn!(target: "plugin", plugin = voice.id, "the plugin floods its log; lines are dropped");
            }
            None => {}
        }
    }
    if bucket.dropped > 0 {
        tracing::warn!(target: "plugin", plugin = voice.id, dropped = bucket.dropped, "lines of the plugin's log were dropped");
    }
}

/// Longest wait for what is left in a pipe after its process has ended.
pub(crate) const LAST_LINES: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d7_a_level_that_is_no_text_is_no_fault() {
        let (level, message, fields) = read(r#"{"level": 7, "msg": {"a": 1}, "n": 2, "password": "x"}"#);
        assert_eq!((level, message.as_str()), (Level::Info, r#"{"a":1}"#));
        assert_eq!(fields.get("n"), Some(&Value::from(2)));
        assert_eq!(fields.get("password"), Some(&Value::from(MASK)));
        assert_eq!(read("Traceback (most recent call last):").1, "Traceback (most recent call last):");
        assert_eq!(read(r#"{"level":"WARNING","msg":"x"}"#).0, Level::Warn);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_the_next_is_whole() {
        let mut text = vec![b'a'; 3 * LINE];
        text.extend_from_slice(b"\nnext\nlast");
        let mut reader = tokio::io::BufReader::with_capacity(1000, &text[..]);
        let mut line = Vec::new();
        assert!(next_line(&mut reader, &mut line).await.unwrap());
        assert_eq!(line.len(), LINE);
        assert!(next_line(&mut reader, &mut line).await.unwrap());
        assert_eq!(line, b"next");
        assert!(next_line(&mut reader, &mut line).await.unwrap());
        assert_eq!(line, b"last");
        assert!(!next_line(&mut reader, &mut line).await.unwrap());
    }

    #[test]
    fn a_flood_is_cut_and_said_once() {
        let start = Instant::now();
        let mut bucket = Bucket::new();
        let passed = (0..10_000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(passed, 200);
        assert_eq!(bucket.take(start + Duration::from_millis(200)), None);
        assert_eq!(bucket.take(start + Duration::from_secs(2)), Some(9_801));
        assert_eq!(bucket.take(start + Duration::from_secs(2)), Some(0));
    }

    #[test]
    fn promise_12_lines_wait_until_it_is_known_what_of_them_is_secret() {
        let voice = Voice::new("x");
        let (first, second) = (voice.hush(), voice.hush());
        voice.log("giving pl4nted-word");
        voice.secrets.add(vec!["pl4nted-word".into()]);
        drop(first);
        assert_eq!(voice.last_words(), "", "the second call is still on its way");
        drop(second);
        assert_eq!(voice.last_words(), "; its last words: giving ******");
        voice.log("after it");
        assert!(voice.last_words().ends_with("| after it"));
    }

    #[test]
    fn promise_12_a_secret_that_comes_back_is_masked() {
        let secrets = Secrets::default();
        secrets.add(vec!["hunter22".into()]);
        assert_eq!(secrets.clean("login hunter22 failed"), "login ****** failed");
    }
}
