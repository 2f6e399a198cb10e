//! Waits on a device: reads until a prompt, a pattern or a question stands at the end, answers
//! pagers on the way, and never longer than its deadline.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use netpulse_model::{ErrorCode, secret};
use regex::bytes::Regex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::prompt::{Hit, Learnt, Sure, trimmed};
use super::terminal::{Echo, Terminal};
use crate::SessionError;
use crate::platform::schema::Reply;
use crate::platform::{Pattern, Platform};
use crate::transport::Transport;

/// How long one write to the carrier may take.
const SEND_DEADLINE: Duration = Duration::from_secs(20);
/// How much is read at once before anything is looked at.
const BURST: usize = 256 * 1024;

/// Who may stop a conversation from outside.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Stop what is running: a command that hangs is interrupted.
    pub cancel: CancellationToken,
    /// The right to speak to the device was lost: not one byte more.
    pub fence: CancellationToken,
}

/// What a wait is for. Pagers and standing questions of the platform are answered in any case.
pub(super) struct Want<'a> {
    /// A prompt.
    pub prompt: bool,
    /// A pattern anywhere in the answer.
    pub expect: Option<&'a Regex>,
    /// Patterns at the end of the answer.
    pub until: &'a [&'a Pattern],
    /// Questions with their answers.
    pub replies: &'a [Reply],
    /// The echo alone.
    pub echo_only: bool,
    /// An unknown question ends the wait.
    pub ask: bool,
    /// Silence with something on the last row ends the wait, too.
    pub silence: bool,
    /// A cancel is heeded.
    pub cancel: bool,
    /// No longer than this.
    pub deadline: Instant,
}

impl Want<'_> {
    /// A prompt, within `limit`.
    pub fn prompt(limit: Duration) -> Want<'static> {
        Want {
            prompt: true,
            expect: None,
            until: &[],
            replies: &[],
            echo_only: false,
            ask: false,
            silence: false,
            cancel: true,
            deadline: Instant::now() + limit,
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Prompt(Hit),
    /// The expected pattern; the answer ends where it does.
    Expect,
    /// Which of `until`.
    Pattern(usize),
    Echo,
    /// The row that asks.
    Question(String),
    Silence,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Data { more: bool },
    Quiet,
    Ended,
}

pub(super) struct Stream {
    transport: Box<dyn Transport>,
    pub term: Terminal,
    pub platform: Arc<Platform>,
    pub learnt: Learnt,
    pub control: Control,
    /// Whether the device repeats what it is sent; unknown at first.
    pub echoes: Option<bool>,
    /// The shortest time from a line to the first byte of its answer.
    rtt: Option<Duration>,
    sent_at: Instant,
    pub max_output: usize,
    ended: bool,
    /// What must not stand in any message.
    pub secrets: Vec<String>,
    /// `host:port` for messages.
    pub label: String,
    /// What ends a line, where it is not what the platform says.
    pub line_end: Option<String>,
}

/// What devices ask when a command needs an answer.
fn question() -> Option<&'static Regex> {
    static QUESTION: OnceLock<Option<Regex>> = OnceLock::new();
    QUESTION
        .get_or_init(|| {
            regex::bytes::RegexBuilder::new(
                r"(?x)(?: \[confirm\] | [\[(]\s*y(?:es)?\s*[/|,]\s*no?\b[^\])]{0,20}[\])] | \by(?:es)?/no?\b
                  | \b(?:continue|proceed|sure)\b[^?]{0,40}\? | \[[^\]\[]{0,60}\]\s*\? | press\s(?:any\skey|enter|return)[^:]{0,60}
                  | pass(?:word|phrase)[^:]{0,60}: ) [\s:?.\])]*$",
            )
            .unicode(false)
            .case_insensitive(true)
            .build()
            .ok()
        })
        .as_ref()
}

impl Stream {
    pub fn new(transport: Box<dyn Transport>, platform: Arc<Platform>, label: String) -> Self {
        Self {
            transport,
            term: Terminal::default(),
            platform,
            learnt: Learnt::default(),
            control: Control::default(),
            echoes: None,
            rtt: None,
            sent_at: Instant::now(),
            max_output: 100 << 20,
            ended: false,
            secrets: Vec::new(),
            label,
            line_end: None,
        }
    }

    /// What ends a line.
    pub fn terminator(&self) -> String {
        self.line_end.clone().unwrap_or_else(|| self.platform.terminator().to_owned())
    }

    /// `text` made fit for a message: its end, on one line, printable, no secret of ours in it.
    /// Of what is no text less is shown.
    pub fn quote(&self, text: &[u8]) -> String {
        const LOOK: usize = 4096;
        const TEXT: usize = 160;
        const JUNK: usize = 57;
        let text = trimmed(text);
        let text = &text[text.len().saturating_sub(LOOK)..];
        let mut shown = String::with_capacity(text.len());
        let mut junk = false;
        let skip = text.iter().take_while(|b| **b & 0xc0 == 0x80).count().min(3);
        for chunk in text[skip..].utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_whitespace() {
                    if !shown.ends_with(' ') {
                        shown.push(' ');
                    }
                } else if c.is_control() {
                    junk = true;
                    shown.extend(c.escape_default());
                } else {
                    shown.push(c);
                }
            }
            if !chunk.invalid().is_empty() {
                junk = true;
                shown.push_str(&chunk.invalid().escape_ascii().to_string());
            }
        }
        let shown = secret::scrub(shown.trim(), &self.secrets);
        let limit = if junk { JUNK } else { TEXT };
        match shown.char_indices().rev().nth(limit - 1) {
            Some((cut, _)) if cut > 0 => format!("{}{}", if junk { "..." } else { "" }, &shown[cut..]),
            _ => shown,
        }
    }

    /// What `wait` says when nothing came in time, with what was sent and what bounds the wait.
    pub fn late(&self, error: SessionError, sent: &str, limit: Duration, bound: &str) -> SessionError {
        if error.kind != ErrorCode::ReadTimeout {
            return error;
        }
        let prefix = format!("{}: ", self.label);
        let rest = error.message.strip_prefix(&prefix).unwrap_or(&error.message);
        let sent =
            if sent.is_empty() { "Enter".to_owned() } else { format!("`{}`", self.quote(sent.as_bytes())) };
        let seconds = limit.as_secs_f64();
        SessionError::new(error.kind, format!("{prefix}{sent}: no prompt within {seconds} s{bound}: {rest}"))
    }

    pub fn lost(&self) -> SessionError {
        let reason = self.transport.end_reason();
        let what = match reason.as_deref().map(|reason| (reason, reason.find("the device "))) {
            None => "the device closed the session".to_owned(),
            // The carrier says the same already.
            Some((reason, Some(at))) => reason[at..].to_owned(),
            Some((reason, None)) => format!("the device closed the session: {reason}"),
        };
        SessionError::new(ErrorCode::SessionLost, format!("{}: {what}", self.label))
    }

    fn fenced(&self) -> SessionError {
        SessionError::new(
            ErrorCode::SessionLost,
            format!("{}: the right to speak to this device was lost; nothing more was sent", self.label),
        )
    }

    /// Whether the stream has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn transport(&mut self) -> &mut dyn Transport {
        self.transport.as_mut()
    }

    /// A waiting time of `times` round trips, within bounds in milliseconds.
    pub fn pause(&self, times: u32, low: u64, high: u64) -> Duration {
        self.rtt
            .map_or(Duration::from_millis(high), |rtt| rtt * times)
            .clamp(Duration::from_millis(low), Duration::from_millis(high))
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.control.fence.is_cancelled() {
            return Err(self.fenced());
        }
        let fence = self.control.fence.clone();
        let sent = tokio::select! {
            biased;
            () = fence.cancelled() => return Err(self.fenced()),
            sent = self.transport.send(bytes, SEND_DEADLINE) => sent,
        };
        self.sent_at = Instant::now();
        sent.map_err(|e| SessionError::new(e.kind, format!("{}: {}", self.label, e.message)))
    }

    /// Takes what has come unasked since the last answer, and forgets it.
    pub fn drop_stale(&mut self) {
        let mut taken = 0;
        while !self.ended && taken < BURST {
            match tokio::task::unconstrained(self.transport.recv()).now_or_never() {
                Some(Some(bytes)) => taken += bytes.len(),
                Some(None) => self.ended = true,
                None => break,
            }
        }
    }

    /// Sends a line; its answer is what [`Stream::wait`] reads next.
    pub async fn send_line(&mut self, line: &str, terminator: &str) -> Result<(), SessionError> {
        self.drop_stale();
        if self.ended {
            return Err(self.lost());
        }
        self.term.begin(line.as_bytes(), self.echoes != Some(false));
        self.send(format!("{line}{terminator}").as_bytes()).await
    }

    /// Sends a secret, which is not repeated by the device.
    pub async fn send_secret(&mut self, secret: &str, terminator: &str) -> Result<(), SessionError> {
        self.drop_stale();
        self.term.begin(b"", false);
        self.send(format!("{secret}{terminator}").as_bytes()).await
    }

    /// Reads what comes, until `until` at most.
    pub async fn fill(&mut self, until: Instant, cancel: bool) -> Result<Fill, SessionError> {
        if self.ended {
            return Ok(Fill::Ended);
        }
        let Control { cancel: canceled, fence } = self.control.clone();
        let first = tokio::select! {
            biased;
            () = fence.cancelled() => return Err(self.fenced()),
            () = canceled.cancelled(), if cancel => {
                return Err(SessionError::new(ErrorCode::Canceled, format!("{}: canceled while it ran", self.label)));
            }
            chunk = self.transport.recv() => chunk,
            () = tokio::time::sleep_until(until) => return Ok(Fill::Quiet),
        };
        let Some(first) = first else {
            self.ended = true;
            return Ok(Fill::Ended);
        };
        let trip = self.sent_at.elapsed();
        if self.rtt.is_none_or(|rtt| trip < rtt) {
            self.rtt = Some(trip);
        }
        self.term.feed(&first);
        let mut taken = first.len();
        drop(first);
        // What has arrived already belongs to the same look: a prompt counts only where nothing
        // follows it.
        while taken < BURST {
            match tokio::task::unconstrained(self.transport.recv()).now_or_never() {
                Some(Some(bytes)) => {
                    taken += bytes.len();
                    self.term.feed(&bytes);
                }
                Some(None) => {
                    self.ended = true;
                    break;
                }
                None => return Ok(Fill::Data { more: false }),
            }
        }
        Ok(Fill::Data { more: taken >= BURST })
    }

    /// Looks whether the text stands at a prompt.
    pub fn prompt_hit(&self) -> Option<Hit> {
        let (start, tail) = self.term.tail(self.platform.prompt_lines());
        self.learnt.classify(&self.platform, start, tail)
    }

    /// Answers a pager or a question at the end of the text; true when there was one.
    pub async fn answer(&mut self, replies: &[Reply]) -> Result<bool, SessionError> {
        let row = trimmed(self.term.row());
        let row_start = self.term.row_start();
        if row.is_empty() || row.len() > 1024 {
            return Ok(false);
        }
        let platform = Arc::clone(&self.platform);
        for reply in platform.pagers() {
            if let Some(found) = reply.pattern.regex().and_then(|r| r.find(row)) {
                self.term.cut_pager(row_start + found.start());
                self.send(&reply.bytes(&self.terminator())).await?;
                return Ok(true);
            }
        }
        for reply in replies.iter().chain(platform.questions()) {
            if reply.pattern.is_match(row) {
                // The answer and its echo are no answer to the command; a line of their own
                // keeps the question from matching again.
                self.term.feed(b"\n");
                self.send(&reply.bytes(&self.terminator())).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads until what is wanted stands at the end.
    ///
    /// # Errors
    /// `ReadTimeout` at the deadline, `SessionLost` when the device closes or the right to send
    /// was lost, `Canceled`, `OutputTooLarge`. After any of them the device may still be busy.
    pub async fn wait(&mut self, want: &Want<'_>) -> Result<Found, SessionError> {
        let mut scanned = 0;
        let mut false_hits = 0u32;
        let mut verifying: Option<(Hit, usize)> = None;
        let mut nudged = false;
        // Silence was looked at already: nothing new to find until more bytes come.
        let mut silent = false;
        // In how many arrivals the answer came, and the longest pause between two: an answer cut
        // right behind a text that is the prompt shows only by what follows.
        let mut arrivals = 0u32;
        let mut gap = Duration::ZERO;
        let mut last_data: Option<Instant> = None;
        loop {
            let mut candidate = self.look(want, &mut scanned, &mut verifying)?;
            if candidate.is_none() && self.term.echo() != Echo::Pending && self.answer(want.replies).await? {
                continue;
            }
            // A later look may have learnt more; how long this one has to hold:
            let hold = match &candidate {
                Some((Found::Prompt(hit), Weak::No)) => {
                    let (start, length) = (self.answer_start(), hit.start);
                    let long = length.saturating_sub(start) > 1400;
                    let in_pieces = arrivals > 1;
                    let rest = (gap * 5).min(Duration::from_millis(300));
                    match (false_hits, long || in_pieces) {
                        _ if self.learnt.doubtful() => self.pause(6, 60, 400).max(rest),
                        (0, false) => Duration::ZERO,
                        (0, true) => self.pause(2, 2, 50).max(rest),
                        _ => self.pause(8, 50, 300).max(rest),
                    }
                }
                Some((_, Weak::No | Weak::Verified)) => Duration::ZERO,
                Some((_, Weak::Foreign)) => self.pause(6, 60, 400),
                Some((_, Weak::Question)) => self.pause(10, 250, 1000),
                None if self.term.echo() == Echo::Pending && self.stands_somewhere() => match self.echoes {
                    // An answer without echo ends with a prompt; anything else may be a slow echo.
                    Some(false) | None if self.prompt_hit().is_some() => self.pause(10, 150, 1500),
                    _ => self.pause(40, 500, 3000),
                },
                None => self.pause(40, 700, 3000),
            };
            if hold.is_zero()
                && let Some((found, _)) = candidate.take()
            {
                return Ok(self.accept(found));
            }
            let until = if silent && candidate.is_none() {
                want.deadline
            } else {
                want.deadline.min(Instant::now() + hold)
            };
            let now = Instant::now();
            if now >= want.deadline {
                return Err(self.timeout(want));
            }
            let mut fill = self.fill(until, want.cancel).await?;
            while fill == (Fill::Data { more: true }) && self.term.text().len() <= self.max_output {
                if Instant::now() >= want.deadline {
                    return Err(self.timeout(want));
                }
                fill = self.fill(want.deadline, want.cancel).await?;
            }
            if self.term.text().len() > self.max_output {
                return Err(SessionError::new(
                    ErrorCode::OutputTooLarge,
                    format!(
                        "{}: the output passed {} bytes and was interrupted",
                        self.label, self.max_output
                    ),
                ));
            }
            match fill {
                Fill::Data { .. } => {
                    silent = false;
                    if self.term.echo() != Echo::Pending && self.term.text().len() > self.answer_start() {
                        arrivals += 1;
                        let now = Instant::now();
                        if let Some(last) = last_data.replace(now) {
                            gap = gap.max(now - last);
                        }
                    }
                    if matches!(candidate, Some((Found::Prompt(_), Weak::No))) {
                        false_hits += 1;
                    }
                }
                Fill::Ended => {
                    // A prompt or pattern in the last bytes still counts.
                    return match self.look(want, &mut scanned, &mut verifying)? {
                        Some((found, Weak::No | Weak::Verified)) => Ok(self.accept(found)),
                        _ => Err(self.lost()),
                    };
                }
                Fill::Quiet if Instant::now() >= want.deadline => return Err(self.timeout(want)),
                Fill::Quiet => match candidate {
                    Some((Found::Prompt(hit), Weak::Foreign)) => {
                        if verifying.is_none() {
                            // Another name: ask again. The same text twice is the new prompt.
                            let end = self.term.text().len();
                            verifying = Some((hit, end));
                            let terminator = self.terminator();
                            self.send(terminator.as_bytes()).await?;
                        }
                    }
                    Some((found, _)) => return Ok(self.accept(found)),
                    None if self.term.echo() == Echo::Pending && self.stands_somewhere() => {
                        self.term.give_up_echo();
                        if self.echoes.is_none() {
                            self.echoes = Some(false);
                        }
                    }
                    None if want.silence && self.stands_somewhere() => return Ok(Found::Silence),
                    None if want.prompt && !nudged && self.prompt_passed() => {
                        // A log line was printed behind the prompt: ask for a new one.
                        nudged = true;
                        let terminator = self.terminator();
                        self.send(terminator.as_bytes()).await?;
                    }
                    None => silent = true,
                },
            }
        }
    }

    fn accept(&mut self, found: Found) -> Found {
        if matches!(self.term.echo(), Echo::Done(_)) && self.echoes.is_none() {
            self.echoes = Some(true);
        }
        if let Found::Prompt(hit) = &found {
            self.learnt.confirm(hit);
        }
        found
    }

    /// Where the answer starts, behind the echo.
    pub fn answer_start(&self) -> usize {
        match self.term.echo() {
            Echo::Done(start) => start.min(self.term.text().len()),
            _ => 0,
        }
    }

    /// Whether the last row holds anything.
    fn stands_somewhere(&self) -> bool {
        !trimmed(self.term.row()).is_empty()
    }

    /// Whether the prompt stands somewhere above the last row, which is empty.
    fn prompt_passed(&self) -> bool {
        !self.learnt.row.is_empty()
            && !self.stands_somewhere()
            && self.term.text().split(|b| *b == b'\n').any(|row| trimmed(row) == self.learnt.row.as_slice())
    }

    fn look(
        &mut self,
        want: &Want<'_>,
        scanned: &mut usize,
        verifying: &mut Option<(Hit, usize)>,
    ) -> Result<Option<(Found, Weak)>, SessionError> {
        if self.term.echo() == Echo::Pending {
            return Ok(None);
        }
        if want.echo_only && matches!(self.term.echo(), Echo::Done(_)) {
            return Ok(Some((Found::Echo, Weak::No)));
        }
        if let Some(expect) = want.expect {
            // Rows above the last are final; a little overlap finds what spans two looks.
            let text = self.term.text();
            let from = scanned.saturating_sub(4096).max(self.answer_start()).min(text.len());
            if expect.is_match(&text[from..]) {
                return Ok(Some((Found::Expect, Weak::No)));
            }
            *scanned = self.term.row_start();
        }
        let row = trimmed(self.term.row());
        if row.len() <= 1024
            && !row.is_empty()
            && let Some(index) = want.until.iter().position(|p| p.is_match(row))
        {
            return Ok(Some((Found::Pattern(index), Weak::No)));
        }
        if want.prompt
            && let Some(hit) = self.prompt_hit()
        {
            return Ok(Some(self.judge(hit, verifying)));
        }
        if want.ask || want.silence {
            let row = trimmed(self.term.row());
            let asks = row.len() <= 512 && question().is_some_and(|q| q.is_match(row));
            let answered = self.platform.pagers().iter().chain(want.replies).chain(self.platform.questions());
            if asks && !answered.into_iter().any(|reply| reply.pattern.is_match(row)) {
                return Ok(Some((Found::Question(self.quote(row)), Weak::Question)));
            }
        }
        Ok(None)
    }

    fn judge(&mut self, hit: Hit, verifying: &mut Option<(Hit, usize)>) -> (Found, Weak) {
        if hit.sure == Sure::Known {
            return (Found::Prompt(hit), Weak::No);
        }
        if let Some((first, end)) = verifying.as_ref() {
            if hit.start < *end {
                // Still the same row as the one in question.
                return (Found::Prompt(hit), Weak::Foreign);
            }
            if first.identity() == hit.identity() {
                self.learnt.learn(&hit);
                let first = Hit { sure: Sure::Known, ..first.clone() };
                return (Found::Prompt(first), Weak::Verified);
            }
            *verifying = None;
        }
        (Found::Prompt(hit), Weak::Foreign)
    }

    fn timeout(&self, want: &Want<'_>) -> SessionError {
        let pattern = match want.expect {
            Some(expect) => expect.as_str().to_owned(),
            None => self.quote(&self.learnt.row),
        };
        let row = self.quote(self.term.row());
        let seen = if row.is_empty() { String::new() } else { format!(" The last line was `{row}`.") };
        SessionError::new(
            ErrorCode::ReadTimeout,
            format!("{}: Pattern not detected: '{pattern}' in output.{seen}", self.label),
        )
    }
}

/// Whether and why a find must hold for a while before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weak {
    No,
    /// It came again when asked again: nothing is left to wait for.
    Verified,
    Foreign,
    Question,
}
