//! The calls of [`Queue`] on the embedded engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use netpulse_model::event::{EventId, What};
use netpulse_model::worker::WorkerRecord;
use netpulse_model::{DeviceKey, ErrorInfo, Job, JobId, JobStatus};
use tokio::sync::{mpsc, oneshot};

use super::store::{self, Accept, Inserted};
use super::writer::{Done, Report, Work};
use super::{Embedded, Shared, State};
use crate::api::{
    Canceled, Claim, ClaimToken, Completion, Delivered, DeliveryId, Due, Follow, Followed, JobCounts,
    JobQuery, Lease, NewJob, NodeStatus, Page, Queue, QueueError, Role, Signal, Submitted, Verdict, Waiting,
};
use crate::clock::Moment;
use crate::core::{Cancel, Completed, Live, Record, Sealed};
use crate::events;

/// Sealing and opening of more than this happens on a thread of its own.
const HEAVY: usize = 256 * 1024;

/// A submission's answer before `Known` is looked up.
enum Taken {
    Accepted(Box<Job>),
    Known(JobId),
    Reused(JobId),
}

/// A job just taken, before its request is opened.
struct Picked {
    job: Job,
    token: ClaimToken,
    seq: u64,
    timeout: Duration,
    retry: netpulse_model::job::RetryPolicy,
    sealed: Option<Arc<Sealed>>,
    /// For a modification: its start is being written.
    durable: Option<oneshot::Receiver<Result<(), QueueError>>>,
}

/// Gives a job back when the call that took it is dropped before it could hand it over.
struct Unclaim<'a> {
    shared: &'a Shared,
    token: ClaimToken,
    armed: bool,
}

impl Drop for Unclaim<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.shared.with(|state, now| state.core.unclaim(self.token.job, self.token.epoch, now));
        }
    }
}

/// Runs `work` here when it is small, on a thread that may block when it is not.
async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueueError> {
    if bytes <= HEAVY {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| QueueError::Closed)
}

impl Shared {
    /// What is known of a job without touching the disk.
    fn remembered(state: &State, id: JobId, now: Moment) -> Option<Job> {
        state.core.job(id).or_else(|| state.cache.get(id, now.wall)).cloned()
    }

    async fn find(self: &Arc<Self>, id: JobId) -> Result<Option<Job>, QueueError> {
        if let Some(job) = self.with(|state, now| Self::remembered(state, id, now)) {
            return Ok(Some(job));
        }
        self.read(move |db, now| store::job(db, id, now)).await
    }

    /// The answer for a key that stands for `id`.
    async fn known(self: &Arc<Self>, id: JobId) -> Result<Submitted, QueueError> {
        self.find(id).await?.map(Submitted::Known).ok_or_else(|| {
            QueueError::Unavailable(format!("job {id} of this key has just been forgotten: try again"))
        })
    }

    /// Takes the next job by `pick`, makes a modification's start durable, opens the request.
    async fn take(
        self: &Arc<Self>,
        node: &str,
        pick: impl Fn(&mut State, Moment) -> Option<JobId> + Send,
    ) -> Result<Option<Claim>, QueueError> {
        loop {
            let Some(picked) = self.with(|state, now| {
                let id = pick(state, now)?;
                self.picked(state, id, node, now)
            }) else {
                return Ok(None);
            };
            let mut guard = Unclaim { shared: self, token: picked.token.clone(), armed: true };
            if let Some(durable) = picked.durable {
                self.answer(durable).await?;
            }
            let id = picked.job.id;
            let opened = match self.sealed_request(id, picked.seq, picked.sealed).await? {
                Some(sealed) => {
                    let shared = self.clone();
                    off_thread(sealed.bytes().len(), move || shared.keys.open_sealed(id, sealed.bytes()))
                        .await?
                }
                None => Err(crate::seal::SealError::Damaged),
            };
            guard.armed = false;
            match opened {
                Ok(payload) => {
                    return Ok(Some(Claim {
                        job: picked.job,
                        token: picked.token,
                        payload,
                        timeout: picked.timeout,
                        retry: picked.retry,
                    }));
                }
                Err(error) => {
                    tracing::error!(job = %id, %error, "a stored request cannot be opened");
                    let message =
                        format!("the stored request cannot be opened, so the job was not run: {error}");
                    self.with(|state, now| state.core.fail_running(id, message, now));
                }
            }
        }
    }

    fn picked(&self, state: &mut State, id: JobId, node: &str, now: Moment) -> Option<Picked> {
        let epoch = state.core.epoch_of(id)?;
        let record = state.core.start_record(id)?;
        let live = state.core.live(id)?;
        let (seq, timeout, retry) = (live.seq, live.timeout, live.retry.clone());
        let (job, sealed) = (live.job.clone(), live.payload.clone());
        let durable = (job.kind == netpulse_model::JobKind::Modification).then(|| {
            // What was decided before goes to the writer first.
            self.perform(state, now);
            let (reply, answer) = oneshot::channel();
            let me = self.me.clone();
            let done: Done = Box::new(move |_, report| {
                let Some(shared) = me.upgrade() else { return };
                shared.with(|state, now| match &report {
                    Ok(_) if state.core.epoch_of(id) == Some(epoch) => state.core.announce_start(id, now),
                    Ok(_) => {}
                    Err(_) => state.core.unclaim(id, epoch, now),
                });
                drop(reply.send(report.map(|_| ())));
            });
            self.send(Work::Record(vec![record]), true, false, done);
            answer
        });
        let token = ClaimToken { job: id, epoch, node: node.to_owned() };
        Some(Picked { job, token, seq, timeout, retry, sealed, durable })
    }

    async fn sealed_request(
        self: &Arc<Self>,
        id: JobId,
        seq: u64,
        kept: Option<Arc<Sealed>>,
    ) -> Result<Option<Arc<Sealed>>, QueueError> {
        if let Some(sealed) = kept {
            return Ok(Some(sealed));
        }
        let bytes = self.read(move |db, _| store::payload(db, seq)).await?;
        if bytes.is_none() {
            tracing::error!(job = %id, "a waiting job has no stored request");
        }
        Ok(bytes.map(|bytes| self.sealed(bytes).0))
    }

    /// Writes an end that counts only when it is durable.
    fn end_once(
        &self,
        id: JobId,
        record: Record,
        hold: bool,
    ) -> oneshot::Receiver<Result<Option<Job>, QueueError>> {
        let (reply, answer) = oneshot::channel();
        let expires_at = match &record {
            Record::End { expires_at, .. } => *expires_at,
            _ => netpulse_model::Timestamp(i64::MAX),
        };
        let me = self.me.clone();
        let done: Done = Box::new(move |_, report| {
            let Some(shared) = me.upgrade() else { return };
            let answer = shared.with(|state, now| match report {
                Ok(report) => Ok(state.confirm(id, &report, expires_at, now)),
                // A change that SQLite itself refuses will never be written; the job ends all the
                // same, only its row stays behind.
                Err(QueueError::Corrupt(why)) if hold => {
                    state.confirm(id, &Report::default(), expires_at, now);
                    Err(QueueError::Corrupt(why))
                }
                Err(error) => {
                    state.core.revert(id, now);
                    Err(error)
                }
            });
            drop(reply.send(answer));
        });
        self.send(Work::Record(vec![record]), true, hold, done);
        answer
    }
}

impl State {
    fn confirm(
        &mut self,
        id: JobId,
        report: &Report,
        expires_at: netpulse_model::Timestamp,
        now: Moment,
    ) -> Option<Job> {
        let job = self.core.confirm(id, now);
        report.posted.iter().for_each(|message| self.core.post(*message, now));
        let job = job?;
        self.keep(job.clone(), report.sizes.iter().sum(), expires_at, now);
        Some(job)
    }
}

#[async_trait]
impl Queue for Embedded {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, QueueError> {
        let shared = &self.shared;
        let bytes = jobs.iter().map(|job| job.payload.len() + job.notify.as_ref().map_or(0, Vec::len)).sum();
        let keys = shared.clone();
        let sealed = off_thread(bytes, move || {
            jobs.into_iter()
                .map(|mut job| {
                    let sealed = keys.keys.seal(job.id, &job.payload);
                    zeroize::Zeroize::zeroize(&mut job.payload);
                    if let Some(mut notify) = job.notify.take() {
                        job.notify = Some(keys.keys.seal(job.id, &notify)?);
                        zeroize::Zeroize::zeroize(&mut notify);
                    }
                    sealed.map(|sealed| (job, sealed))
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await?
        .map_err(|error| QueueError::Corrupt(error.to_string()))?;
        let mut answers: Vec<Option<(Submitted, Option<String>, [u8; 32])>> =
            Vec::with_capacity(sealed.len());
        let (reply, answer) = oneshot::channel();
        shared.with(|state, now| {
            let mut accepts = Vec::with_capacity(sealed.len());
            for (job, sealed) in sealed {
                match state.core.reserve(job.device.as_ref(), job.notify.is_some()) {
                    Err(what) => {
                        let retry_after = Duration::from_secs(1);
                        let full = Submitted::Full { what, retry_after };
                        answers.push(Some((full, job.idempotency_key, job.digest)));
                    }
                    Ok(()) => {
                        answers.push(None);
                        accepts.push(accept(shared, state, job, sealed, now));
                    }
                }
            }
            shared.perform(state, now);
            shared.send(Work::Accept(accepts), true, false, admit(shared, reply));
        });
        let taken = shared.answer(answer).await?;
        let mut taken = taken.into_iter();
        let mut out = Vec::with_capacity(answers.len());
        for slot in answers {
            out.push(match slot {
                // A full queue does not hide what was accepted before.
                Some((full, Some(key), digest)) => {
                    match shared.read(move |db, now| store::by_key(db, &key, digest, now)).await? {
                        Some(Inserted::Known(id)) => shared.known(id).await?,
                        Some(Inserted::Reused(id)) => Submitted::KeyReused(id),
                        Some(Inserted::Yes) | None => full,
                    }
                }
                Some((full, None, _)) => full,
                None => match taken.next() {
                    Some(Taken::Accepted(job)) => Submitted::Accepted(*job),
                    Some(Taken::Reused(id)) => Submitted::KeyReused(id),
                    Some(Taken::Known(id)) => shared.known(id).await?,
                    None => return Err(QueueError::Closed),
                },
            });
        }
        Ok(out)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        self.shared.find(id).await
    }

    async fn ended(&self, id: JobId, wait: Duration) -> Result<Option<Job>, QueueError> {
        let waiter = self.shared.with(|state, _| {
            let live = state.core.job(id).is_some_and(|job| !job.status.is_final());
            live.then(|| {
                let (tell, told) = oneshot::channel();
                let waiters = state.waiters.entry(id).or_default();
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(tell);
                told
            })
        });
        if let Some(told) = waiter {
            // The end or the time's end: either way the job is read as it then stands.
            drop(tokio::time::timeout(wait, told).await);
        }
        self.shared.find(id).await
    }

    async fn list(&self, query: &JobQuery) -> Result<Page, QueueError> {
        // During an outage what is on disk is listed, and what is known better shown instead.
        if let Err(QueueError::Closed) = self.shared.barrier(Work::Barrier).await {
            return Err(QueueError::Closed);
        }
        let query = query.clone();
        let mut page = self.shared.read(move |db, now| store::list(db, &query, now)).await?;
        if self.shared.condition.outage().is_some() {
            self.shared.with(|state, now| {
                for job in &mut page.jobs {
                    if let Some(known) = Shared::remembered(state, job.id, now) {
                        *job = known;
                    }
                }
            });
        }
        Ok(page)
    }

    async fn cancel(&self, id: JobId, reason: &str) -> Result<Canceled, QueueError> {
        let shared = &self.shared;
        loop {
            let (met, written) = shared.with(|state, now| match state.core.cancel(id, reason, now) {
                Cancel::Once(record) => {
                    shared.perform(state, now);
                    (Cancel::Ending, Some(shared.end_once(id, record, false)))
                }
                other => (other, None),
            });
            if let Some(written) = written {
                if let Some(job) = shared.answer(written).await? {
                    return Ok(Canceled::BeforeStart(job));
                }
                continue;
            }
            return Ok(match met {
                Cancel::Asked(job) => Canceled::Asked(*job),
                Cancel::Late(job) => Canceled::TooLate(*job),
                Cancel::Ending | Cancel::Once(_) => {
                    shared.barrier(Work::Barrier).await?;
                    continue;
                }
                Cancel::Unknown => match shared.find(id).await? {
                    Some(job) if job.status.is_final() => Canceled::TooLate(job),
                    // It was on its way in while we looked.
                    Some(_) => {
                        shared.barrier(Work::Barrier).await?;
                        continue;
                    }
                    None => Canceled::Unknown,
                },
            });
        }
    }

    async fn cancel_waiting(&self, query: &JobQuery) -> Result<Vec<JobId>, QueueError> {
        let shared = &self.shared;
        let waits = shared.with(|state, now| {
            let ids = state.core.waiting_jobs(|job| matches(query, job));
            let mut waits = Vec::with_capacity(ids.len());
            for id in ids {
                if let Cancel::Once(record) = state.core.cancel(id, "its queue was emptied", now) {
                    shared.perform(state, now);
                    waits.push((id, shared.end_once(id, record, false)));
                }
            }
            waits
        });
        let mut canceled = Vec::with_capacity(waits.len());
        for (id, wait) in waits {
            if shared.answer(wait).await?.is_some() {
                canceled.push(id);
            }
        }
        Ok(canceled)
    }

    async fn waiting(&self, id: JobId) -> Result<Option<Waiting>, QueueError> {
        Ok(self.shared.with(|state, _| state.core.waiting(id)))
    }

    fn follow(&self, what: Follow, after: Option<EventId>) -> BoxStream<'static, Followed> {
        super::follow::follow(self.shared.clone(), what, after)
    }

    async fn counts(&self) -> Result<JobCounts, QueueError> {
        Ok(self.shared.with(|state, _| {
            let live = state.core.counts();
            JobCounts { queued: live.queued, started: live.started, oldest: live.oldest, ..state.ended }
        }))
    }

    async fn health(&self) -> Result<(), QueueError> {
        self.shared.barrier(Work::Touch).await
    }

    async fn join(&self, node: &str, role: Role) -> Result<mpsc::UnboundedReceiver<Signal>, QueueError> {
        let (tell, told) = mpsc::unbounded_channel();
        self.shared.with(|state, now| {
            // What the earlier life loses is told to the earlier channel.
            state.core.leave(node, now);
            self.shared.perform(state, now);
            state.signals.insert(node.to_owned(), tell);
            state.core.join(node, role, now);
        });
        Ok(told)
    }

    async fn nodes(&self) -> Result<Vec<NodeStatus>, QueueError> {
        Ok(self.shared.with(|state, _| state.core.node_statuses()))
    }

    async fn deliveries(&self, limit: usize, hold: Duration) -> Result<Due, QueueError> {
        self.shared.deliveries(limit, hold).await
    }

    async fn settle(&self, delivery: DeliveryId, epoch: u64, how: Delivered) -> Result<Verdict, QueueError> {
        self.shared.settle(delivery, epoch, &how).await
    }

    async fn suspend(&self, node: &str) -> Result<(), QueueError> {
        self.shared.with(|state, _| state.core.suspend(node));
        Ok(())
    }

    async fn leave(&self, node: &str) -> Result<(), QueueError> {
        self.shared.with(|state, now| {
            state.core.leave(node, now);
            self.shared.perform(state, now);
            state.signals.remove(node);
        });
        Ok(())
    }

    async fn acquire(&self, node: &str, device: &DeviceKey) -> Result<Option<Lease>, QueueError> {
        Ok(self.shared.with(|state, _| state.core.acquire(node, device)))
    }

    async fn renew(&self, node: &str) -> Result<Vec<Lease>, QueueError> {
        self.shared
            .with(|state, now| state.core.renew(node, now))
            .ok_or_else(|| QueueError::UnknownNode(node.to_owned()))
    }

    async fn release(&self, lease: &Lease) -> Result<(), QueueError> {
        self.shared.with(|state, now| state.core.release(lease, now));
        Ok(())
    }

    fn lease_time(&self) -> Duration {
        self.shared.options.lease
    }

    async fn claim(&self, lease: &Lease) -> Result<Option<Claim>, QueueError> {
        self.shared.take(&lease.node, |state, now| state.core.claim(lease, now)).await
    }

    async fn claim_fifo(&self, node: &str, per_device: usize) -> Result<Option<Claim>, QueueError> {
        self.shared.take(node, |state, now| state.core.claim_fifo(node, per_device, now)).await
    }

    fn progress(&self, token: &ClaimToken, what: What) -> Verdict {
        let what = events::cut(what);
        self.shared.with(|state, now| state.core.progress(token, what, now.wall))
    }

    async fn retry(
        &self,
        token: &ClaimToken,
        delay: Duration,
        why: &ErrorInfo,
    ) -> Result<Verdict, QueueError> {
        Ok(self.shared.with(|state, now| state.core.retry(token, delay, why, now)))
    }

    async fn complete(&self, token: &ClaimToken, completion: Completion) -> Result<Verdict, QueueError> {
        let shared = &self.shared;
        let written = shared.with(|state, now| match state.core.complete(token, completion, now) {
            Completed::Stale => Err(Verdict::Stale),
            Completed::Seen => Err(Verdict::Taken),
            Completed::Once(record) => {
                shared.perform(state, now);
                Ok(Some(shared.end_once(token.job, record, true)))
            }
            Completed::Pending => Ok(None),
        });
        match written {
            Err(verdict) => Ok(verdict),
            Ok(Some(written)) => shared.answer(written).await.map(|_| Verdict::Taken),
            Ok(None) => shared.barrier(Work::Barrier).await.map(|()| Verdict::Taken),
        }
    }

    fn put_worker(&self, record: WorkerRecord) {
        self.shared.workers.lock().insert(record.name.clone(), record);
    }

    fn remove_worker(&self, name: &str) {
        self.shared.workers.lock().remove(name);
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, QueueError> {
        Ok(self.shared.workers.lock().values().cloned().collect())
    }

    async fn stop_worker(&self, name: &str) -> Result<bool, QueueError> {
        let Some(node) = self.shared.workers.lock().get(name).map(|record| record.hostname.clone()) else {
            return Ok(false);
        };
        let told = self.shared.with(|state, _| {
            let channel = state.signals.get(&node);
            channel.is_some_and(|channel| channel.send(Signal::StopWorker(name.to_owned())).is_ok())
        });
        Ok(told)
    }

    async fn close(&self) {
        self.timer.abort();
        self.join_writer().await;
    }
}

/// Builds the job of a submission that has its place.
fn accept(shared: &Shared, state: &mut State, new: NewJob, sealed: Vec<u8>, now: Moment) -> Accept {
    let (seq, at) = state.core.next_seq(now);
    let (sealed, room) = shared.sealed(sealed);
    let job = Job {
        id: new.id,
        status: JobStatus::Queued,
        queue: new.queue,
        device: new.device,
        kind: new.kind,
        priority: new.priority,
        driver: new.driver,
        device_name: new.device_name,
        command: Some(new.command),
        task_id: None,
        attempt: 0,
        created_at: at,
        enqueued_at: Some(at),
        started_at: None,
        ended_at: None,
        worker: None,
        result: None,
    };
    let payload = room.then(|| sealed.clone());
    let mut live = Live::new(job, seq, new.ttl, new.timeout, new.result_ttl, new.retry, payload);
    live.notifies = new.notify.is_some();
    Accept { live, sealed, notify: new.notify, idempotency_key: new.idempotency_key, digest: new.digest }
}

/// What happens when accepted jobs are on disk, or could not be.
fn admit(shared: &Shared, reply: oneshot::Sender<Result<Vec<Taken>, QueueError>>) -> Done {
    let me = shared.me.clone();
    Box::new(move |work, report| {
        let (Work::Accept(accepts), Some(shared)) = (work, me.upgrade()) else {
            return;
        };
        let answer = shared.with(|state, now| match report {
            Ok(report) => {
                let mut taken = Vec::with_capacity(accepts.len());
                for (accept, inserted) in accepts.into_iter().zip(report.inserted) {
                    taken.push(match inserted {
                        Inserted::Yes => {
                            let job = Box::new(accept.live.job.clone());
                            state.core.admit(accept.live, now);
                            Taken::Accepted(job)
                        }
                        Inserted::Known(id) => {
                            state.core.unreserve(accept.live.job.device.as_ref(), accept.live.notifies);
                            Taken::Known(id)
                        }
                        Inserted::Reused(id) => {
                            state.core.unreserve(accept.live.job.device.as_ref(), accept.live.notifies);
                            Taken::Reused(id)
                        }
                    });
                }
                Ok(taken)
            }
            Err(error) => {
                for accept in &accepts {
                    state.core.unreserve(accept.live.job.device.as_ref(), accept.live.notifies);
                }
                Err(error)
            }
        });
        drop(reply.send(answer));
    })
}

/// Whether a job is meant by `queue`, `host` and `status` of a query.
fn matches(query: &JobQuery, job: &Job) -> bool {
    query.queue.as_ref().is_none_or(|queue| *queue == job.queue)
        && query.host.as_ref().is_none_or(|host| job.device.as_ref().is_some_and(|d| d.matches_host(host)))
        && (query.status.is_empty() || query.status.contains(&job.status))
        && query.since.is_none_or(|since| job.created_at >= since)
        && query.until.is_none_or(|until| job.created_at < until)
}
