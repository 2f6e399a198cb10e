//! Doing the work: one command or line after another, one result each.

use std::time::{Duration, Instant};

use netpulse_model::secret::MASK;
use netpulse_model::{ErrorCode, ErrorInfo, ExecutionResult, Outcome};
use netpulse_plugin::{Report, Run, Work};
use netpulse_session::transport::Pty;
use netpulse_session::transport::ssh::{Exec, ExecOptions, ExecOutput, Exit, Overflow};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Session;
use super::args::{self, Args};
use super::command::{compose, end_the_others};
use crate::connect::{error_info, not_sent};

/// For the server to open a channel and start a command.
const START: Duration = Duration::from_secs(30);

/// For a command to take the password that it asked for.
const INPUT: Duration = Duration::from_secs(10);

/// For a command to end after it was told to.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// For a command when neither it nor its job has a time of its own.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How one command went.
enum Ran {
    /// It ended by itself.
    Ended(ExecutionResult),
    /// It never reached the server.
    NotStarted(ErrorInfo),
    /// It was stopped, or lost, and may have done anything. What it said is kept.
    Broken { result: ExecutionResult, error: ErrorInfo, usable: bool },
    /// The right to send was lost: everything was dropped.
    Fenced,
}

impl Session {
    pub(super) async fn execute(&mut self, run: Run<'_>) -> Report {
        let (lines, changes) = match &run.work {
            Work::Commands(lines) => (lines.clone(), false),
            Work::Config(lines) => (lines.clone(), true),
        };
        let mut args = match args::read(&run.request.driver_args) {
            Ok(args) => args,
            Err(errors) => {
                let mut report =
                    Report::untouched(ErrorCode::BadRequest, netpulse_model::fields::sentence(&errors));
                report.outcome = changes.then_some(Outcome::NotApplied);
                report.reusable = true;
                return report;
            }
        };
        if args.timeout.is_none() {
            args.timeout = run.request.execution_timeout.map(Duration::from_secs);
        }
        let connected = self.warnings.len();
        self.warnings.extend(args::unused(run.request));
        let report = self.each(&run, &args, &lines, changes).await;
        self.warnings.truncate(connected);
        report
    }

    async fn each(&mut self, run: &Run<'_>, args: &Args, lines: &[String], changes: bool) -> Report {
        let mut ledger =
            Ledger { lines, changes, report: Report { reusable: true, ..Report::default() }, doubt: false };
        for (index, line) in lines.iter().enumerate() {
            if run.cancel.is_cancelled() {
                return ledger.canceled_before(index);
            }
            if run.fence.is_cancelled() || !run.watch.sending(index, lines.len(), line) {
                return ledger.fenced(index);
            }
            match self.one(line, args, run).await {
                Ran::Ended(result) => {
                    run.watch.answered(index, lines.len(), &result);
                    let failed = result.exit_status != 0;
                    ledger.report.results.push(result);
                    if failed && changes && args.stop_on_error {
                        return ledger.skip_after(index);
                    }
                }
                Ran::NotStarted(error) => return ledger.not_started(index, error),
                Ran::Broken { result, error, usable } => {
                    run.watch.answered(index, lines.len(), &result);
                    ledger.report.results.push(result);
                    return ledger.broken(index, error, usable);
                }
                Ran::Fenced => {
                    self.connection.cut();
                    return ledger.fenced(index + 1);
                }
            }
        }
        ledger.finished()
    }

    /// Runs one command to its end, its deadline, its bound or the job's cancel.
    async fn one(&mut self, line: &str, args: &Args, run: &Run<'_>) -> Ran {
        let started = Instant::now();
        let composed = compose(line, args, &mark(line));
        let options = ExecOptions {
            command: composed.line,
            pty: args.get_pty.then(Pty::default),
            environment: Vec::new(),
            limit: self.max_output,
        };
        let starting = self.connection.exec(&options, START);
        let exec = tokio::select! {
            exec = starting => exec,
            () = run.fence.cancelled() => return Ran::Fenced,
        };
        let mut exec = match exec {
            Ok(exec) => exec,
            Err(failed) if !failed.may_run => return Ran::NotStarted(error_info(failed.error)),
            Err(failed) => {
                let mut result = ExecutionResult::failed(line, failed.error.message.clone());
                result.metadata = self.metadata(started, run.reused);
                return Ran::Broken { result, error: error_info(failed.error), usable: false };
            }
        };
        let limit = args.timeout.unwrap_or(LONGEST);
        let password = args.sudo_password.as_ref().or(self.login_password.as_ref());
        let supervised = supervise(&mut exec, composed.prompt.as_deref(), password, !args.get_pty);
        let stop = tokio::select! {
            stop = supervised => stop,
            () = tokio::time::sleep(limit) => Some(ErrorInfo::new(
                ErrorCode::ReadTimeout,
                format!("Command timed out: `{}` on {} ran longer than {} s and was interrupted", brief(line), self.host, limit.as_secs_f32()),
            )),
            () = run.cancel.cancelled() => Some(ErrorInfo::new(ErrorCode::Canceled, "")),
            () = run.fence.cancelled() => return Ran::Fenced,
        };
        let usable = exec.is_done() || self.end(&mut exec, args).await;
        let output = exec.take_output();
        let overflow = output.overflow;
        let exit = output.exit.clone();
        let result = self.result(line, output, args, composed.prompt.as_deref(), started, run.reused);
        let broken = |mut result: ExecutionResult, error: ErrorInfo, usable: bool| {
            if result.exit_status == 0 {
                result.exit_status = 1;
            }
            if !result.stderr.is_empty() && !result.stderr.ends_with('\n') {
                result.stderr.push('\n');
            }
            result.stderr.push_str(&error.message);
            Ran::Broken { result, error, usable }
        };
        if let Some(mut error) = stop {
            if error.code == ErrorCode::EnableFailed {
                error.message = format!("{}: {}", self.connection.place(), error.message);
            }
            return broken(result, error, usable);
        }
        if let Some(which) = overflow {
            let stream = match which {
                Overflow::Stdout => "standard output",
                Overflow::Stderr => "standard error",
            };
            let error = ErrorInfo::new(
                ErrorCode::OutputTooLarge,
                format!(
                    "the {stream} of `{}` on {} passed the limit of {} bytes (`session.max_output`); the command was interrupted",
                    brief(line),
                    self.host,
                    self.max_output
                ),
            );
            return broken(result, error, usable);
        }
        if exit == Some(Exit::Unknown)
            && let Some(lost) = exec.connection_lost()
        {
            return broken(result, error_info(lost), false);
        }
        Ran::Ended(result)
    }

    /// Ends a command that does not end by itself; true when it has ended and the connection
    /// serves on.
    async fn end(&self, exec: &mut Exec, args: &Args) -> bool {
        if self.connection.end_reason().is_some() {
            return false;
        }
        if exec.interrupt(LAST_WORDS).await {
            return true;
        }
        let password = args.sudo_password.as_ref().or(self.login_password.as_ref());
        for signal in ["TERM", "KILL"] {
            let composed = end_the_others(signal, args.sudo, &mark(signal));
            let options =
                ExecOptions { command: composed.line, pty: None, environment: Vec::new(), limit: 4096 };
            let Ok(mut other) = self.connection.exec(&options, LAST_WORDS).await else { break };
            let ending = supervise(&mut other, composed.prompt.as_deref(), password, true);
            let _slow = tokio::time::timeout(LAST_WORDS * 2, ending).await.is_err();
            if exec.ended(LAST_WORDS).await && exec.is_done() {
                return true;
            }
        }
        exec.close().await;
        exec.ended(LAST_WORDS).await && exec.is_done()
    }

    fn metadata(&self, started: Instant, reused: bool) -> Map<String, Value> {
        let mut metadata = Map::new();
        let seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        metadata.insert("host".into(), Value::from(self.host.as_str()));
        metadata.insert("duration_seconds".into(), Value::from(seconds));
        metadata.insert("session_reused".into(), Value::from(reused));
        if !self.warnings.is_empty() {
            metadata.insert("warnings".into(), Value::from(self.warnings.clone()));
        }
        metadata
    }

    fn result(
        &self,
        line: &str,
        output: ExecOutput,
        args: &Args,
        prompt: Option<&str>,
        started: Instant,
        reused: bool,
    ) -> ExecutionResult {
        let clean = |bytes: &[u8]| {
            let mut text = String::from_utf8_lossy(bytes).into_owned();
            if args.get_pty {
                text = text.replace("\r\n", "\n");
            }
            if let Some(prompt) = prompt {
                text = without_sudo(&text, prompt);
                let password = args.sudo_password.as_ref().or(self.login_password.as_ref());
                // Sudo turns the echo off before it asks; a terminal that echoes all the same
                // must not tell.
                if let Some(password) = password.filter(|p| args.get_pty && p.expose_secret().len() >= 4) {
                    let password = password.expose_secret();
                    // The echo of the answer itself is no output of the command.
                    if let Some(rest) = text.strip_prefix(password).and_then(|rest| rest.strip_prefix('\n')) {
                        text = rest.to_owned();
                    }
                    text = text.replace(password, MASK);
                }
            }
            text
        };
        let mut result = ExecutionResult::ok(line, clean(&output.stdout));
        result.stderr = clean(&output.stderr);
        result.metadata = self.metadata(started, reused);
        match output.exit {
            Some(Exit::Status(status)) => result.exit_status = i32::try_from(status).unwrap_or(i32::MAX),
            Some(Exit::Signal(name)) => {
                // As Paramiko reports it.
                result.exit_status = -1;
                result.metadata.insert("signal".into(), Value::from(name));
            }
            Some(Exit::Unknown) | None => result.exit_status = -1,
        }
        result
    }
}

/// Takes out what `sudo` asked and the line that its answer ended.
fn without_sudo(text: &str, prompt: &str) -> String {
    if !text.contains(prompt) && !text.contains("[sudo] password for") {
        return text.to_owned();
    }
    let text = text.replace(&format!("{prompt}\n"), "").replace(prompt, "");
    text.split_inclusive('\n').filter(|line| !line.contains("[sudo] password for")).collect()
}

/// A word that the command and its output do not hold: a hash of it, the time and a counter.
fn mark(line: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hash = Sha256::new();
    hash.update(line);
    hash.update(COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    hash.update(format!("{:?}", std::time::SystemTime::now()));
    let digest = hash.finalize();
    let word: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("netpulse-{word}")
}

/// Waits for the end of a command or of its bound, and answers `sudo` when it asks: only then, so
/// that the password never becomes the input of a command that sudo let pass without one.
/// `close_input` ends the input as soon as nobody can ask for it.
async fn supervise(
    exec: &mut Exec,
    prompt: Option<&str>,
    password: Option<&SecretString>,
    close_input: bool,
) -> Option<ErrorInfo> {
    if let Some(prompt) = prompt {
        /// Sudo asks before the command says anything, so its prompt is near the beginning.
        const HEAD: usize = 16 * 1024;
        let asked = |output: &ExecOutput| {
            let count = |stream: &[u8]| {
                let head = &stream[..stream.len().min(HEAD)];
                String::from_utf8_lossy(head).matches(prompt).count()
            };
            count(&output.stderr) + count(&output.stdout)
        };
        let mut answered = false;
        loop {
            // Read before the count: what is said between the two shows in the next round.
            let done = exec.is_done();
            match (exec.peek(asked), password) {
                (0, _) => {}
                (1, Some(_)) if answered || done => {}
                (1, Some(password)) => {
                    answered = true;
                    let line = SecretString::from(format!("{}\n", password.expose_secret()));
                    if let Err(error) = exec.write(line.expose_secret().as_bytes(), INPUT).await {
                        return Some(error_info(error));
                    }
                    if close_input && let Err(error) = exec.end_input().await {
                        return Some(error_info(error));
                    }
                }
                (_, given) => {
                    // Without more input sudo gives up by itself; on a terminal it is interrupted.
                    if close_input
                        && !done
                        && let Err(error) = exec.end_input().await
                    {
                        return Some(error_info(error));
                    }
                    let why = match given {
                        Some(_) => "sudo refused the password: check `sudo_password`",
                        None => "sudo asks for a password and none was given: set `sudo_password`",
                    };
                    return Some(ErrorInfo::new(ErrorCode::EnableFailed, why));
                }
            }
            if done || exec.peek(|output| output.stdout.len().max(output.stderr.len()) > HEAD) {
                break;
            }
            exec.more().await;
        }
    } else if close_input && let Err(error) = exec.end_input().await {
        return Some(error_info(error));
    }
    let _ended = exec.ended(LONGEST).await;
    None
}

/// The beginning of a command, for a sentence.
fn brief(line: &str) -> String {
    let first = line.lines().next().unwrap_or("");
    if first.chars().count() > 80 {
        format!("{}...", first.chars().take(77).collect::<String>())
    } else {
        first.to_owned()
    }
}

/// What is told of the work as a whole.
struct Ledger<'a> {
    lines: &'a [String],
    changes: bool,
    report: Report,
    /// A line was broken off: what it did is not known.
    doubt: bool,
}

impl Ledger<'_> {
    /// What took effect, from the results so far.
    fn outcome(&self) -> Option<Outcome> {
        if !self.changes {
            return None;
        }
        let applied = self.report.results.iter().filter(|r| r.exit_status == 0).count();
        Some(match applied {
            _ if self.doubt => Outcome::Unknown,
            all if all == self.lines.len() => Outcome::Applied,
            0 => Outcome::NotApplied,
            _ => Outcome::Partial,
        })
    }

    /// Results for the lines from `index` on, none of which was sent.
    fn fill(&mut self, index: usize, why: &str) {
        if self.changes {
            let rest = self.lines.iter().skip(index);
            self.report.results.extend(rest.map(|line| ExecutionResult::failed(line.as_str(), why)));
        }
    }

    fn end(mut self, error: Option<ErrorInfo>) -> Report {
        self.report.outcome = self.outcome();
        self.report.error = error;
        self.report
    }

    fn finished(self) -> Report {
        let failed = self.report.results.iter().position(|r| r.exit_status != 0);
        let error = failed.filter(|_| self.changes).map(|index| self.rejected(index));
        self.end(error)
    }

    fn rejected(&self, index: usize) -> ErrorInfo {
        let result = &self.report.results[index];
        let said =
            result.stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it printed no error");
        ErrorInfo::new(
            ErrorCode::LineRejected,
            format!(
                "line {} of {}, `{}`, ended with exit status {}: {}",
                index + 1,
                self.lines.len(),
                brief(&self.lines[index]),
                result.exit_status,
                brief(said)
            ),
        )
    }

    fn skip_after(mut self, index: usize) -> Report {
        let error = self.rejected(index);
        let why = format!("Skipped due to previous error in execution of '{}'", self.lines[index]);
        self.fill(index + 1, &why);
        self.end(Some(error))
    }

    fn not_started(mut self, index: usize, error: ErrorInfo) -> Report {
        self.report.untouched = index == 0;
        self.report.reusable = false;
        let why = not_sent(error.code).map_or_else(|| format!("Not sent: {}", error.message), str::to_owned);
        self.fill(index, &why);
        self.end(Some(error))
    }

    fn broken(mut self, index: usize, mut error: ErrorInfo, usable: bool) -> Report {
        if error.code == ErrorCode::Canceled {
            error.message = format!("canceled while {} ran; it was interrupted", self.which(index));
            if let Some(result) = self.report.results.last_mut() {
                result.stderr.push_str(&error.message);
            }
        }
        // Where sudo let nobody in, nothing ran.
        self.doubt = error.code != ErrorCode::EnableFailed;
        self.report.reusable = usable;
        let why = not_sent(error.code).map_or_else(
            || format!("Skipped due to previous error in execution of '{}'", self.lines[index]),
            str::to_owned,
        );
        self.fill(index + 1, &why);
        self.end(Some(error))
    }

    fn canceled_before(mut self, index: usize) -> Report {
        let message = if index == 0 {
            "canceled before anything was sent".to_owned()
        } else {
            format!("canceled between {} and {}", self.which(index - 1), self.which(index))
        };
        self.report.untouched = index == 0;
        self.fill(index, "Not sent: canceled");
        self.end(Some(ErrorInfo::new(ErrorCode::Canceled, message)))
    }

    /// The right to send was lost before line `index`; the one before may still be running.
    fn fenced(mut self, index: usize) -> Report {
        self.doubt = index > self.report.results.len();
        self.report.untouched = index == 0;
        self.report.reusable = false;
        let in_flight = self.report.results.len();
        if self.doubt && self.changes && in_flight < self.lines.len() {
            let why = "Not known: this node lost the device while it ran";
            self.report.results.push(ExecutionResult::failed(self.lines[in_flight].as_str(), why));
        }
        self.fill(self.report.results.len(), "Not sent: the session was lost");
        let message = format!("this node lost the right to the device before {}", self.which(index));
        self.end(Some(ErrorInfo::new(ErrorCode::WorkerLost, message)))
    }

    fn which(&self, index: usize) -> String {
        let what = if self.changes { "line" } else { "command" };
        if index < self.lines.len() {
            format!("{what} {} of {}", index + 1, self.lines.len())
        } else {
            format!("the end of {what} {}", self.lines.len())
        }
    }
}
