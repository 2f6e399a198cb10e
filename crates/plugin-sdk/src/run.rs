//! Sessions, and executions over them: every line announced, allowed, sent, told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netpulse_model::plugin::{
    Connect, Connected, Detached, Done, Event, Execute, Leave, SessionRef, WireError, WireResult,
};
use netpulse_model::{ConnectionArgs, ErrorCode, ExecutionResult, Outcome};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Session};
use crate::idle::{Busy, Work};
use crate::{Call, Failure};

/// For a driver to end what it does when it is told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// For a session to leave politely.
const POLITE: Duration = Duration::from_secs(2);

/// A driver's sessions and runs.
pub(crate) struct Sessions {
    driver: Arc<dyn Driver>,
    work: Work,
    open: Mutex<HashMap<String, Arc<Slot>>>,
    runs: Mutex<HashMap<String, Control>>,
}

struct Slot {
    session: tokio::sync::Mutex<Option<Box<dyn Session>>>,
    /// The right to speak to the device is lost.
    gone: CancellationToken,
    _busy: Busy,
}

/// How a run is reached from outside.
struct Control {
    leaves: mpsc::UnboundedSender<(usize, bool)>,
    stop: CancellationToken,
}

/// Removes a run, and a session that was left in the middle of something.
struct InUse<'a> {
    sessions: &'a Sessions,
    run: String,
    session: String,
    finished: bool,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.sessions.runs.lock().remove(&self.run);
        if !self.finished {
            self.sessions.open.lock().remove(&self.session);
        }
    }
}

fn gone(id: &str) -> Failure {
    Failure {
        status: 410,
        code: Some(ErrorCode::SessionLost),
        message: format!("the session `{id}` is not known here, or not any more"),
    }
}

impl Sessions {
    pub(crate) fn new(driver: Arc<dyn Driver>, work: Work) -> Self {
        Self { driver, work, open: Mutex::default(), runs: Mutex::default() }
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    pub(crate) async fn connect(&self, request: Connect, call: &Call) -> Result<Connected, Failure> {
        let session = self.driver.connect(&ConnectionArgs(request.connection_args), call).await?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let slot = Slot {
            session: tokio::sync::Mutex::new(Some(session)),
            gone: CancellationToken::new(),
            _busy: self.work.begin(),
        };
        self.open.lock().insert(id.clone(), Arc::new(slot));
        Ok(Connected { session: id, reused: false })
    }

    fn slot(&self, id: &str) -> Result<Arc<Slot>, Failure> {
        self.open.lock().get(id).cloned().ok_or_else(|| gone(id))
    }

    pub(crate) async fn disconnect(&self, request: &SessionRef) {
        let Some(slot) = self.open.lock().remove(&request.session) else { return };
        if request.force {
            // Ends a run in its middle; the session is dropped with it.
            slot.gone.cancel();
            return;
        }
        let session = slot.session.lock().await.take();
        if let Some(session) = session {
            // One that does not leave is dropped.
            let _ = tokio::time::timeout(POLITE, session.close()).await;
        }
    }

    pub(crate) async fn alive(&self, request: &SessionRef) -> Result<bool, Failure> {
        let slot = self.slot(&request.session)?;
        let mut session = slot.session.lock().await;
        let session = session.as_mut().ok_or_else(|| gone(&request.session))?;
        tokio::select! {
            alive = session.alive() => alive,
            () = slot.gone.cancelled() => Err(gone(&request.session)),
        }
    }

    /// `launch`, `query`, `kill` and `list` of what goes on without its session.
    pub(crate) async fn detached(
        &self,
        what: &str,
        request: Detached,
        mut call: Call,
    ) -> Result<serde_json::Value, Failure> {
        let slot = self.slot(&request.session)?;
        let mut held = slot.session.lock().await;
        let session = held.as_mut().ok_or_else(|| gone(&request.session))?;
        call.job = request.job_id;
        call.driver_args = request.driver_args;
        let task = request.task_id.as_str();
        if task.is_empty() && what != "list" {
            return Err(Failure::bad_request("`task_id` is required"));
        }
        let work = async {
            Ok(match what {
                "launch" => {
                    let command = request.command.filter(|command| !command.is_empty());
                    let command = command.ok_or_else(|| Failure::bad_request("`command` is required"))?;
                    json!({"task": session.launch(task, &command, &call).await?})
                }
                "query" => json!(session.query(task, request.offset.unwrap_or(0), &call).await?),
                "kill" => json!({"killed": session.kill(task, &call).await?}),
                _ => json!({"tasks": session.list(&call).await?}),
            })
        };
        tokio::select! {
            biased;
            () = slot.gone.cancelled() => Err(gone(&request.session)),
            answer = work => answer,
        }
    }

    pub(crate) fn leave(&self, request: &Leave) -> Result<(), Failure> {
        let runs = self.runs.lock();
        let control = runs
            .get(&request.run)
            .ok_or_else(|| Failure::not_found(format!("no run `{}`: it has ended", request.run)))?;
        match (request.index, request.leave) {
            (Some(index), leave) => {
                // A run that does not listen any more has ended.
                let _ = control.leaves.send((index, leave));
            }
            (None, false) => control.stop.cancel(),
            (None, true) => return Err(Failure::bad_request("`leave: true` needs the `index` of a line")),
        }
        Ok(())
    }

    /// Closes every session.
    pub(crate) async fn close(&self) {
        let slots: Vec<Arc<Slot>> = self.open.lock().drain().map(|(_, slot)| slot).collect();
        let ends = slots.into_iter().map(|slot| async move {
            slot.gone.cancel();
            if let Some(session) = slot.session.lock().await.take() {
                session.close().await;
            }
        });
        let _ = tokio::time::timeout(POLITE, futures_util::future::join_all(ends)).await;
    }

    /// Runs commands or lines. With `events`, as a stream.
    pub(crate) async fn execute(
        &self,
        request: Execute,
        changes: bool,
        mut call: Call,
        events: Option<mpsc::Sender<Bytes>>,
    ) -> Result<Done, Failure> {
        let items = if changes { request.lines } else { request.commands };
        let items = items.ok_or_else(|| {
            Failure::bad_request(if changes { "`lines` is required" } else { "`commands` is required" })
        })?;
        let slot = self.slot(&request.session)?;
        let mut held = slot.session.lock().await;
        let session = held.as_mut().ok_or_else(|| gone(&request.session))?;
        let (leaves, granting) = mpsc::unbounded_channel();
        call.stop = CancellationToken::new();
        call.job = request.job_id;
        call.driver_args = request.driver_args;
        call.options = request.options;
        let control = Control { leaves, stop: call.stop.clone() };
        self.runs.lock().insert(request.run.clone(), control);
        let mut in_use =
            InUse { sessions: self, run: request.run, session: request.session.clone(), finished: false };
        let granted = if events.is_some() { request.granted } else { usize::MAX };
        let mut course = Course { items, events, granting, granted, results: Vec::new(), call };
        let work = async {
            if changes {
                course.config(session.as_mut()).await
            } else {
                course.commands(session.as_mut()).await
            }
        };
        let done = tokio::select! {
            biased;
            () = slot.gone.cancelled() => return Err(gone(&request.session)),
            done = work => done,
        };
        in_use.finished = done.usable != Some(false);
        if !in_use.finished {
            *held = None;
        }
        Ok(done)
    }
}

/// One execution.
struct Course {
    items: Vec<String>,
    events: Option<mpsc::Sender<Bytes>>,
    granting: mpsc::UnboundedReceiver<(usize, bool)>,
    granted: usize,
    results: Vec<ExecutionResult>,
    call: Call,
}

/// One event as a line.
pub(crate) fn line(event: &Event) -> Bytes {
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

impl Course {
    async fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // A host that does not listen any more ends this run by closing the connection.
            let _ = events.send(line(&event)).await;
        }
    }

    /// Announces a line and waits for leave to send it.
    async fn announce(&mut self, index: usize) -> bool {
        if self.call.stop.is_cancelled() {
            return false;
        }
        self.tell(Event::Sending(index)).await;
        if index < self.granted {
            return true;
        }
        loop {
            tokio::select! {
                biased;
                () = self.call.stop.cancelled() => return false,
                leave = self.granting.recv() => match leave {
                    Some((which, leave)) if which == index => {
                        if !leave {
                            self.call.stop.cancel();
                        }
                        return leave;
                    }
                    Some(_) => {}
                    None => return false,
                },
            }
        }
    }

    async fn told(&mut self, mut result: ExecutionResult, began: Instant) {
        let seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        result.metadata.entry("duration_seconds").or_insert_with(|| seconds.into());
        self.tell(Event::Result(WireResult::from(result.clone()))).await;
        self.results.push(result);
    }

    fn canceled(&self) -> WireError {
        let message = format!("Canceled after line {} of {}", self.results.len(), self.items.len());
        WireError { code: ErrorCode::Canceled.as_str().to_owned(), message }
    }

    fn done(&mut self, error: Option<WireError>, outcome: Option<Outcome>, usable: bool) -> Done {
        let results = std::mem::take(&mut self.results).into_iter().map(WireResult::from).collect();
        Done { results: Some(results), error, outcome, usable: Some(usable), untouched: None }
    }

    async fn commands(&mut self, session: &mut dyn Session) -> Done {
        for index in 0..self.items.len() {
            let command = self.items.get(index).cloned().unwrap_or_default();
            if !self.announce(index).await {
                let error = self.canceled();
                return self.done(Some(error), None, true);
            }
            let began = Instant::now();
            let stop = self.call.stop.clone();
            match bounded(&stop, session.command(&command, &self.call)).await {
                Some(Ok(result)) => self.told(result, began).await,
                Some(Err(failure)) => {
                    self.told(ExecutionResult::failed(command, failure.message.clone()), began).await;
                    return self.done(Some(error_of(failure)), None, false);
                }
                None => {
                    let error = self.canceled();
                    self.told(ExecutionResult::failed(command, "Interrupted"), began).await;
                    return self.done(Some(error), None, false);
                }
            }
        }
        self.done(None, None, true)
    }

    async fn config(&mut self, session: &mut dyn Session) -> Done {
        let stop = self.call.stop.clone();
        match bounded(&stop, session.begin(&self.call)).await {
            Some(Ok(())) => {}
            Some(Err(failure)) => {
                let done = self.done(Some(error_of(failure)), Some(Outcome::NotApplied), false);
                return Done { untouched: Some(true), ..done };
            }
            None => {
                let error = self.canceled();
                return Done {
                    untouched: Some(true),
                    ..self.done(Some(error), Some(Outcome::NotApplied), false)
                };
            }
        }
        for index in 0..self.items.len() {
            let text = self.items.get(index).cloned().unwrap_or_default();
            if !self.announce(index).await {
                let error = self.canceled();
                return self.undo(session, error, index, index == 0).await;
            }
            let began = Instant::now();
            match bounded(&stop, session.line(&text, &self.call)).await {
                Some(Ok(result)) if result.exit_status == 0 => self.told(result, began).await,
                Some(Ok(result)) => {
                    let message = format!("The device refused `{text}`: {}", result.stderr);
                    self.told(result, began).await;
                    let error = WireError { code: ErrorCode::LineRejected.as_str().to_owned(), message };
                    return self.undo(session, error, index + 1, false).await;
                }
                failed => {
                    let error = match failed {
                        Some(Err(failure)) => error_of(failure),
                        _ => self.canceled(),
                    };
                    self.told(ExecutionResult::failed(text, error.message.clone()), began).await;
                    // What became of this line is not known, unless a candidate is thrown away.
                    let mut done = self.undo(session, error, index + 1, false).await;
                    if done.outcome != Some(Outcome::NotApplied) {
                        done.outcome = Some(Outcome::Unknown);
                    }
                    return Done { usable: Some(false), ..done };
                }
            }
        }
        if self.call.option("dry_run") {
            return match session.discard(&self.call).await {
                Ok(outcome) => self.done(None, Some(outcome), true),
                Err(failure) => self.done(Some(error_of(failure)), Some(Outcome::Unknown), false),
            };
        }
        match session.commit(&self.call).await {
            Ok(()) => self.done(None, Some(Outcome::Applied), true),
            Err(failure) if failure.code == Some(ErrorCode::SaveFailed) => {
                self.done(Some(error_of(failure)), Some(Outcome::Applied), true)
            }
            Err(failure) if failure.code == Some(ErrorCode::CommitFailed) => {
                let index = self.items.len();
                self.undo(session, error_of(failure), index, false).await
            }
            Err(failure) => self.done(Some(error_of(failure)), Some(Outcome::Unknown), false),
        }
    }

    /// Leaves configuration mode after something went wrong; lines from `rest` on were not sent.
    async fn undo(
        &mut self,
        session: &mut dyn Session,
        error: WireError,
        rest: usize,
        untouched: bool,
    ) -> Done {
        let undone = tokio::time::timeout(GRACE, session.discard(&self.call)).await;
        for line in self.items.get(rest..).unwrap_or_default() {
            self.results.push(ExecutionResult::failed(line.clone(), "Skipped due to previous error"));
        }
        match undone {
            Ok(Ok(outcome)) => {
                let outcome = if untouched { Outcome::NotApplied } else { outcome };
                Done { untouched: Some(untouched), ..self.done(Some(error), Some(outcome), true) }
            }
            _ => self.done(Some(error), Some(Outcome::Unknown), false),
        }
    }
}

/// What `work` gives; none when it goes on long after it was told to stop.
async fn bounded<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => None,
    }
}

fn error_of(failure: Failure) -> WireError {
    let code = failure.code.unwrap_or(match failure.status {
        400 | 404 => ErrorCode::BadRequest,
        410 => ErrorCode::SessionLost,
        _ => ErrorCode::PluginFailed,
    });
    WireError { code: code.as_str().to_owned(), message: failure.message }
}
