//! From connected to the first prompt: login in text, whatever is asked on the way, the prompt
//! learnt by asking twice, the preparing commands.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use netpulse_model::ErrorCode;
use regex::bytes::Regex;
use tokio::time::Instant;

use super::prompt::{Hit, trimmed};
use super::stream::{Fill, Found, Stream, Want};
use super::{Login, Session};
use crate::SessionError;
use crate::platform::schema::{Reply, Step};
use crate::platform::{Mode, Pattern, Platform, Registry};
use crate::transport::Transport;

/// How often the prompt is asked for before giving up.
const ASKS: usize = 8;

struct Texts {
    username: Option<Regex>,
    password: Option<Regex>,
    failed: Option<Regex>,
    /// Looks like a question for the name and is none, when a message of the day arrives in pieces.
    no_question: Option<Regex>,
}

/// What logins say when the platform's file does not.
fn texts() -> &'static Texts {
    static TEXTS: OnceLock<Texts> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let build = |p: &str| regex::bytes::RegexBuilder::new(p).unicode(false).case_insensitive(true).build().ok();
        Texts {
            username: build(r"(?:user ?name|user|login|account)(?: name)?\s*[:>]\s*$"),
            no_question: build(r"\b(?:last|previous|failed|successful) login\s*:"),
            password: build(r"pass(?:word|code|phrase)?[^:\n]{0,40}:\s*$"),
            failed: build(
                r"login incorrect|login fail|login invalid|authentication fail|bad (?:password|secret)|access denied|permission denied|(?:invalid|incorrect|wrong) (?:user|login|password|credential)|password required, but none set|too many (?:authentication|login) fail|failed to authenticate",
            ),
        }
    })
}

fn matches(own: Option<&Pattern>, standard: Option<&Regex>, bytes: &[u8]) -> bool {
    match own {
        Some(pattern) => pattern.is_match(bytes),
        None => standard.is_some_and(|r| r.is_match(bytes)),
    }
}

/// Whether the row asks for the user name.
fn asks_name(own: Option<&Pattern>, row: &[u8]) -> bool {
    let standard = texts();
    matches(own, standard.username.as_ref(), row)
        && (own.is_some() || !standard.no_question.as_ref().is_some_and(|r| r.is_match(row)))
}

impl Session {
    /// Logs in where login is text, learns the prompt, and prepares the session.
    ///
    /// # Errors
    /// `AuthenticationFailed` when user or password were refused in text, `PromptNotFound` when
    /// no prompt showed within the login timeout, `SessionLost` when the device closed.
    pub async fn open(
        transport: Box<dyn Transport>,
        platform: Arc<Platform>,
        login: Login,
    ) -> Result<Self, SessionError> {
        let mut session = Self::begin(transport, platform, login);
        let result = async {
            session.reach_prompt().await?;
            session.prepare().await
        }
        .await;
        match result {
            Ok(()) => Ok(session),
            Err(error) => {
                session.broken = Some(error.message.clone());
                session.close().await;
                Err(error)
            }
        }
    }

    fn begin(transport: Box<dyn Transport>, platform: Arc<Platform>, login: Login) -> Self {
        let mut stream = Stream::new(transport, platform, login.label.clone());
        stream.max_output = login.max_output;
        // A Telnet line ends with both, as the network virtual terminal has it.
        let plain = stream.platform.terminator() == "\n" && !stream.transport().authenticated();
        stream.line_end = login.terminator.clone().or_else(|| plain.then(|| "\r\n".to_owned()));
        stream.secrets = [Some(&login.password), login.secret.as_ref()]
            .into_iter()
            .flatten()
            .filter(|s| s.len() >= 4)
            .cloned()
            .collect();
        Self {
            stream,
            login,
            mode: Mode::Exec,
            base: Mode::Exec,
            broken: None,
            greeting: Vec::new(),
            partial: Vec::new(),
        }
    }

    pub(super) async fn reach_prompt(&mut self) -> Result<(), SessionError> {
        let deadline = Instant::now() + self.login.login_timeout;
        let authenticated = self.stream.transport().authenticated();
        let rules = self.stream.platform.rules.login.clone();
        let text_login = !authenticated || rules.in_band.unwrap_or(false);
        let mut users = 0;
        let mut passwords = 0;
        let mut asked = 0;
        // The prompt seen once, and where the text ended when it was asked for again.
        let mut first: Option<(Vec<u8>, usize)> = None;
        // What came when it was asked for is the same text, without a pattern that knows it.
        let mut twice = false;
        self.stream.term.begin(b"", false);
        let terminator = self.terminator();
        loop {
            let pause = match (&first, asked) {
                _ if twice => self.stream.pause(6, 60, 400),
                // Asked already: the device may be slow, but is not mute.
                (Some(_), _) => self.stream.pause(40, 1000, 3000),
                (None, 0) => Duration::from_millis(if authenticated { 700 } else { 1500 }),
                (None, _) => Duration::from_millis(2500),
            };
            let fill = self.stream.fill(deadline.min(Instant::now() + pause), true).await?;
            if Instant::now() >= deadline {
                return Err(self.no_prompt("no prompt showed in time"));
            }
            if self.stream.term.text().len() > 4 << 20 {
                return Err(self.no_prompt("the device floods the login with output"));
            }
            let row = trimmed(self.stream.term.row()).to_vec();
            let row_start = self.stream.term.row_start();
            match fill {
                Fill::Ended => {
                    return Err(if self.refused(passwords) { self.denied() } else { self.stream.lost() });
                }
                Fill::Data { more: true } => continue,
                Fill::Data { .. } => {
                    twice = false;
                    if text_login && passwords > 0 && self.refused(passwords) {
                        return Err(self.denied());
                    }
                    if row.is_empty() || row.len() > 1024 {
                        continue;
                    }
                    if self.reply_to(&rules.dialogs, &row).await? {
                        first = None;
                        continue;
                    }
                    if text_login && asks_name(rules.username.as_ref(), &row) {
                        users += 1;
                        if passwords > 0 || users > 2 {
                            return Err(self.denied());
                        }
                        let line = format!("{}{terminator}", self.login.username);
                        self.stream.term.feed(b"\n");
                        self.stream.send(line.as_bytes()).await?;
                        first = None;
                        continue;
                    }
                    if text_login && matches(rules.password.as_ref(), texts().password.as_ref(), &row) {
                        passwords += 1;
                        if passwords > 1 {
                            return Err(self.denied());
                        }
                        let line = format!("{}{terminator}", self.login.password);
                        self.stream.term.feed(b"\n");
                        self.stream.send(line.as_bytes()).await?;
                        first = None;
                        continue;
                    }
                    if self.reply_to(rules.shells.as_deref().unwrap_or_default(), &row).await? {
                        first = None;
                        continue;
                    }
                    let hit = self.stream.prompt_hit();
                    match (&hit, &first) {
                        (Some(hit), Some((seen, end))) if hit.start >= *end && seen == hit.identity() => {
                            let hit = hit.clone();
                            return self.learnt(&hit, Some(hit.mode)).await;
                        }
                        (Some(_), Some((_, end))) if row_start < *end => {}
                        (Some(hit), _) => {
                            let prompt = hit.identity().to_vec();
                            asked += 1;
                            if asked > ASKS {
                                return Err(self.no_prompt("every answer to Enter was another one"));
                            }
                            first = Some((prompt, self.stream.term.text().len()));
                            self.stream.send(terminator.as_bytes()).await?;
                        }
                        (None, Some((seen, end))) => {
                            twice = row_start >= *end && *seen == row && looks_final(&row);
                        }
                        (None, None) => {}
                    }
                }
                Fill::Quiet if twice => {
                    // No pattern knows it, but the same text came twice, and nothing behind it: a
                    // pause in the middle of a prompt shows its beginning twice, too.
                    self.stream.learnt.learn_literal(&row);
                    let Some(hit) = self.stream.prompt_hit() else {
                        return Err(self.no_prompt("the prompt cannot be told"));
                    };
                    return self.learnt(&hit, None).await;
                }
                Fill::Quiet => {
                    // A console waits for Enter, a slow device is waited for, an unknown prompt
                    // is asked for twice.
                    asked += 1;
                    if asked > ASKS {
                        return Err(self.no_prompt("nothing that is a prompt came after Enter"));
                    }
                    let at = self.stream.term.text().len();
                    first = (!row.is_empty()).then_some((row, at));
                    self.stream.send(terminator.as_bytes()).await?;
                }
            }
        }
    }

    async fn reply_to(&mut self, replies: impl IntoReplies<'_>, row: &[u8]) -> Result<bool, SessionError> {
        let platform = Arc::clone(&self.stream.platform);
        let terminator = self.terminator();
        let found = replies
            .replies()
            .iter()
            .chain(platform.pagers())
            .chain(platform.questions())
            .find(|reply| reply.pattern.is_match(row))
            .map(|reply| reply.bytes(&terminator));
        let Some(bytes) = found else { return Ok(false) };
        self.stream.term.feed(b"\n");
        self.stream.send(&bytes).await?;
        Ok(true)
    }

    /// Remembers the prompt, and whether this is another platform than was said.
    async fn learnt(&mut self, hit: &Hit, mode: Option<Mode>) -> Result<(), SessionError> {
        let registry = match &self.login.registry {
            Some(registry) => Some(Arc::clone(registry)),
            None => Registry::builtin().ok(),
        };
        let becomes =
            self.stream.platform.rules.becomes.iter().flatten().find(|b| b.prompt.is_match(&hit.row));
        if let Some(name) = becomes.map(|b| b.platform.clone())
            && let Some(platform) = registry.and_then(|r| r.platform(&name).ok())
        {
            self.stream.platform = platform;
        }
        let mut greeting = self.stream.term.take();
        greeting.truncate(16 << 10);
        self.greeting = greeting;
        if mode.is_some() {
            self.stream.learnt.learn(hit);
            self.mode = hit.mode;
        }
        self.base = self.mode;
        Ok(())
    }

    fn refused(&self, passwords: usize) -> bool {
        let own = self.stream.platform.rules.login.failed.as_ref();
        passwords > 0 && matches(own, texts().failed.as_ref(), self.stream.term.text())
    }

    fn denied(&self) -> SessionError {
        let said = last_words(self.stream.term.text());
        SessionError::new(
            ErrorCode::AuthenticationFailed,
            format!(
                "{}: Login failed: the device refused user `{}` or its password (`{}`)",
                self.stream.label,
                self.login.username,
                self.stream.quote(&said)
            ),
        )
    }

    fn no_prompt(&self, why: &str) -> SessionError {
        let said = self.stream.quote(&last_words(self.stream.term.text()));
        SessionError::new(
            ErrorCode::PromptNotFound,
            format!(
                "{}: {why}; the last text was `{said}`. Is device_type `{}` right, or does the device ask something first?",
                self.stream.label, self.stream.platform.name
            ),
        )
    }

    /// Runs the platform's preparing commands. Errors in their answers are tolerated: pagers are
    /// answered anyway.
    pub(super) async fn prepare(&mut self) -> Result<(), SessionError> {
        let platform = Arc::clone(&self.stream.platform);
        if platform.rules.enable.at_login.unwrap_or(false) && self.mode == Mode::Exec && platform.has_enable()
        {
            if let Err(error) = self.enable().await {
                if !self.usable() {
                    return Err(error);
                }
                tracing::debug!(device = %self.stream.label, %error, "not privileged at login");
            }
            self.base = self.mode;
        }
        let mut last = Vec::new();
        for step in platform.prepare() {
            let applies = step.when_prompt.as_ref().is_none_or(|p| p.is_match(&self.stream.learnt.row))
                && step.when_output.as_ref().is_none_or(|p| p.is_match(&last));
            if applies {
                last = self.step(step, self.login.step_timeout).await?;
            }
        }
        Ok(())
    }

    /// Sends one step, answers its questions, and gives its output.
    pub(super) async fn step(&mut self, step: &Step, limit: Duration) -> Result<Vec<u8>, SessionError> {
        let terminator = self.terminator();
        self.stream.send_line(&step.send, &terminator).await?;
        let want = Want { replies: &step.answers, ask: true, ..Want::prompt(limit) };
        match self.stream.wait(&want).await {
            Ok(Found::Prompt(hit)) => {
                self.mode = hit.mode;
                let start = self.stream.answer_start();
                let mut text = self.stream.term.take();
                text.truncate(hit.start.max(start));
                self.clean(&mut text, start);
                text.drain(..start.min(text.len()));
                Ok(text)
            }
            Ok(Found::Question(text)) => {
                let error = self.unanswered(&step.send, &text);
                self.recover().await?;
                Err(error)
            }
            Ok(_) => Ok(self.stream.term.take()),
            Err(error) => {
                let error = self.stream.late(error, &step.send, limit, "");
                self.after_failure(&error).await?;
                Err(error)
            }
        }
    }
}

/// The end of what the device said, on one line.
fn last_words(text: &[u8]) -> Vec<u8> {
    let rows: Vec<&[u8]> = text.split(|b| *b == b'\n').map(trimmed).filter(|r| !r.is_empty()).collect();
    let from = rows.len().saturating_sub(2);
    rows[from..].join(&b" / "[..])
}

/// A row that no platform pattern matches can still be a prompt, unless it asks for something.
fn looks_final(row: &[u8]) -> bool {
    let standard = texts();
    row.last().is_some_and(|last| !last.is_ascii_alphanumeric() && !b":?.,".contains(last))
        && !standard.username.as_ref().is_some_and(|r| r.is_match(row))
        && !standard.password.as_ref().is_some_and(|r| r.is_match(row))
}

trait IntoReplies<'a> {
    fn replies(self) -> &'a [Reply];
}

impl<'a> IntoReplies<'a> for &'a [Reply] {
    fn replies(self) -> &'a [Reply] {
        self
    }
}

impl<'a> IntoReplies<'a> for &'a Option<Vec<Reply>> {
    fn replies(self) -> &'a [Reply] {
        self.as_deref().unwrap_or_default()
    }
}
