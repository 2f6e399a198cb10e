//! A driver's session at work: line by line where the plugin can, and in any case never saying
//! more than is known.

use std::time::{Duration, Instant};

use hyper::Method;
use netpulse_model::plugin::{Done, Event, Execute, Leave, WireResult};
use netpulse_model::{ErrorCode, ErrorInfo, ExecutionResult, Outcome};
use serde_json::{Map, Value, json};

use super::driver::{Session, State};
use super::scope::{self, Scope};
use crate::driver::{Report, Run, Work};
use crate::host::blame::Errand;
use crate::host::program::Unanswered;
use crate::host::wire::CallError;

/// For a plugin to end a run that it was told to stop.
const STOPPING: Duration = Duration::from_secs(10);

/// Why a run ended before its work did.
enum Cut {
    /// The call failed.
    Call(CallError),
    /// The request's owner canceled it.
    Canceled,
    /// The right to send was lost.
    Fenced,
}

/// What a plugin is to do, and how far it has come.
struct Course<'a> {
    run: &'a Run<'a>,
    items: Vec<String>,
    changes: bool,
    /// Lines that the plugin may have sent.
    sent: usize,
    results: Vec<ExecutionResult>,
    deadline: Instant,
}

impl Session {
    pub(super) async fn execute(&mut self, run: &Run<'_>) -> Report {
        let (items, changes) = match &run.work {
            Work::Commands(commands) => (commands.clone(), false),
            Work::Config(items) => (lines(items), true),
        };
        let mut report = self.work(run, items, changes).await;
        if changes && report.outcome.is_none() {
            report.outcome = Some(if report.error.is_some() && !report.untouched {
                Outcome::Unknown
            } else {
                Outcome::NotApplied
            });
        }
        report.reusable &= !self.start.has_ended() && self.state == State::Busy;
        report
    }

    async fn work(&mut self, run: &Run<'_>, items: Vec<String>, changes: bool) -> Report {
        let deadline = scope::deadline(self.program().host().call_timeout);
        if self.start.has_ended() {
            self.state = State::Gone;
            let text = format!("the plugin {} has ended, and the session with it", self.driver.plugin.id());
            return Report::untouched(ErrorCode::SessionLost, text);
        }
        if let Some(schema) = &self.driver.driver_args {
            let errors = schema.check_map(&run.request.driver_args, &["driver_args"]);
            if !errors.is_empty() {
                let mut report =
                    Report::untouched(ErrorCode::BadRequest, netpulse_model::fields::sentence(&errors));
                report.reusable = true;
                return report;
            }
        }
        if let Err(error) = self.validate(run.request, &items, deadline).await {
            let info = self.driver.info(&error);
            let reusable = matches!(error, CallError::Refused { .. });
            return Report { error: Some(info), untouched: true, reusable, ..Report::default() };
        }
        let mut course = Course { run, items, changes, sent: 0, results: Vec::new(), deadline };
        if course.items.is_empty() {
            return Report {
                outcome: changes.then_some(Outcome::NotApplied),
                reusable: true,
                ..Report::default()
            };
        }
        let ended = if self.driver.has("stream") {
            self.streamed(&mut course).await
        } else if changes {
            self.whole(&mut course).await
        } else {
            self.one_by_one(&mut course).await
        };
        match ended {
            Ok(done) => self.report(course, done),
            Err(cut) => self.cut_short(course, cut).await,
        }
    }

    /// What the plugin is asked, so far as it can be the same again.
    fn errand(&self, path: &str, course: &Course<'_>, items: &[String]) -> Errand {
        let items = items.iter().map(String::as_str);
        Errand::on_device(path, &self.device, items, &course.run.request.driver_args)
    }

    fn body(&self, course: &Course<'_>, items: &[String]) -> Execute {
        let request = course.run.request;
        let mut options = Map::new();
        for flag in ["enable_mode", "save", "dry_run"] {
            if let Some(on) = request.flag(flag) {
                options.insert(flag.to_owned(), Value::from(on));
            }
        }
        Execute {
            name: self.driver.plugin.name().to_owned(),
            session: self.id.clone(),
            run: uuid::Uuid::now_v7().to_string(),
            job_id: Scope::current().map(|scope| scope.job.to_string()),
            commands: (!course.changes).then(|| items.to_vec()),
            lines: course.changes.then(|| items.to_vec()),
            options,
            driver_args: request.driver_args.clone(),
            file_transfer: request.extra.get("file_transfer").cloned(),
            stream: false,
            granted: 0,
        }
    }

    /// Queries of a plugin without `stream`: one request each, so that every command is announced
    /// before and told after.
    async fn one_by_one(&mut self, course: &mut Course<'_>) -> Result<Done, Cut> {
        for index in 0..course.items.len() {
            course.announce(index)?;
            let item = course.items.get(index).cloned().unwrap_or_default();
            let body = self.body(course, std::slice::from_ref(&item));
            let began = Instant::now();
            let errand = self.errand("/driver/send", course, std::slice::from_ref(&item));
            let call = self.driver.on::<Done>(&self.start, "/driver/send", &body, course.deadline, &errand);
            let done = tokio::select! {
                biased;
                () = course.run.fence.cancelled() => return Err(Cut::Fenced),
                () = course.run.cancel.cancelled() => return Err(Cut::Canceled),
                done = call => done.map_err(Cut::Call)?,
            };
            let mut results = done.results.clone().unwrap_or_default();
            if results.len() > 1 || (results.is_empty() && done.error.is_none()) {
                let text = format!("answered one command with {} results", results.len());
                return Err(Cut::Call(CallError::Nonsense(text)));
            }
            if let Some(result) = results.pop() {
                let result = self.result(course, result, began);
                course.run.watch.answered(index, course.items.len(), &result);
                course.results.push(result);
            }
            if done.error.is_some() || done.usable == Some(false) || index + 1 == course.items.len() {
                return Ok(Done { results: None, ..done });
            }
        }
        Ok(Done::default())
    }

    /// A modification of a plugin without `stream`: one request; once it is sent, only its answer
    /// says what became of it.
    async fn whole(&mut self, course: &mut Course<'_>) -> Result<Done, Cut> {
        let errand = self.errand("/driver/config", course, &course.items);
        self.program().admit(&errand).map_err(Cut::Call)?;
        course.announce(0)?;
        let body = self.body(course, &course.items);
        let began = Instant::now();
        let call = self.driver.on::<Done>(&self.start, "/driver/config", &body, course.deadline, &errand);
        let mut done = tokio::select! {
            biased;
            () = course.run.fence.cancelled() => return Err(Cut::Fenced),
            done = call => done.map_err(Cut::Call)?,
        };
        course.sent = course.items.len();
        for (index, result) in done.results.take().unwrap_or_default().into_iter().enumerate() {
            let result = self.result(course, result, began);
            course.run.watch.answered(index, course.items.len(), &result);
            course.results.push(result);
        }
        Ok(done)
    }

    /// A plugin with `stream`: every line is announced, has leave, and is told when answered.
    async fn streamed(&mut self, course: &mut Course<'_>) -> Result<Done, Cut> {
        let path = if course.changes { "/driver/config" } else { "/driver/send" };
        let errand = self.errand(path, course, &course.items);
        self.program().admit(&errand).map_err(Cut::Call)?;
        course.announce(0)?;
        let body = Execute { stream: true, granted: 1, ..self.body(course, &course.items) };
        let text = serde_json::to_vec(&body).map_err(|e| Cut::Call(CallError::NotSent(e.to_string())))?;
        let start = std::sync::Arc::clone(&self.start);
        let program = std::sync::Arc::clone(self.program());
        let unanswered = Unanswered::new(&start, program.ledger(), &errand);
        let opened = tokio::select! {
            biased;
            () = course.run.fence.cancelled() => return Err(Cut::Fenced),
            opened = start.open(Method::POST, path, text, course.deadline, true) => opened,
        };
        let (mut answer, returning) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                unanswered.settle::<()>(&Err(error.clone()));
                return Err(Cut::Call(error));
            }
        };
        let nonsense = |text: String| Cut::Call(CallError::Nonsense(text));
        if !answer.streamed {
            return Err(nonsense(format!("has the feature `stream` and did not stream {path}")));
        }
        let mut began = Instant::now();
        let mut announced = 0;
        let mut stopping: Option<Instant> = None;
        let line = loop {
            let until = stopping.unwrap_or(course.deadline);
            let line = tokio::select! {
                biased;
                () = course.run.fence.cancelled() => return Err(Cut::Fenced),
                () = course.run.cancel.cancelled(), if stopping.is_none() => {
                    stopping = Some(Instant::now() + STOPPING);
                    let stop = Leave { name: body.name.clone(), run: body.run.clone(), index: None, leave: false };
                    self.leave(&stop, Instant::now() + STOPPING).await?;
                    continue;
                }
                () = tokio::time::sleep_until(until.into()), if stopping.is_some() => return Err(Cut::Canceled),
                line = start.line(&mut answer) => line,
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return Err(nonsense(format!("ended its answer to {path} without `done`"))),
                Err(error) => {
                    unanswered.settle::<()>(&Err(error.clone()));
                    return Err(Cut::Call(error));
                }
            };
            let event: Event = serde_json::from_slice(&line)
                .map_err(|e| nonsense(format!("streamed a line that the contract does not know: {e}")))?;
            match event {
                Event::Sending(index) => {
                    if index != announced || index >= course.items.len() {
                        return Err(nonsense(format!(
                            "announced line {index} where line {announced} was due"
                        )));
                    }
                    announced += 1;
                    began = Instant::now();
                    if index == 0 {
                        continue;
                    }
                    let allowed = stopping.is_none() && course.announce(index).is_ok();
                    let leave = Leave {
                        name: body.name.clone(),
                        run: body.run.clone(),
                        index: Some(index),
                        leave: allowed,
                    };
                    if !allowed && stopping.is_none() {
                        stopping = Some(Instant::now() + STOPPING);
                    }
                    self.leave(&leave, course.deadline).await?;
                }
                Event::Result(result) => {
                    let index = course.results.len();
                    if index >= announced {
                        return Err(nonsense(format!(
                            "told the result of line {index} without announcing it"
                        )));
                    }
                    let result = self.result(course, result, began);
                    course.run.watch.answered(index, course.items.len(), &result);
                    course.results.push(result);
                }
                Event::Item(_) | Event::Error(_) => {
                    return Err(nonsense("streamed an item, which drivers do not".to_owned()));
                }
                Event::Done(done) => break done,
            }
        };
        match start.line(&mut answer).await {
            Ok(None) => {
                unanswered.settle::<()>(&Ok(()));
                start.keep(returning);
            }
            Ok(Some(_)) => return Err(nonsense("went on after `done`".to_owned())),
            // What counts was told; only the connection is lost.
            Err(error) => unanswered.settle::<()>(&Err(error)),
        }
        let mut done = line;
        if let Some(all) = done.results.take() {
            let told = std::mem::take(&mut course.results);
            course.results = all.into_iter().map(|result| self.result(course, result, began)).collect();
            // Times were taken when each line was told.
            for (result, told) in course.results.iter_mut().zip(told) {
                if let Some(time) = told.metadata.get("duration_seconds") {
                    result.metadata.insert("duration_seconds".to_owned(), time.clone());
                }
            }
        }
        if stopping.is_some() && done.error.is_none() {
            let wanted = course.items.len();
            let got = course.results.iter().filter(|r| r.exit_status == 0).count();
            if got < wanted {
                return self.refused_leave(course, done);
            }
        }
        Ok(done)
    }

    /// A run that was told to stop and says nothing of why it did.
    fn refused_leave(&self, course: &Course<'_>, done: Done) -> Result<Done, Cut> {
        if course.run.fence.is_cancelled() {
            return Err(Cut::Fenced);
        }
        let text = if course.run.cancel.is_cancelled() {
            format!("{}: canceled after line {} of {}", self.host, course.results.len(), course.items.len())
        } else {
            return Err(Cut::Fenced);
        };
        let error = Some(ErrorInfo::new(ErrorCode::Canceled, text).into());
        Ok(Done { error, ..done })
    }

    async fn leave(&self, leave: &Leave, deadline: Instant) -> Result<(), Cut> {
        let answer =
            self.driver.on::<Value>(&self.start, "/driver/leave", leave, deadline, &Errand::default()).await;
        match answer {
            Ok(_) => Ok(()),
            // It has ended the run meanwhile.
            Err(CallError::Refused { status: 404, .. }) if !leave.leave => Ok(()),
            Err(error) => Err(Cut::Call(error)),
        }
    }

    /// A plugin's result with what every result carries.
    fn result(&self, course: &Course<'_>, wire: WireResult, began: Instant) -> ExecutionResult {
        let mut result = ExecutionResult::from(wire);
        result.metadata.insert("host".to_owned(), Value::from(self.host.as_str()));
        result.metadata.insert("session_reused".to_owned(), Value::from(course.run.reused));
        result
            .metadata
            .entry("duration_seconds")
            .or_insert_with(|| json!((began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0));
        result
    }

    /// The report of a run whose plugin said how it went.
    fn report(&self, course: Course<'_>, done: Done) -> Report {
        let Course { items, results, changes, .. } = course;
        let mut error = done.error.map(ErrorInfo::from);
        let untouched = error.is_some() && done.untouched == Some(true);
        let complete = results.len() == items.len();
        let accepted = results.iter().all(|result| result.exit_status == 0);
        let id = self.driver.plugin.id();
        let mut outcome = done.outcome;
        if changes {
            if error.is_none() && !accepted {
                let said =
                    results.iter().find(|r| r.exit_status != 0).map(|r| r.stderr.clone()).unwrap_or_default();
                error = Some(ErrorInfo::new(
                    ErrorCode::LineRejected,
                    format!("{}: a line was refused: {said}", self.host),
                ));
            }
            let lie = match outcome {
                Some(Outcome::Applied) if !accepted || !complete => {
                    Some("that all was applied, and its results do not")
                }
                Some(Outcome::NotApplied | Outcome::Partial)
                    if error.is_none() && course.run.request.flag("dry_run") != Some(true) =>
                {
                    Some("that it went well and that not all was applied")
                }
                None if error.is_none() && !complete => Some("that it went well, and results are missing"),
                _ => None,
            };
            if let Some(lie) = lie {
                outcome = Some(Outcome::Unknown);
                let more = error.map(|e| format!(" ({})", e.message)).unwrap_or_default();
                error = Some(ErrorInfo::new(
                    ErrorCode::PluginFailed,
                    format!("The plugin {id} says {lie}: look at the device{more}"),
                ));
            }
            outcome = outcome.or(Some(match (&error, untouched) {
                (None, _) => Outcome::Applied,
                (Some(_), true) => Outcome::NotApplied,
                (Some(_), false) => Outcome::Unknown,
            }));
        } else if error.is_none() && !complete {
            let text =
                format!("The plugin {id} answered {} commands with {} results", items.len(), results.len());
            error = Some(ErrorInfo::new(ErrorCode::PluginFailed, text));
        }
        Report {
            results,
            error,
            outcome: outcome.filter(|_| changes),
            reusable: done.usable != Some(false),
            untouched,
        }
    }

    /// The report of a run that broke off.
    async fn cut_short(&mut self, course: Course<'_>, cut: Cut) -> Report {
        let total = course.items.len();
        let place = match (course.sent, course.results.len()) {
            (0, _) => "before the first line was sent".to_owned(),
            (sent, answered) if sent > answered => {
                let line = course.items.get(answered).cloned().unwrap_or_default();
                format!("with line {} of {total} (`{line}`) on its way", answered + 1)
            }
            (_, answered) => format!("after line {answered} of {total}"),
        };
        let mut untouched = course.sent == 0;
        let error = match &cut {
            Cut::Canceled => ErrorInfo::new(ErrorCode::Canceled, format!("{}: canceled {place}", self.host)),
            Cut::Fenced => ErrorInfo::new(
                ErrorCode::SessionLost,
                format!("{}: the right to speak to this device was lost {place}", self.host),
            ),
            Cut::Call(error) => {
                let first = course.results.is_empty();
                let never = match error {
                    CallError::NotSent(_) => true,
                    CallError::Refused { status, .. } => matches!(status, 400 | 401 | 403 | 404 | 409 | 410),
                    _ => false,
                };
                untouched |= first && never;
                let mut info = self.driver.info(error);
                if !matches!(error, CallError::Refused { .. }) {
                    info.message = format!("{} ({place})", info.message);
                }
                if course.changes && !untouched {
                    info.message.push_str("; it is not safe to repeat without a look at the device");
                }
                info
            }
        };
        let refused = matches!(&cut, Cut::Call(CallError::Refused { status, .. }) if *status != 410);
        if !refused {
            self.cut().await;
        }
        let mut results = course.results;
        if course.sent > results.len()
            && !untouched
            && let Some(line) = course.items.get(results.len())
        {
            let mut item = ExecutionResult::failed(line.clone(), "Sent, but its answer was not seen");
            item.metadata.insert("host".to_owned(), Value::from(self.host.as_str()));
            results.push(item);
        }
        let outcome =
            course.changes.then_some(if untouched { Outcome::NotApplied } else { Outcome::Unknown });
        Report { results, error: Some(error), outcome, reusable: refused, untouched }
    }
}

impl Course<'_> {
    /// Announces a line and asks for the right to send it.
    fn announce(&mut self, index: usize) -> Result<(), Cut> {
        if self.run.cancel.is_cancelled() {
            return Err(Cut::Canceled);
        }
        let line = self.items.get(index).map(String::as_str).unwrap_or_default();
        if self.run.fence.is_cancelled() || !self.run.watch.sending(index, self.items.len(), line) {
            return Err(Cut::Fenced);
        }
        self.sent = index + 1;
        Ok(())
    }
}

/// Configuration as lines: what a template rendered is one text.
pub(super) fn lines(items: &[String]) -> Vec<String> {
    items
        .iter()
        .flat_map(|item| item.lines())
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}
