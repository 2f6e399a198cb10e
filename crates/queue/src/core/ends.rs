//! How jobs end: by completion, cancel, expiry, or because their worker was lost.

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::result::ResultType;
use netpulse_model::{
    ErrorCode, ErrorInfo, ExecutionResult, Job, JobId, JobKind, JobResult, JobStatus, Outcome, Timestamp,
};

use super::{Core, Effect, Hold, LOST_WORKERS, Phase, Record, Timer};
use crate::api::{ClaimToken, Completion, Signal, Verdict};
use crate::clock::Moment;

/// What was lost under a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its node fell silent, left, or gave the device back; every note it made is known, and a
    /// stale claim may not send.
    Worker,
    /// The whole process ended: the last notes may not have reached the disk.
    Process,
}

/// What a completion met.
pub(crate) enum Completed {
    /// Nothing was changed.
    Stale,
    /// It counts and can be seen; written behind.
    Seen,
    /// It counts once this is written; then call [`Core::confirm`].
    Once(Record),
    /// The same completion is being written already.
    Pending,
}

/// What a cancel met.
pub(crate) enum Cancel {
    /// It counts once this is written; then call [`Core::confirm`], or [`Core::revert`].
    Once(Record),
    /// Its worker has been asked.
    Asked(Box<Job>),
    /// Its end is on the way to the disk.
    Ending,
    /// It has ended.
    Late(Box<Job>),
    /// Not here.
    Unknown,
}

fn result(kind: ResultType, error: Option<ErrorInfo>, outcome: Option<Outcome>) -> JobResult {
    JobResult { kind, retval: None, error, outcome }
}

impl Core {
    fn held(&self, token: &ClaimToken) -> bool {
        self.jobs.get(&token.job).is_some_and(|live| {
            matches!(&live.phase, Phase::Running(Hold { node, epoch, .. })
                if *epoch == token.epoch && *node == token.node)
        })
    }

    /// Ends a running job.
    pub(crate) fn complete(&mut self, token: &ClaimToken, end: Completion, now: Moment) -> Completed {
        let id = token.job;
        if !self.held(token) {
            let pending = self.jobs.get(&id).is_some_and(|live| {
                matches!(&live.phase, Phase::Ending { held: Some(hold), .. }
                    if hold.epoch == token.epoch && hold.node == token.node)
            });
            return if pending { Completed::Pending } else { Completed::Stale };
        }
        let Some(live) = self.jobs.get_mut(&id) else {
            return Completed::Stale;
        };
        let mut then = live.job.clone();
        then.status = end.status;
        then.result = Some(Arc::new(end.result));
        if !then.status.is_final() {
            let message = format!("the worker reported the state `{}`, which is no end", end.status);
            let outcome = live.is_modification().then_some(Outcome::Unknown);
            let error = Some(ErrorInfo::new(ErrorCode::Internal, message));
            then.status = JobStatus::Failed;
            then.result = Some(Arc::new(result(ResultType::Failed, error, outcome)));
        }
        if live.is_modification() {
            Completed::Once(self.begin_end(id, then, now))
        } else {
            self.free(id);
            self.finish(id, then, now);
            Completed::Seen
        }
    }

    /// Fails a running job at once: its request cannot be opened.
    pub(crate) fn fail_running(&mut self, id: JobId, message: String, now: Moment) {
        let Some(live) = self.jobs.get(&id).filter(|live| matches!(live.phase, Phase::Running(_))) else {
            return;
        };
        let outcome = live.is_modification().then_some(Outcome::NotApplied);
        self.free(id);
        self.fail(id, ErrorCode::Internal, message, outcome, Vec::new(), now);
    }

    /// The record of an end that is seen only when it is durable.
    fn begin_end(&mut self, id: JobId, mut then: Job, now: Moment) -> Record {
        let record = self.end_record(id, &mut then, now);
        if let Some(live) = self.jobs.get_mut(&id) {
            let held = match std::mem::replace(&mut live.phase, Phase::Done) {
                Phase::Running(hold) => Some(hold),
                _ => None,
            };
            live.phase = Phase::Ending { then: Box::new(then), held };
        }
        record
    }

    fn end_record(&self, id: JobId, then: &mut Job, now: Moment) -> Record {
        let live = self.jobs.get(&id);
        let ended = then.started_at.unwrap_or(then.created_at).max(now.wall);
        then.ended_at = Some(ended);
        let keep = live.map_or(Duration::ZERO, |live| self.retention(then, live.result_ttl));
        let node = live.and_then(|live| match &live.phase {
            Phase::Running(hold) | Phase::Ending { held: Some(hold), .. } => Some(hold.node.clone()),
            _ => None,
        });
        Record::End {
            seq: live.map_or(0, |live| live.seq),
            job: Box::new(then.clone()),
            node,
            lost: live.map_or(0, |live| live.lost),
            expires_at: ended.plus(keep),
            notifies: live.is_some_and(|live| live.notifies),
        }
    }

    /// How long an end is kept. What a modification did outlives what a query said.
    fn retention(&self, job: &Job, result_ttl: Duration) -> Duration {
        match (job.kind, job.status) {
            (JobKind::Modification, _) if job.started_at.is_some() => {
                self.rules.audit_retention.max(result_ttl)
            }
            (_, JobStatus::Canceled) => self.rules.canceled_ttl.max(result_ttl),
            (JobKind::Modification, _) => self.rules.audit_retention.max(result_ttl),
            (JobKind::Query, _) => result_ttl,
        }
    }

    /// The end that [`Core::begin_end`] decided is on disk. Returns the job as it ended.
    pub(crate) fn confirm(&mut self, id: JobId, now: Moment) -> Option<Job> {
        self.free(id);
        let live = self.jobs.get_mut(&id)?;
        match std::mem::replace(&mut live.phase, Phase::Done) {
            Phase::Ending { then, .. } => live.job = *then,
            other => {
                live.phase = other;
                return None;
            }
        }
        let (job, notifies) = (live.job.clone(), live.notifies);
        if notifies {
            self.unreserve_message();
        }
        self.announce_end(&job, now);
        self.jobs.remove(&id);
        if let Some(key) = &job.device {
            self.refresh(key);
        }
        self.after_free();
        Some(job)
    }

    /// The end of a waiting job could not be written: it waits on.
    pub(crate) fn revert(&mut self, id: JobId, now: Moment) {
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        if !matches!(live.phase, Phase::Ending { held: None, .. }) {
            return;
        }
        self.count_queued_of(id, 1);
        let delayed = self.jobs.get(&id).and_then(|live| live.not_before).filter(|at| *at > now.wall);
        match delayed {
            Some(at) => {
                if let Some(live) = self.jobs.get_mut(&id) {
                    live.phase = Phase::Delayed;
                }
                let steady = now.steady.saturating_add(at.0 - now.wall.0);
                self.set_timer(id, steady, Timer::Due(id));
            }
            None => self.enqueue(id, now),
        }
    }

    /// Ends a job that holds nothing any more, seen at once and written behind.
    fn finish(&mut self, id: JobId, mut then: Job, now: Moment) {
        let record = self.end_record(id, &mut then, now);
        self.clear_timer(id);
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        let node = match std::mem::replace(&mut live.phase, Phase::Done) {
            Phase::Running(hold) => Some(hold.node),
            _ => None,
        };
        live.payload = None;
        live.job = then.clone();
        let record = match record {
            Record::End { seq, job, node: kept, lost, expires_at, notifies } => {
                Record::End { seq, job, node: node.or(kept), lost, expires_at, notifies }
            }
            other => other,
        };
        self.announce_end(&then, now);
        self.effects.push(Effect::Write(record));
        if let Some(key) = &then.device {
            self.refresh(key);
        }
        self.after_free();
    }

    /// An end that was seen is on disk now: the job leaves the working state.
    pub(crate) fn written(&mut self, id: JobId) -> Option<Job> {
        if matches!(self.jobs.get(&id)?.phase, Phase::Done) {
            let live = self.jobs.remove(&id)?;
            if live.notifies {
                self.unreserve_message();
            }
            Some(live.job)
        } else {
            None
        }
    }

    fn announce_end(&mut self, job: &Job, now: Moment) {
        let result = job.result.as_ref();
        let what = What::Ended {
            status: job.status,
            outcome: result.and_then(|result| result.outcome),
            message: result.and_then(|result| result.error.as_ref()).map(|error| error.message.clone()),
        };
        self.event_of(job, job.ended_at.unwrap_or(now.wall), what);
        self.effects.push(Effect::Ended(job.id, job.status));
    }

    /// A slot came free: another job of `FifoQ` may start.
    fn after_free(&mut self) {
        if !self.fifo_ready.is_empty() {
            self.signal_fifo();
        }
    }

    fn fail(
        &mut self,
        id: JobId,
        code: ErrorCode,
        message: String,
        outcome: Option<Outcome>,
        lines: Vec<ExecutionResult>,
        now: Moment,
    ) {
        let Some(live) = self.jobs.get(&id) else {
            return;
        };
        let mut then = live.job.clone();
        then.status = JobStatus::Failed;
        let mut failed = result(ResultType::Failed, Some(ErrorInfo::new(code, message)), outcome);
        failed.retval = (!lines.is_empty()).then_some(lines);
        then.result = Some(Arc::new(failed));
        self.finish(id, then, now);
    }

    /// A job has waited longer than its ttl.
    pub(super) fn expire(&mut self, id: JobId, now: Moment) {
        let Some(live) = self.jobs.get_mut(&id).filter(|live| matches!(live.phase, Phase::Waiting)) else {
            return;
        };
        live.timer = None;
        let waited = live.ttl.as_secs_f64();
        let outcome = live.is_modification().then_some(Outcome::NotApplied);
        self.dequeue(id);
        let message = format!("job expired in queue: it waited {waited} s (its ttl) and was never started");
        self.fail(id, ErrorCode::ExpiredInQueue, message, outcome, Vec::new(), now);
    }

    // --- cancel --------------------------------------------------------------------------------

    /// Cancels a job, as far as it can be.
    pub(crate) fn cancel(&mut self, id: JobId, reason: &str, now: Moment) -> Cancel {
        let Some(live) = self.jobs.get_mut(&id) else {
            return Cancel::Unknown;
        };
        match &live.phase {
            Phase::Waiting | Phase::Delayed => {
                let not_before = live.not_before;
                let then = canceled(live.job.clone(), reason);
                self.dequeue(id);
                if let Some(key) = then.device.clone() {
                    self.refresh(&key);
                }
                let record = self.begin_end(id, then, now);
                if let Some(live) = self.jobs.get_mut(&id) {
                    live.not_before = not_before;
                }
                Cancel::Once(record)
            }
            Phase::Running(hold) => {
                let signal = Signal::Cancel(id);
                self.effects.push(Effect::Signal { node: hold.node.clone(), signal });
                if live.cancel.is_none() {
                    live.cancel = Some(reason.to_owned());
                    let record = Record::CancelAsked { seq: live.seq, reason: reason.to_owned() };
                    self.effects.push(Effect::Write(record));
                }
                Cancel::Asked(Box::new(live.job.clone()))
            }
            Phase::Ending { .. } => Cancel::Ending,
            Phase::Done => Cancel::Late(Box::new(live.job.clone())),
        }
    }

    // --- lost workers --------------------------------------------------------------------------

    /// Decides what becomes of a running job whose worker is gone (promise 6).
    pub(super) fn settle(&mut self, id: JobId, lost: Lost, now: Moment) {
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        if !matches!(live.phase, Phase::Running(_)) {
            return;
        }
        live.lost += 1;
        if live.is_modification() {
            let known = std::mem::take(&mut live.known);
            let line = known.answered.len();
            let (outcome, message) = match (&known.sending, known.answered.last()) {
                (Some((index, command)), _) => (
                    Outcome::Unknown,
                    format!(
                        "its worker was lost; the last line known sent is number {} `{command}`, \
                         whose answer is not known: look at the device before pushing again",
                        index + 1
                    ),
                ),
                (None, Some(last)) => (
                    Outcome::Unknown,
                    format!(
                        "its worker was lost; the last line known sent is number {line} `{}`, which was \
                         answered: look at the device before pushing again",
                        last.command
                    ),
                ),
                (None, None) if lost == Lost::Worker => (
                    Outcome::NotApplied,
                    "its worker was lost before a line was sent: nothing was changed".to_owned(),
                ),
                // Notes are not waited for, so after a crash their absence proves nothing.
                (None, None) => (
                    Outcome::Unknown,
                    "the server ended while it ran, and no line is known to have been sent: look at the \
                     device before pushing again"
                        .to_owned(),
                ),
            };
            self.free(id);
            self.fail(id, ErrorCode::WorkerLost, message, Some(outcome), known.answered, now);
        } else if let Some(reason) = live.cancel.clone() {
            let then = canceled(live.job.clone(), &reason);
            self.free(id);
            self.finish(id, then, now);
        } else if live.lost >= LOST_WORKERS {
            let message = format!(
                "{LOST_WORKERS} workers were lost while they ran it; it may be what ends them, so it is not tried again"
            );
            self.free(id);
            self.fail(id, ErrorCode::WorkerLost, message, None, Vec::new(), now);
        } else {
            self.put_back(id, Duration::ZERO, "its worker was lost", now);
        }
    }

    /// Puts a running job back, at its old place, after `delay`.
    fn put_back(&mut self, id: JobId, delay: Duration, reason: &str, now: Moment) {
        self.free(id);
        self.count_queued_of(id, 1);
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        live.job.started_at = None;
        live.job.worker = None;
        let job = live.job.clone();
        let what = What::Retrying {
            reason: reason.to_owned(),
            attempt: job.attempt + 1,
            delay: delay.as_secs_f64(),
        };
        self.event_of(&job, now.wall, what);
        self.wait_again(id, delay, now);
        self.write_wait(id);
        if let Some(key) = &job.device {
            self.refresh(key);
        }
        self.after_free();
    }

    fn wait_again(&mut self, id: JobId, delay: Duration, now: Moment) {
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        live.job.enqueued_at = Some(now.wall);
        if delay.is_zero() {
            self.enqueue(id, now);
        } else {
            live.phase = Phase::Delayed;
            live.job.status = JobStatus::Scheduled;
            live.not_before = Some(now.wall.plus(delay));
            self.set_timer(id, now.after(delay), Timer::Due(id));
        }
    }

    /// Puts a job back that its worker gives up for now. A modification that has begun to send
    /// is not taken back (promise 6). One that is to be canceled ends instead.
    pub(crate) fn retry(
        &mut self,
        token: &ClaimToken,
        delay: Duration,
        why: &ErrorInfo,
        now: Moment,
    ) -> Verdict {
        if !self.held(token) {
            return Verdict::Stale;
        }
        let Some(live) = self.jobs.get(&token.job) else {
            return Verdict::Stale;
        };
        if live.is_modification() && (live.known.sending.is_some() || !live.known.answered.is_empty()) {
            return Verdict::Stale;
        }
        if let Some(asked) = live.cancel.clone() {
            let then = canceled(live.job.clone(), &asked);
            self.free(token.job);
            self.finish(token.job, then, now);
        } else {
            self.put_back(token.job, delay, &why.message, now);
            if let Some(live) = self.jobs.get_mut(&token.job) {
                live.held_for = live.not_before.map(|_| why.clone());
            }
        }
        Verdict::Taken
    }

    /// Notes a line that is about to be sent or was answered.
    pub(crate) fn progress(&mut self, token: &ClaimToken, what: What, at: Timestamp) -> Verdict {
        if !self.held(token) {
            return Verdict::Stale;
        }
        let Some(live) = self.jobs.get_mut(&token.job) else {
            return Verdict::Stale;
        };
        if live.is_modification() {
            live.known.note(&what);
            let index = match &what {
                What::Sending { index, .. } | What::Line { index, .. } => Some(*index),
                _ => None,
            };
            if let Some(index) = index {
                let record = Record::Note { seq: live.seq, index, note: what.clone() };
                self.effects.push(Effect::Write(record));
            }
        }
        let device = live.job.device.as_ref().map(ToString::to_string);
        self.effects.push(Effect::Event { at, job: token.job, device, what });
        Verdict::Taken
    }
}

fn canceled(mut job: Job, reason: &str) -> Job {
    let when = if job.started_at.is_some() { "after its worker was lost" } else { "before it started" };
    let text = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let error = ErrorInfo::new(ErrorCode::Canceled, format!("canceled {when}{text}"));
    let outcome = (job.kind == JobKind::Modification).then_some(Outcome::NotApplied);
    job.status = JobStatus::Canceled;
    job.result = Some(Arc::new(result(ResultType::Stopped, Some(error), outcome)));
    job
}
