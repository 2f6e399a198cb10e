//! Configuration, line by line: what was accepted, what was refused, and what took effect.

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::{ErrorCode, Outcome};
use regex::bytes::Regex;
use tokio::time::Instant;

use super::Session;
use super::stream::{Found, Want};
use crate::SessionError;
use crate::platform::schema::{Block, Step};
use crate::platform::{Mode, Platform};

/// How to send a configuration.
#[derive(Debug, Clone)]
pub struct ConfigOptions {
    /// From sending a line to its prompt.
    pub read_timeout: Duration,
    /// Replaces the platform's patterns for refused lines.
    pub errors: Option<Vec<Regex>>,
    /// Replaces the command that enters configuration mode.
    pub enter: Option<String>,
    /// Enter configuration mode. Without it the lines are sent in the mode the session is in.
    pub enter_mode: bool,
    /// Lines that match only wait for their echo: a text without prompts follows.
    pub bypass: Option<Regex>,
    /// Save the running configuration when everything was accepted.
    pub save: bool,
    /// Leave the prompt out of the answers.
    pub strip_prompt: bool,
    /// Leave the line's echo out of the answers.
    pub strip_command: bool,
}

impl Default for ConfigOptions {
    fn default() -> Self {
        Self {
            read_timeout: Duration::from_secs(10),
            errors: None,
            enter: None,
            enter_mode: true,
            bypass: None,
            save: false,
            strip_prompt: true,
            strip_command: true,
        }
    }
}

/// What became of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineState {
    /// The device took it.
    Accepted,
    /// The device refused it; the last line of what it said.
    Rejected(String),
    /// Not sent; which line was the reason, if one was.
    Skipped(Option<usize>),
    /// Sent, and no answer came: it may or may not have taken effect.
    Unknown(String),
}

/// One line and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineReport {
    /// The line.
    pub line: String,
    /// What the device answered.
    pub output: Vec<u8>,
    /// What became of it.
    pub state: LineState,
    /// From sending to the answer.
    pub took: Duration,
}

/// What came of a configuration.
#[derive(Debug, Clone)]
pub struct ConfigReport {
    /// One per line, in order.
    pub lines: Vec<LineReport>,
    /// Why it was not done as asked.
    pub error: Option<SessionError>,
    /// What took effect.
    pub outcome: Outcome,
    /// Not one line was sent.
    pub untouched: bool,
    /// What commit (or discard) and save printed.
    pub epilogue: Vec<u8>,
    /// The running configuration was saved.
    pub saved: bool,
}

/// Who wants to know how it goes.
pub trait Progress: Send {
    /// Line `index` is about to be sent; false forbids it.
    fn sending(&mut self, index: usize, line: &str) -> bool;
    /// Line `index` was answered.
    fn answered(&mut self, index: usize, report: &LineReport);
}

/// Nobody does.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn sending(&mut self, _index: usize, _line: &str) -> bool {
        true
    }
    fn answered(&mut self, _index: usize, _report: &LineReport) {}
}

/// How long a canceled change waits for the line that is on its way.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// How the sending of lines ended.
enum Sent {
    All,
    Rejected(usize),
    /// Stopped before this line.
    Stopped(usize, SessionError),
    /// In the middle of this line.
    Broken(usize, SessionError),
}

impl Session {
    /// Sends `lines` in configuration mode, judges each answer, and takes over, discards or stops.
    ///
    /// The first refused line ends it. On a platform with a candidate the candidate is discarded
    /// then, elsewhere the rest is not sent. Configuration mode is always left, and the prompt is
    /// back before anything is saved.
    pub async fn config(
        &mut self,
        lines: &[String],
        options: &ConfigOptions,
        progress: &mut dyn Progress,
    ) -> ConfigReport {
        let platform = Arc::clone(&self.stream.platform);
        let mut report = ConfigReport {
            lines: Vec::with_capacity(lines.len()),
            error: None,
            outcome: Outcome::NotApplied,
            untouched: true,
            epilogue: Vec::new(),
            saved: false,
        };
        let enters = options.enter_mode && (platform.has_config() || options.enter.is_some());
        if let Err(error) = self.enter_config(options, enters).await {
            report.error = Some(error);
            skip_rest(&mut report.lines, lines, None);
            return report;
        }
        let sent = self.send_lines(lines, options, progress, &mut report).await;
        let candidate = platform.rules.config.candidate.as_ref().filter(|c| enters && c.commit.is_some());
        let applied_by = platform
            .rules
            .config
            .candidate
            .as_ref()
            .and_then(|c| c.applied_by.as_ref())
            .filter(|_| candidate.is_none());
        let done = report
            .lines
            .iter()
            .filter(|l| {
                l.state == LineState::Accepted && applied_by.is_none_or(|p| p.is_match(l.line.as_bytes()))
            })
            .count();
        let stopped_after = |any: usize| if any == 0 { Outcome::NotApplied } else { Outcome::Partial };
        match sent {
            Sent::All => match candidate {
                Some(_) => self.commit(&platform, &mut report).await,
                None => report.outcome = Outcome::Applied,
            },
            Sent::Rejected(index) => {
                let said = match &report.lines[index].state {
                    LineState::Rejected(said) => said.clone(),
                    _ => String::new(),
                };
                let mut message = format!(
                    "{}: line {} of {} was rejected: `{}`: {said}",
                    self.stream.label,
                    index + 1,
                    lines.len(),
                    self.stream.quote(lines[index].as_bytes())
                );
                report.outcome = stopped_after(done);
                if candidate.is_some() {
                    self.discard_into(&platform, &mut report, &mut message).await;
                }
                report.error = Some(SessionError::new(ErrorCode::LineRejected, message));
            }
            Sent::Stopped(index, error) => {
                let mut message = if index == 0 {
                    format!("{}; no line was sent", error.message)
                } else {
                    format!("{}; stopped between line {index} and line {}", error.message, index + 1)
                };
                report.outcome = stopped_after(done);
                if candidate.is_some() && self.usable() {
                    self.discard_into(&platform, &mut report, &mut message).await;
                } else if candidate.is_some() {
                    report.outcome = Outcome::NotApplied;
                }
                report.error = Some(SessionError::new(error.kind, message));
            }
            Sent::Broken(index, error) => {
                let mut message =
                    format!("{}; line {} of {} was in flight", error.message, index + 1, lines.len());
                if candidate.is_some() {
                    // Nothing takes effect before the commit, which was not sent.
                    report.outcome = Outcome::NotApplied;
                    if self.usable() {
                        self.discard_into(&platform, &mut report, &mut message).await;
                    } else {
                        message.push_str("; nothing was committed, but the device may keep the candidate");
                    }
                } else {
                    report.outcome = Outcome::Unknown;
                }
                report.error = Some(SessionError::new(error.kind, message));
            }
        }
        // Only a line that went wrong is the reason for those after it.
        let because = report.lines.last().is_some_and(|l| l.state != LineState::Accepted);
        let because = because.then(|| report.lines.len() - 1);
        skip_rest(&mut report.lines, lines, because);
        let save = options.save && report.error.is_none();
        let inside = platform.rules.save.in_config.unwrap_or(false);
        if save && inside {
            self.save_into(&mut report).await;
        }
        // Lines may open levels also where no mode was entered.
        if self.usable()
            && self.mode == Mode::Config
            && let Err(error) = self.leave_config(report.error.is_some()).await
        {
            report.error.get_or_insert(error);
        }
        if save && !inside && report.error.is_none() {
            self.save_into(&mut report).await;
        }
        report
    }

    async fn enter_config(&mut self, options: &ConfigOptions, enters: bool) -> Result<(), SessionError> {
        self.check()?;
        if !enters {
            return Ok(());
        }
        let platform = Arc::clone(&self.stream.platform);
        if self.mode == Mode::Config {
            // Somebody's commands left the session there.
            self.leave_config(false).await?;
        }
        if platform.config_is_privileged() && self.mode == Mode::Exec && platform.has_enable() {
            self.enable().await?;
        }
        let enter = options.enter.clone().or_else(|| platform.rules.config.enter.clone()).unwrap_or_default();
        let answers = platform.rules.config.answers.clone().unwrap_or_default();
        let step = Step { send: enter.clone(), answers, when_prompt: None, when_output: None };
        let said =
            self.step(&step, self.login.step_timeout.max(options.read_timeout)).await.map_err(|e| match e
                .kind
            {
                ErrorCode::ReadTimeout | ErrorCode::PromptNotFound => SessionError::new(
                    ErrorCode::ConfigModeFailed,
                    format!("Failed to enter configuration mode. {}", e.message),
                ),
                _ => e,
            })?;
        let refused = platform.rules.config.refused.iter().flatten().any(|p| p.is_match(&said));
        if refused || self.mode != Mode::Config {
            let text = self.stream.quote(&said);
            if self.mode == Mode::Config {
                self.leave_config(false).await?;
            }
            return Err(SessionError::new(
                ErrorCode::ConfigModeFailed,
                format!(
                    "{}: Failed to enter configuration mode. `{enter}` was answered with `{text}`",
                    self.stream.label
                ),
            ));
        }
        Ok(())
    }

    async fn send_lines(
        &mut self,
        lines: &[String],
        options: &ConfigOptions,
        progress: &mut dyn Progress,
        report: &mut ConfigReport,
    ) -> Sent {
        let platform = Arc::clone(&self.stream.platform);
        let terminator = self.terminator();
        let mut block: Option<End> = None;
        for (index, line) in lines.iter().enumerate() {
            if self.stream.control.cancel.is_cancelled() {
                let error =
                    SessionError::new(ErrorCode::Canceled, format!("{}: canceled", self.stream.label));
                if block.is_some() {
                    // The open text must be closed before anything else can be said.
                    if let Err(stuck) = self.recover().await {
                        return Sent::Broken(index, stuck);
                    }
                }
                return Sent::Stopped(index, error);
            }
            if self.stream.control.fence.is_cancelled() || !progress.sending(index, line) {
                let error = SessionError::new(
                    ErrorCode::SessionLost,
                    format!("{}: the right to speak to this device was lost", self.stream.label),
                );
                self.broken = Some(error.message.clone());
                return Sent::Stopped(index, error);
            }
            let before = Instant::now();
            block = match block {
                Some(end) => (!end.closes(line)).then_some(end),
                None => opened(&platform, line),
            };
            let echo_only = block.is_some()
                || options.bypass.as_ref().is_some_and(|bypass| bypass.is_match(line.as_bytes()));
            report.untouched = false;
            let result = self.one_line(line, echo_only, &terminator, options).await;
            let (output, state) = match result {
                Ok(output) => {
                    let state = match rejected(&platform, options.errors.as_deref(), &output, echo_only) {
                        Some(said) => LineState::Rejected(self.stream.quote(said.as_bytes())),
                        None => LineState::Accepted,
                    };
                    (output, state)
                }
                Err(error) => {
                    let output = self.take_partial();
                    let line_report = LineReport {
                        line: line.clone(),
                        output,
                        state: LineState::Unknown(error.message.clone()),
                        took: before.elapsed(),
                    };
                    progress.answered(index, &line_report);
                    report.lines.push(line_report);
                    return Sent::Broken(index, error);
                }
            };
            let line_report = LineReport { line: line.clone(), output, state, took: before.elapsed() };
            progress.answered(index, &line_report);
            let refused = matches!(line_report.state, LineState::Rejected(_));
            report.lines.push(line_report);
            if refused {
                return Sent::Rejected(index);
            }
        }
        Sent::All
    }

    async fn one_line(
        &mut self,
        line: &str,
        echo_only: bool,
        terminator: &str,
        options: &ConfigOptions,
    ) -> Result<Vec<u8>, SessionError> {
        let platform = Arc::clone(&self.stream.platform);
        let answers = platform.rules.config.answers.as_deref().unwrap_or_default();
        let result = async {
            self.stream.send_line(line, terminator).await?;
            // Without echoes there is nothing to wait for inside a text without prompts.
            if echo_only && self.stream.echoes == Some(false) {
                return Ok(Found::Echo);
            }
            // A line on its way is let end, so that its effect is known; its time is bounded.
            let want = Want {
                echo_only,
                replies: answers,
                ask: true,
                cancel: false,
                ..Want::prompt(options.read_timeout)
            };
            match self.stream.wait(&want).await {
                // A cancel comes into force between lines: the one on its way is let end, so that
                // what it did is known. Only one that hangs is interrupted.
                Err(canceled) if canceled.kind == ErrorCode::Canceled => {
                    let deadline = want.deadline.min(Instant::now() + CANCEL_PATIENCE);
                    let ended = self.stream.wait(&Want { cancel: false, deadline, ..want }).await;
                    ended.map_err(|error| if error.kind == ErrorCode::ReadTimeout { canceled } else { error })
                }
                other => other,
            }
        }
        .await;
        match result {
            Ok(Found::Question(row)) => {
                let error = self.unanswered(line, &row);
                self.partial = self.stream.term.text()[self.stream.answer_start()..].to_vec();
                self.after_failure(&error).await?;
                Err(error)
            }
            Ok(found) => {
                let start = self.stream.answer_start();
                let mut text = self.stream.term.take();
                if let Found::Prompt(hit) = found {
                    self.mode = hit.mode;
                    let end = if options.strip_prompt { hit.start } else { hit.start + hit.row.len() };
                    text.truncate(end.max(start).min(text.len()));
                    if options.strip_prompt {
                        self.clean(&mut text, start);
                    }
                }
                text.drain(..start.min(text.len()));
                let text = if options.strip_prompt { text.trim_ascii_end().to_vec() } else { text };
                if options.strip_command {
                    return Ok(text);
                }
                let mut whole = line.as_bytes().to_vec();
                whole.push(b'\n');
                whole.extend_from_slice(&text);
                Ok(whole)
            }
            Err(error) => {
                let error = self.stream.late(error, line, options.read_timeout, " (read_timeout)");
                self.partial = self.stream.term.text()[self.stream.answer_start()..].to_vec();
                self.after_failure_within(&error, options.read_timeout).await?;
                Err(error)
            }
        }
    }

    /// Takes the candidate over and judges by what the device says.
    async fn commit(&mut self, platform: &Platform, report: &mut ConfigReport) {
        let Some(candidate) = &platform.rules.config.candidate else { return };
        let command = candidate.commit.clone().unwrap_or_default();
        let answers = candidate.answers.clone().unwrap_or_default();
        let step = Step { send: command.clone(), answers, when_prompt: None, when_output: None };
        if self.mode != Mode::Config {
            // The last line left the mode itself; a commit would mean something else out there.
            report.outcome = Outcome::Unknown;
            report.error = Some(SessionError::new(
                ErrorCode::CommitFailed,
                format!("{}: the lines left configuration mode before the commit", self.stream.label),
            ));
            return;
        }
        // From here on a cancel comes too late: what was sent cannot be called back.
        let control = std::mem::take(&mut self.stream.control);
        self.stream.control = super::Control { fence: control.fence.clone(), ..super::Control::default() };
        let result = self.step(&step, platform.commit_timeout()).await;
        self.stream.control = control;
        match result {
            Ok(said) => {
                let failed = candidate.failures.iter().flatten().any(|p| p.is_match(&said))
                    || candidate.success.as_ref().is_some_and(|p| !p.is_match(&said))
                    || rejected(platform, None, &said, false).is_some() && candidate.success.is_none();
                report.epilogue.extend_from_slice(&said);
                if failed {
                    let mut message = format!(
                        "{}: `{command}` was refused: {}",
                        self.stream.label,
                        self.stream.quote(&said)
                    );
                    report.outcome = Outcome::NotApplied;
                    self.discard_into(platform, report, &mut message).await;
                    report.error = Some(SessionError::new(ErrorCode::CommitFailed, message));
                } else {
                    report.outcome = Outcome::Applied;
                }
            }
            Err(error) => {
                report.outcome = Outcome::Unknown;
                report.error = Some(SessionError::new(
                    error.kind,
                    format!("{}; the commit was in flight", error.message),
                ));
            }
        }
    }

    /// Throws the candidate away; the message says how that went.
    async fn discard_into(&mut self, platform: &Platform, report: &mut ConfigReport, message: &mut String) {
        report.outcome = Outcome::NotApplied;
        let commands =
            platform.rules.config.candidate.as_ref().and_then(|c| c.discard.clone()).unwrap_or_default();
        // A cancel must not stop the cleaning up.
        let control = std::mem::take(&mut self.stream.control);
        self.stream.control = super::Control { fence: control.fence.clone(), ..super::Control::default() };
        for command in commands {
            match self.plain(&command, self.login.step_timeout).await {
                Ok(said) => {
                    // What it prints is about the candidate, not about any of the lines.
                    if let Some(why) = rejected(platform, None, &said, false) {
                        message.push_str(&format!("; `{command}` was refused too: {why}"));
                    }
                }
                Err(error) => {
                    message.push_str(&format!("; the candidate could not be discarded: {}", error.message));
                    self.stream.control = control;
                    return;
                }
            }
        }
        self.stream.control = control;
        message.push_str("; the candidate was discarded, nothing took effect");
    }

    /// Leaves configuration mode from any depth.
    pub(super) async fn leave_config(&mut self, discarded: bool) -> Result<(), SessionError> {
        let platform = Arc::clone(&self.stream.platform);
        let rules = &platform.rules.config;
        let exit_discard = rules.candidate.as_ref().and_then(|c| c.exit_discard.clone());
        let normal = rules.exit.clone().unwrap_or_else(|| "exit".to_owned());
        // Where one word leaves one level only, several levels may be open.
        let mut tries = vec![normal; 6];
        match exit_discard {
            Some(other) if discarded => tries.insert(0, other),
            Some(other) => tries.insert(1, other),
            None => {}
        }
        let answers = rules.answers.clone().unwrap_or_default();
        let control = std::mem::take(&mut self.stream.control);
        self.stream.control = super::Control { fence: control.fence.clone(), ..super::Control::default() };
        let mut result = Ok(());
        for send in tries {
            if self.mode != Mode::Config {
                break;
            }
            let step = Step { send, answers: answers.clone(), when_prompt: None, when_output: None };
            result = self.step(&step, self.login.step_timeout).await.map(|_| ());
            if result.is_err() {
                break;
            }
        }
        self.stream.control = control;
        result?;
        if self.mode == Mode::Config {
            let why = "the device stays in configuration mode".to_owned();
            self.broken = Some(why.clone());
            return Err(SessionError::new(
                ErrorCode::ConfigModeFailed,
                format!("{}: {why}", self.stream.label),
            ));
        }
        Ok(())
    }

    /// Saves the running configuration for the next start.
    ///
    /// # Errors
    /// `SaveFailed` when the device says so or does not say that it did; what it said is in the
    /// message.
    pub async fn save(&mut self) -> Result<Vec<u8>, SessionError> {
        self.check()?;
        let platform = Arc::clone(&self.stream.platform);
        let rules = &platform.rules.save;
        let mut said = Vec::new();
        let failed = |session: &Self, why: &str| {
            SessionError::new(
                ErrorCode::SaveFailed,
                format!("{}: saving failed: {why}", session.stream.label),
            )
        };
        let Some(steps) = rules.commands.as_ref().filter(|c| !c.is_empty()) else {
            return Err(failed(self, &format!("platform {} has no command for it", platform.name)));
        };
        let inside = rules.in_config.unwrap_or(false);
        if inside && self.mode != Mode::Config {
            let enter = platform.rules.config.enter.clone().unwrap_or_default();
            self.plain(&enter, self.login.step_timeout).await?;
        } else if !inside && self.mode == Mode::Config {
            self.leave_config(false).await?;
        }
        for step in steps {
            match self.step(step, platform.save_timeout()).await {
                Ok(text) => said.extend_from_slice(&text),
                Err(error) if error.kind == ErrorCode::SessionLost => return Err(error),
                Err(error) => return Err(failed(self, &error.message)),
            }
        }
        let refused = rejected(&platform, None, &said, false).or_else(|| {
            rules.failures.iter().flatten().find(|p| p.is_match(&said)).map(|_| last_line(&said))
        });
        if let Some(why) = refused {
            return Err(failed(self, &self.stream.quote(why.as_bytes())));
        }
        if rules.success.as_ref().is_some_and(|p| !p.is_match(&said)) {
            return Err(failed(
                self,
                &format!("the device did not confirm it: {}", self.stream.quote(&said)),
            ));
        }
        Ok(said)
    }

    async fn save_into(&mut self, report: &mut ConfigReport) {
        let platform = Arc::clone(&self.stream.platform);
        if platform.rules.save.commands.as_ref().is_none_or(Vec::is_empty) && platform.has_candidate() {
            // A commit saves by itself.
            report.saved = true;
            return;
        }
        match self.save().await {
            Ok(said) => {
                report.saved = true;
                report.epilogue.extend_from_slice(&said);
            }
            Err(error) => report.error = Some(error),
        }
    }
}

fn skip_rest(reports: &mut Vec<LineReport>, lines: &[String], because: Option<usize>) {
    for line in &lines[reports.len()..] {
        reports.push(LineReport {
            line: line.clone(),
            output: Vec::new(),
            state: LineState::Skipped(because),
            took: Duration::ZERO,
        });
    }
}

/// The lines that `items` hold: an item may be a whole rendered template. Empty lines are left
/// out, except inside texts without prompts (banners), where they count.
#[must_use]
pub fn config_lines(platform: &Platform, items: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut block: Option<End> = None;
    for line in items.iter().flat_map(|item| item.split('\n')).map(|line| line.trim_end_matches('\r')) {
        if block.is_none() && line.trim().is_empty() {
            continue;
        }
        block = match block {
            Some(end) => (!end.closes(line)).then_some(end),
            None => opened(platform, line),
        };
        lines.push(line.to_owned());
    }
    lines
}

/// How a text without prompts ends.
enum End {
    Contains(Vec<u8>),
    Matches(crate::platform::Pattern),
}

impl End {
    fn closes(&self, line: &str) -> bool {
        match self {
            Self::Contains(mark) => memchr::memmem::find(line.as_bytes(), mark).is_some(),
            Self::Matches(pattern) => pattern.is_match(line.as_bytes()),
        }
    }
}

/// Whether `line` opens a text without prompts that does not end on the same line.
fn opened(platform: &Platform, line: &str) -> Option<End> {
    for Block { start, end } in platform.rules.config.blocks.iter().flatten() {
        let Some(captures) = start.regex().and_then(|r| r.captures(line.as_bytes())) else { continue };
        if let Some(mark) = captures.name("end") {
            let rest = &line.as_bytes()[mark.end()..];
            if memchr::memmem::find(rest, mark.as_bytes()).is_some() {
                return None;
            }
            return Some(End::Contains(mark.as_bytes().to_vec()));
        }
        return end.clone().map(End::Matches);
    }
    None
}

/// The last line of the answer, when the answer means refused.
fn rejected(platform: &Platform, own: Option<&[Regex]>, answer: &[u8], echo_only: bool) -> Option<String> {
    if echo_only || answer.is_empty() {
        return None;
    }
    let rules = &platform.rules.config;
    let warnings = rules.warnings.as_deref().unwrap_or_default();
    let judged: Vec<u8>;
    let answer = if own.is_none() && warnings.iter().any(|w| w.is_match(answer)) {
        let kept: Vec<&[u8]> =
            answer.split(|b| *b == b'\n').filter(|line| !warnings.iter().any(|w| w.is_match(line))).collect();
        judged = kept.join(&b'\n');
        &judged
    } else {
        answer
    };
    let hit = match own {
        Some(errors) => errors.iter().any(|e| e.is_match(answer)),
        None => rules.errors.iter().flatten().any(|e| e.is_match(answer)),
    };
    hit.then(|| {
        // What follows the error may be about something else.
        let patterns: Vec<&Regex> = match own {
            Some(errors) => errors.iter().collect(),
            None => rules.errors.iter().flatten().filter_map(crate::platform::Pattern::regex).collect(),
        };
        let telling = |row: &[u8]| {
            row.iter().any(u8::is_ascii_alphanumeric) && patterns.iter().any(|p| p.is_match(row))
        };
        answer.split(|b| *b == b'\n').rfind(|row| telling(row)).map_or_else(|| last_line(answer), last_line)
    })
}

fn last_line(text: &[u8]) -> String {
    let line = text
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}
