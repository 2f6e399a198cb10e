//! A session at work: requests in, results out.

use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::{ErrorCode, ErrorInfo, ExecutionResult, Outcome};
use netpulse_plugin::{DriverSession, Opening, Report, Run, Watch, Work};
use netpulse_session::SessionError;
use netpulse_session::cli::{ConfigReport, Control, LineReport, LineState, Progress, Session, config_lines};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::args;
use crate::connect;

/// What a session knows of its device.
pub(super) struct Facts {
    pub platform: String,
    pub prompt: String,
    pub remote_version: String,
}

pub(super) struct NetmikoSession {
    session: Session,
    host: String,
    warnings: Vec<String>,
    keepalive: Option<Duration>,
    opening: Opening,
    /// A run was begun and not ended: its future was dropped in the middle of something.
    in_the_middle: bool,
}

impl NetmikoSession {
    pub fn new(
        session: Session,
        host: String,
        warnings: Vec<String>,
        keepalive: Option<Duration>,
        opening: Opening,
    ) -> Self {
        Self { session, host, warnings, keepalive, opening, in_the_middle: false }
    }

    pub fn facts(&mut self) -> Facts {
        Facts {
            platform: self.session.platform().name.clone(),
            prompt: self.session.prompt(),
            remote_version: self.session.remote_version(),
        }
    }

    async fn work(&mut self, run: &Run<'_>) -> Report {
        if run.reused && self.session.has_closed() {
            return Report::untouched(
                ErrorCode::SessionLost,
                format!("{}: the device closed the idle session", self.host),
            );
        }
        if run.request.flag("enable_mode") == Some(true)
            && self.session.platform().has_enable()
            && let Err(error) = self.session.enable().await
        {
            return Report::untouched(error.kind, error.message);
        }
        match &run.work {
            Work::Commands(commands) => self.commands(run, commands).await,
            Work::Config(items) => self.config(run, items).await,
        }
    }

    async fn commands(&mut self, run: &Run<'_>, commands: &[String]) -> Report {
        let options = match args::command_options(&run.request.driver_args, &run.request.connection_args) {
            Ok(options) => options,
            Err(errors) => {
                return Report::untouched(ErrorCode::BadRequest, netpulse_model::fields::sentence(&errors));
            }
        };
        let unused = args::unused(&run.request.driver_args, false);
        let all: Vec<String> = self.warnings.iter().cloned().chain(unused).collect();
        let frame = Frame { host: &self.host, reused: run.reused, warnings: &all };
        let mut report = Report { untouched: true, ..Report::default() };
        for (index, command) in commands.iter().enumerate() {
            if run.cancel.is_cancelled() {
                let place = if index == 0 {
                    "before the first command".to_owned()
                } else {
                    format!("after command {index} of {}", commands.len())
                };
                report.error =
                    Some(ErrorInfo::new(ErrorCode::Canceled, format!("{}: canceled {place}", self.host)));
                break;
            }
            if run.fence.is_cancelled() || !run.watch.sending(index, commands.len(), command) {
                report.error = Some(ErrorInfo::new(
                    ErrorCode::SessionLost,
                    format!(
                        "{}: the right to speak to this device was lost; `{command}` was not sent",
                        self.host
                    ),
                ));
                break;
            }
            report.untouched = false;
            let began = Instant::now();
            let (mut result, error) = match self.session.command(command, &options).await {
                Ok(output) => (ExecutionResult::ok(command, output.into_text()), None),
                Err(error) => {
                    let mut result = ExecutionResult::failed(command, error.message.clone());
                    result.stdout =
                        Value::from(String::from_utf8_lossy(&self.session.take_partial()).into_owned());
                    (result, Some(error))
                }
            };
            result.metadata = frame.metadata(began.elapsed());
            run.watch.answered(index, commands.len(), &result);
            report.results.push(result);
            if let Some(error) = error {
                report.error = Some(connect::error_info(error));
                break;
            }
        }
        report
    }

    async fn config(&mut self, run: &Run<'_>, items: &[String]) -> Report {
        let save = run.request.flag("save") == Some(true);
        let read = args::config_options(&run.request.driver_args, &run.request.connection_args, save);
        let (options, warnings) = match read {
            Ok(read) => read,
            Err(errors) => {
                let mut report =
                    Report::untouched(ErrorCode::BadRequest, netpulse_model::fields::sentence(&errors));
                report.outcome = Some(Outcome::NotApplied);
                return report;
            }
        };
        // An idle session may be dead without a sign; found out now, nothing was touched yet.
        if run.reused
            && let Err(error) = self.session.keepalive().await
        {
            let mut report = Report::untouched(ErrorCode::SessionLost, error.message);
            report.outcome = Some(Outcome::NotApplied);
            return report;
        }
        let all: Vec<String> = self.warnings.iter().chain(&warnings).cloned().collect();
        let lines = config_lines(self.session.platform(), items);
        let frame = Frame { host: &self.host, reused: run.reused, warnings: &all };
        let mut told = Told { watch: run.watch, frame: &frame, total: lines.len(), lines: &lines };
        let done = self.session.config(&lines, &options, &mut told).await;
        frame.report(done)
    }
}

#[async_trait]
impl DriverSession for NetmikoSession {
    async fn run(&mut self, run: Run<'_>) -> Report {
        self.in_the_middle = true;
        self.session.set_control(Control { cancel: run.cancel.clone(), fence: run.fence.clone() });
        let mut report = self.work(&run).await;
        let fenced = run.fence.is_cancelled();
        // The way back is nobody's to cancel, but the fence still holds.
        self.session.set_control(Control { fence: run.fence.clone(), ..Control::default() });
        let mut reusable = !fenced && self.session.usable();
        if reusable && let Err(error) = self.session.to_base().await {
            tracing::warn!(device = %self.host, error = %error, "the session could not go back to its first mode");
            reusable = false;
        }
        self.session.set_control(Control::default());
        if matches!(run.work, Work::Config(_)) && report.outcome.is_none() {
            report.outcome = Some(Outcome::NotApplied);
        }
        // With `autodetect` nobody else knows it, and parsers choose their template by it.
        let platform = self.session.platform().name.clone();
        for item in &mut report.results {
            item.metadata.insert("device_type".into(), Value::from(platform.as_str()));
        }
        report.reusable = reusable;
        self.in_the_middle = fenced;
        report
    }

    async fn keepalive(&mut self) -> Result<(), ErrorInfo> {
        self.session.keepalive().await.map_err(connect::error_info)
    }

    async fn closed(&mut self) {
        self.session.closed().await;
    }

    fn keepalive_interval(&self) -> Option<Duration> {
        self.keepalive
    }

    fn opening(&self) -> Opening {
        self.opening
    }

    async fn close(&mut self) {
        if self.in_the_middle {
            self.session.abandon().await;
        } else {
            self.session.close().await;
        }
    }
}

/// What every result of a run carries.
struct Frame<'a> {
    host: &'a str,
    reused: bool,
    warnings: &'a [String],
}

impl Frame<'_> {
    fn metadata(&self, took: Duration) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("host".into(), Value::from(self.host));
        metadata
            .insert("duration_seconds".into(), Value::from((took.as_secs_f64() * 1000.0).round() / 1000.0));
        metadata.insert("session_reused".into(), Value::from(self.reused));
        if !self.warnings.is_empty() {
            metadata.insert("warnings".into(), Value::from(self.warnings.to_vec()));
        }
        metadata
    }

    /// One line as a result, in upstream's words. `lines` are all lines, for naming the cause.
    fn result(
        &self,
        report: &LineReport,
        cause: impl Fn(usize) -> String,
        error: Option<&SessionError>,
    ) -> ExecutionResult {
        let stdout = String::from_utf8_lossy(&report.output).into_owned();
        let not_sent = error.and_then(|e| connect::not_sent(e.kind));
        let mut result = match &report.state {
            LineState::Accepted => ExecutionResult::ok(&report.line, stdout),
            LineState::Rejected(said) => ExecutionResult {
                stdout: Value::from(stdout),
                ..ExecutionResult::failed(
                    &report.line,
                    format!("Device reported configuration error: {said}"),
                )
            },
            LineState::Skipped(_) if not_sent.is_some() => {
                ExecutionResult::failed(&report.line, not_sent.unwrap_or_default())
            }
            LineState::Skipped(Some(index)) => ExecutionResult::failed(
                &report.line,
                format!("Skipped due to previous error in execution of '{}'", cause(*index)),
            ),
            LineState::Skipped(None) => {
                let why = error.map(|e| format!(": {}", e.message)).unwrap_or_default();
                ExecutionResult::failed(&report.line, format!("Not sent{why}"))
            }
            LineState::Unknown(why) => ExecutionResult {
                stdout: Value::from(stdout),
                ..ExecutionResult::failed(&report.line, why.clone())
            },
        };
        result.metadata = self.metadata(report.took);
        result
    }

    fn report(&self, done: ConfigReport) -> Report {
        let cause = |index: usize| done.lines.get(index).map(|l| l.line.clone()).unwrap_or_default();
        let mut results: Vec<ExecutionResult> =
            done.lines.iter().map(|line| self.result(line, cause, done.error.as_ref())).collect();
        let accepted = done.lines.iter().filter(|l| l.state == LineState::Accepted).count();
        if done.outcome == Outcome::NotApplied && accepted > 0 {
            // Accepted into a candidate that was thrown away.
            for (result, line) in results.iter_mut().zip(&done.lines) {
                if line.state == LineState::Accepted {
                    result.metadata.insert("discarded".into(), Value::from(true));
                }
            }
        }
        if !done.epilogue.is_empty() {
            let sent = done.lines.iter().rposition(|l| !matches!(l.state, LineState::Skipped(_)));
            if let Some(last) = sent.and_then(|index| results.get_mut(index)) {
                let epilogue = String::from_utf8_lossy(&done.epilogue);
                let before = last.stdout.as_str().unwrap_or_default();
                let joined = if before.is_empty() {
                    epilogue.trim().to_owned()
                } else {
                    format!("{before}\n{}", epilogue.trim())
                };
                last.stdout = Value::from(joined);
            }
        }
        Report {
            results,
            error: done.error.map(connect::error_info),
            outcome: Some(done.outcome),
            reusable: false,
            untouched: done.untouched,
        }
    }
}

/// Tells the watcher how the lines go.
struct Told<'a> {
    watch: &'a dyn Watch,
    frame: &'a Frame<'a>,
    total: usize,
    lines: &'a [String],
}

impl Progress for Told<'_> {
    fn sending(&mut self, index: usize, line: &str) -> bool {
        self.watch.sending(index, self.total, line)
    }

    fn answered(&mut self, index: usize, report: &LineReport) {
        let cause = |cause: usize| self.lines.get(cause).cloned().unwrap_or_default();
        let result = self.frame.result(report, cause, None);
        self.watch.answered(index, self.total, &result);
    }
}
