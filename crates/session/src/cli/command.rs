//! Commands, the privileged mode, and the way back when a command hangs.

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::ErrorCode;
use regex::bytes::Regex;
use tokio::time::Instant;

use super::Session;
use super::stream::{Found, Want};
use crate::SessionError;
use crate::platform::Mode;
use crate::platform::schema::Reply;

/// How to run one command.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// Ends the answer where it matches, instead of the prompt.
    pub expect: Option<Regex>,
    /// From sending to the prompt (or `expect`).
    pub read_timeout: Duration,
    /// Leave the prompt out of the output.
    pub strip_prompt: bool,
    /// Leave the command's echo out of the output.
    pub strip_command: bool,
    /// Answers to questions of this command.
    pub answers: Vec<Reply>,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            expect: None,
            read_timeout: Duration::from_secs(30),
            strip_prompt: true,
            strip_command: true,
            answers: Vec::new(),
        }
    }
}

/// What a command printed. Line ends are `\n`; bytes that are no UTF-8 are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Output {
    /// As text. Only here bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn into_text(self) -> String {
        String::from_utf8(self.bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

/// How long the way back may take, in all.
const RECOVERY: Duration = Duration::from_secs(5);
/// A slow device must have a chance to answer the interrupt, however short the wait before was.
const LEAST_RECOVERY: Duration = Duration::from_secs(1);

impl Session {
    /// Runs a command and gives what it printed. A text of several lines is sent line by line:
    /// the next one when the device stands at a prompt or asks something, so that a question can
    /// be answered by a line of its own (`reload\n\n`).
    ///
    /// # Errors
    /// `ReadTimeout`, `OutputTooLarge`, `Canceled`: the command was interrupted, the session is at
    /// its prompt again unless [`Session::usable`] says no. `PromptNotFound`: the device asks what
    /// nobody answered. `SessionLost`. What was printed until then: [`Session::take_partial`].
    pub async fn command(&mut self, text: &str, options: &CommandOptions) -> Result<Output, SessionError> {
        self.check()?;
        let terminator = self.terminator();
        let deadline = Instant::now() + options.read_timeout;
        let mut lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
        // One line end at the end of a command is how people write lines; two are an answer.
        if lines.len() == 2 && lines[1].is_empty() {
            lines.pop();
        }
        let mut collected: Vec<u8> = Vec::new();
        let last = lines.len() - 1;
        for (index, line) in lines.iter().enumerate() {
            if let Err(error) = self.stream.send_line(line, &terminator).await {
                self.after_failure(&error).await?;
                return Err(error);
            }
            let more = index < last;
            let want = Want {
                prompt: options.expect.is_none() || more,
                expect: if more { None } else { options.expect.as_ref() },
                replies: &options.answers,
                ask: options.expect.is_none() || more,
                silence: more,
                deadline,
                ..Want::prompt(Duration::ZERO)
            };
            match self.stream.wait(&want).await {
                Ok(Found::Question(row)) if !more => {
                    let error = self.unanswered(line, &row);
                    self.partial = std::mem::take(&mut collected);
                    self.partial.extend_from_slice(self.stream.term.text());
                    self.recover().await?;
                    return Err(error);
                }
                Ok(found) => {
                    let prompt_at = match found {
                        Found::Prompt(hit) => {
                            self.mode = hit.mode;
                            Some(hit.start)
                        }
                        Found::Expect => {
                            // The prompt may stand there all the same.
                            self.stream.prompt_hit().map(|hit| hit.start)
                        }
                        _ => None,
                    };
                    let keep_prompt = !options.strip_prompt || more;
                    self.collect(
                        &mut collected,
                        line,
                        prompt_at,
                        keep_prompt,
                        options.strip_command && index == 0,
                    );
                }
                Err(error) => {
                    let error = self.stream.late(error, line, options.read_timeout, " (read_timeout)");
                    self.partial = std::mem::take(&mut collected);
                    self.partial.extend_from_slice(&self.stream.term.text()[self.stream.answer_start()..]);
                    self.after_failure_within(&error, options.read_timeout).await?;
                    return Err(error);
                }
            }
        }
        Ok(Output { bytes: collected })
    }

    /// Moves the answer of `line` behind what was collected so far.
    fn collect(
        &mut self,
        into: &mut Vec<u8>,
        line: &str,
        prompt_at: Option<usize>,
        keep_prompt: bool,
        strip: bool,
    ) {
        let start = self.stream.answer_start();
        let echoed = start > 0;
        let mut text = self.stream.term.take();
        if let Some(at) = prompt_at {
            let at = at.clamp(start, text.len());
            if keep_prompt {
                text.truncate(at + self.stream.learnt.row.len().min(text.len() - at));
            } else {
                text.truncate(at);
                self.clean(&mut text, start);
                if text.len() > start && text.last() == Some(&b'\n') {
                    text.pop();
                }
            }
        }
        text.drain(..start.min(text.len()));
        if !strip && echoed {
            into.extend_from_slice(line.as_bytes());
            into.push(b'\n');
        }
        if into.is_empty() {
            *into = text;
        } else {
            into.extend_from_slice(&text);
        }
    }

    /// Cuts the platform's context lines off the end of an answer.
    pub(super) fn clean(&self, text: &mut Vec<u8>, start: usize) {
        for pattern in self.stream.platform.rules.clean.iter().flatten() {
            let from = start.max(text.len().saturating_sub(1024)).min(text.len());
            let Some(regex) = pattern.regex() else { continue };
            let cleaned = match regex.replace_all(&text[from..], &b""[..]) {
                std::borrow::Cow::Borrowed(_) => continue,
                std::borrow::Cow::Owned(cleaned) => cleaned,
            };
            text.truncate(from);
            text.extend_from_slice(&cleaned);
        }
    }

    /// Enters the privileged mode; nothing to do when the session is there.
    ///
    /// # Errors
    /// `EnableFailed`: no such mode, no secret, or the wrong one. The session stays usable.
    pub async fn enable(&mut self) -> Result<(), SessionError> {
        self.check()?;
        if self.mode != Mode::Exec {
            return Ok(());
        }
        let platform = Arc::clone(&self.stream.platform);
        let rules = &platform.rules.enable;
        let Some(command) = rules.command.clone() else {
            return Err(self.enable_failed("the platform has no such mode"));
        };
        let default_password = default_password()?;
        let password = rules.password.as_ref().unwrap_or(&default_password);
        let terminator = self.terminator();
        let mut until = vec![password];
        until.extend(rules.username.as_ref());
        let mut said_until = usize::MAX;
        let result: Result<(), SessionError> = async {
            self.stream.send_line(&command, &terminator).await?;
            let mut asked = 0;
            loop {
                let want = Want { until: &until, ..Want::prompt(self.login.step_timeout) };
                match self.stream.wait(&want).await? {
                    Found::Pattern(1) => {
                        let user = self.login.username.clone();
                        self.stream.send_line(&user, &terminator).await?;
                    }
                    Found::Pattern(_) if asked == 0 => {
                        asked += 1;
                        let secret = self.login.secret.clone().unwrap_or_default();
                        self.stream.send_secret(&secret, &terminator).await?;
                    }
                    // Asked again: the secret was wrong. Enter until it gives up.
                    Found::Pattern(_) if asked < 5 => {
                        asked += 1;
                        self.stream.send_secret("", &terminator).await?;
                    }
                    Found::Prompt(hit) => {
                        said_until = hit.start;
                        let success =
                            rules.success.as_ref().is_some_and(|p| p.is_match(self.stream.term.text()));
                        self.mode = if success && hit.mode == Mode::Exec { Mode::Enable } else { hit.mode };
                        return Ok(());
                    }
                    _ => return Err(self.enable_failed("the device goes on asking for the secret")),
                }
            }
        }
        .await;
        let answer = self.stream.term.text();
        let until = said_until.min(answer.len());
        let said = self.stream.quote(&answer[self.stream.answer_start().min(until)..until]);
        self.stream.term.take();
        if let Err(error) = result {
            self.after_failure(&error).await?;
            return Err(match error.kind {
                ErrorCode::ReadTimeout => self.enable_failed(&error.message),
                _ => error,
            });
        }
        if self.mode == Mode::Exec {
            let why = if self.login.secret.is_none() {
                "the device asks for a secret and none was given".to_owned()
            } else {
                format!("the device answered `{said}`")
            };
            return Err(self.enable_failed(&why));
        }
        Ok(())
    }

    fn enable_failed(&self, why: &str) -> SessionError {
        SessionError::new(
            ErrorCode::EnableFailed,
            format!(
                "{}: Failed to enter enable mode. Please ensure you pass the 'secret' argument: {why}",
                self.stream.label
            ),
        )
    }

    /// Goes back to the mode that the session had after login.
    ///
    /// # Errors
    /// The device does not go there; the session cannot be used any more.
    pub async fn to_base(&mut self) -> Result<(), SessionError> {
        self.check()?;
        if self.mode == Mode::Config {
            self.leave_config(false).await?;
        }
        if self.mode == Mode::Enable && self.base == Mode::Exec {
            let exit = self.stream.platform.rules.enable.exit.clone().unwrap_or_default();
            if !exit.is_empty() {
                let left = self.plain(&exit, self.login.step_timeout).await;
                // A platform whose prompt is the same in both modes shows nothing else.
                if left.is_ok() && self.stream.platform.rules.enable.success.is_some() {
                    self.mode = Mode::Exec;
                }
                left?;
            }
        }
        if self.mode == self.base || (self.mode == Mode::Exec && self.base == Mode::Enable) {
            self.base = self.mode;
            Ok(())
        } else {
            let why = format!("the device stays in {} mode", self.mode.as_str());
            self.broken = Some(why.clone());
            Err(SessionError::new(ErrorCode::SessionLost, format!("{}: {why}", self.stream.label)))
        }
    }

    /// Sends a line and waits for the prompt; the answer without the echo.
    pub(super) async fn plain(&mut self, line: &str, limit: Duration) -> Result<Vec<u8>, SessionError> {
        self.step(
            &crate::platform::schema::Step {
                send: line.to_owned(),
                answers: Vec::new(),
                when_prompt: None,
                when_output: None,
            },
            limit,
        )
        .await
    }

    pub(super) fn unanswered(&self, line: &str, question: &str) -> SessionError {
        SessionError::new(
            ErrorCode::PromptNotFound,
            format!(
                "{}: `{}` made the device ask `{question}`, and nothing answers it; give the answer as a second line of the same command, or wait for it with `expect_string`",
                self.stream.label,
                self.stream.quote(line.as_bytes())
            ),
        )
    }

    /// After a failed wait: a busy device is interrupted, a dead session is marked.
    pub(super) async fn after_failure(&mut self, error: &SessionError) -> Result<(), SessionError> {
        self.after_failure_within(error, RECOVERY).await
    }

    /// The same, where the way back may take no longer than the wait that failed.
    pub(super) async fn after_failure_within(
        &mut self,
        error: &SessionError,
        limit: Duration,
    ) -> Result<(), SessionError> {
        match error.kind {
            ErrorCode::ReadTimeout
            | ErrorCode::Canceled
            | ErrorCode::OutputTooLarge
            | ErrorCode::PromptNotFound => {
                // The failure itself is the news; whether the way back worked, `usable` tells.
                if let Err(stuck) = self.recover_within(limit).await {
                    tracing::debug!(device = %self.stream.label, %stuck, "no way back to the prompt");
                }
                Ok(())
            }
            _ => {
                self.broken = Some(error.message.clone());
                self.stream.term.take();
                Ok(())
            }
        }
    }

    /// Interrupts whatever runs and waits for the prompt: Ctrl-C, then Enter, each asked about
    /// again, because an answer to the interrupt may look like a prompt.
    ///
    /// # Errors
    /// The prompt did not come back; the session cannot be used any more.
    pub(super) async fn recover(&mut self) -> Result<(), SessionError> {
        self.recover_within(RECOVERY).await
    }

    async fn recover_within(&mut self, limit: Duration) -> Result<(), SessionError> {
        let whole = limit.clamp(LEAST_RECOVERY, RECOVERY);
        let deadline = Instant::now() + whole;
        let mut patience = whole / 2;
        let interrupt = self.stream.platform.interrupt().to_owned();
        let terminator = self.terminator();
        let tries = [interrupt.clone(), terminator.clone(), interrupt, format!("q{terminator}")];
        self.stream.term.begin(b"", false);
        self.stream.term.discard();
        let mut result = Err(self.stream.lost());
        for bytes in tries {
            if let Err(error) = self.stream.send(bytes.as_bytes()).await {
                result = Err(error);
                break;
            }
            let limit = deadline.min(Instant::now() + patience);
            patience = whole / 4;
            let want = Want { cancel: false, deadline: limit, ..Want::prompt(Duration::ZERO) };
            match self.stream.wait(&want).await {
                Ok(Found::Prompt(_)) => {
                    // Once more: only a prompt answers Enter with itself.
                    self.stream.term.begin(b"", false);
                    self.stream.term.discard();
                    if let Err(error) = self.stream.send(terminator.as_bytes()).await {
                        result = Err(error);
                        break;
                    }
                    let want = Want {
                        cancel: false,
                        deadline: limit.max(Instant::now() + whole / 8),
                        ..Want::prompt(Duration::ZERO)
                    };
                    match self.stream.wait(&want).await {
                        Ok(Found::Prompt(hit)) => {
                            self.mode = hit.mode;
                            result = Ok(());
                            break;
                        }
                        Ok(_) => {}
                        Err(error) => result = Err(error),
                    }
                }
                Ok(_) => {}
                Err(error) => result = Err(error),
            }
            if self.stream.has_ended() || Instant::now() >= deadline {
                break;
            }
        }
        self.stream.term.take();
        if let Err(error) = &result {
            self.broken = Some(error.message.clone());
        }
        result
    }
}

fn default_password() -> Result<crate::platform::Pattern, SessionError> {
    crate::platform::Pattern::new(r"(?i)assw(?:or)?d[^:]{0,60}:?\s*$")
        .map_err(|e| SessionError::new(ErrorCode::Internal, e.to_string()))
}
