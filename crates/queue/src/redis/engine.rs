//! The calls of [`Queue`] on Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use netpulse_model::event::{EventId, What};
use netpulse_model::result::ResultType;
use netpulse_model::worker::WorkerRecord;
use netpulse_model::{
    DeviceKey, ErrorCode, ErrorInfo, ExecutionResult, Job, JobId, JobKind, JobResult, JobStatus, Outcome,
    Timestamp,
};
use redis::Cmd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::claims::Held;
use super::lane::{End, Item, Note};
use super::link::Trouble;
use super::record::{self, items, text};
use super::scripts::{Script, lifetime};
use super::submit::off_thread;
use super::{Redis, Reply, Shared, unavailable};
use crate::api::{
    Canceled, Claim, ClaimToken, Completion, Delivered, DeliveryId, Due, Follow, Followed, JobCounts,
    JobQuery, KnownLines, Lease, NewJob, NodeStatus, Page, Queue, QueueError, Role, Signal, Submitted,
    Verdict, Waiting,
};
use crate::events;

/// How a claim's script ended when nobody waits for it any more.
type Claimed = Result<Option<(u64, Vec<redis::Value>)>, QueueError>;

impl Shared {
    /// Runs a claim on a task of its own, so that a caller who goes away leaves no job behind.
    async fn take(
        self: &Arc<Self>,
        node: &str,
        life: String,
        device: Option<DeviceKey>,
        script: Script,
        arguments: impl Fn(&mut Cmd, &str) + Send + Sync + 'static,
    ) -> Result<Option<Claim>, QueueError> {
        loop {
            let (tell, told) = oneshot::channel::<Claimed>();
            let ticket = Uuid::new_v4().simple().to_string();
            let (shared, name, own) = (Arc::clone(self), node.to_owned(), ticket.clone());
            let mut call = self.scripts.call(script, self.options.clock.ahead(), self.limit(self.until()));
            arguments(&mut call, &ticket);
            self.spawn(async move {
                let claimed = shared.claim_once(call, &name, &own).await;
                if let Err(Ok(Some((_, values)))) = tell.send(claimed) {
                    shared.unclaim(&name, &own, &values).await;
                }
            });
            // However fast the answer, the caller is free to go before it.
            tokio::task::yield_now().await;
            let claimed = told.await.unwrap_or(Err(QueueError::Closed))?;
            let Some((epoch, values)) = claimed else {
                return Ok(None);
            };
            let mut guard = Unclaim { shared: self, node, ticket: &ticket, values: Some(values.clone()) };
            let id = claimed_id(&values)?;
            let record = record::job(id, values.get(1..).unwrap_or_default())?;
            let Some(record) = record else {
                return Err(QueueError::Corrupt(format!("job {id} was claimed, but is not there")));
            };
            let request = record::request(values.get(1..).unwrap_or_default());
            let shared = Arc::clone(self);
            let opened =
                off_thread(request.sealed.len(), move || shared.keys.open_sealed(id, &request.sealed))
                    .await?;
            guard.values = None;
            let token = ClaimToken { job: id, epoch, node: node.to_owned() };
            let held = Held {
                node: node.to_owned(),
                life: life.clone(),
                epoch,
                device: record.job.device.clone(),
                change: record.job.kind == JobKind::Modification,
                pinned: device.is_some(),
                notes: 0,
            };
            self.claims.held.lock().insert(id, held);
            match opened {
                Ok(payload) => {
                    return Ok(Some(Claim {
                        job: record.job,
                        token,
                        payload,
                        timeout: request.timeout,
                        retry: request.retry,
                    }));
                }
                Err(error) => {
                    tracing::error!(job = %id, %error, "a stored request cannot be opened");
                    let message =
                        format!("the stored request cannot be opened, so the job was not run: {error}");
                    let change = record.job.kind == JobKind::Modification;
                    let result = JobResult {
                        kind: ResultType::Failed,
                        retval: None,
                        error: Some(ErrorInfo::new(ErrorCode::Internal, message)),
                        outcome: change.then_some(Outcome::NotApplied),
                    };
                    self.complete(&token, Completion { status: JobStatus::Failed, result }).await?;
                }
            }
        }
    }

    async fn claim_once(self: &Arc<Self>, call: Cmd, node: &str, ticket: &str) -> Claimed {
        let until = self.until();
        match self.once(call, until).await {
            Ok(reply) => Ok(claimed(&reply)),
            Err(trouble) => {
                if matches!(trouble, Trouble::Lost(_)) {
                    // It may have been done, or may yet be until its time is over.
                    let (shared, node, ticket) = (Arc::clone(self), node.to_owned(), ticket.to_owned());
                    self.spawn(async move { shared.withdraw(&node, &ticket, until).await });
                }
                Err(unavailable(trouble))
            }
        }
    }

    /// Takes back a claim whose answer was lost, once it can no longer be done.
    async fn withdraw(&self, node: &str, ticket: &str, until: Instant) {
        tokio::time::sleep_until(until + Duration::from_millis(100)).await;
        while let Err(error) = self.unclaim_by(node, ticket, "").await {
            if matches!(error, QueueError::Closed) {
                return;
            }
            tracing::debug!(%error, "a claim cannot be taken back yet");
        }
    }

    async fn unclaim_by(&self, node: &str, ticket: &str, id: &str) -> Result<Reply, QueueError> {
        self.ask(Script::Unclaim, |call| {
            call.arg(node).arg(ticket).arg(id);
        })
        .await
    }

    async fn unclaim(&self, node: &str, ticket: &str, values: &[redis::Value]) {
        let id = values.first().and_then(text).unwrap_or_default();
        while let Err(error) = self.unclaim_by(node, ticket, id).await {
            if matches!(error, QueueError::Closed) {
                return;
            }
            tracing::debug!(%error, "a claim cannot be taken back yet");
        }
    }

    async fn complete(&self, token: &ClaimToken, end: Completion) -> Result<Verdict, QueueError> {
        let mut verdict = self.ending(token, end)?;
        let decided = tokio::time::timeout(self.options.deadline, verdict.wait_for(Option::is_some)).await;
        let decided = match decided {
            Ok(Ok(decided)) => decided.clone().unwrap_or(Err(QueueError::Closed)),
            Ok(Err(_)) => Err(QueueError::Closed),
            Err(_) => {
                return Err(QueueError::Unavailable(
                    "Redis has not confirmed the end; it is held and sent again".into(),
                ));
            }
        };
        self.claims.ending.lock().remove(token);
        self.claims.forget(token.job, token.epoch);
        decided
    }

    /// Sends an end, or joins the one that is on its way.
    fn ending(
        &self,
        token: &ClaimToken,
        mut end: Completion,
    ) -> Result<watch::Receiver<Option<Result<Verdict, QueueError>>>, QueueError> {
        let mut ending = self.claims.ending.lock();
        if let Some(slot) = ending.get(token) {
            return Ok(slot.subscribe());
        }
        if !end.status.is_final() {
            let change = self.claims.held.lock().get(&token.job).is_some_and(|held| held.change);
            let message = format!("the worker reported the state `{}`, which is no end", end.status);
            end.status = JobStatus::Failed;
            end.result = JobResult {
                kind: ResultType::Failed,
                retval: None,
                error: Some(ErrorInfo::new(ErrorCode::Internal, message)),
                outcome: change.then_some(Outcome::Unknown),
            };
        }
        let bad = |error: serde_json::Error| QueueError::Corrupt(error.to_string());
        let what = What::Ended {
            status: end.status,
            outcome: end.result.outcome,
            message: end.result.error.as_ref().map(|error| error.message.clone()),
        };
        let status = match end.status {
            JobStatus::Finished => "finished",
            JobStatus::Canceled | JobStatus::Stopped => "canceled",
            _ => "failed",
        };
        let slot = Arc::new(watch::Sender::new(None));
        let receiver = slot.subscribe();
        self.lane.push(Item::End(End {
            token: token.clone(),
            nonce: Uuid::new_v4().simple().to_string(),
            status,
            result: serde_json::to_string(&end.result).map_err(bad)?,
            what: serde_json::to_string(&what).map_err(bad)?,
            slot: Arc::clone(&slot),
        }));
        ending.insert(token.clone(), slot);
        Ok(receiver)
    }

    fn progress(&self, token: &ClaimToken, what: What) -> Verdict {
        let what = events::cut(what);
        let living = self.living(&token.node);
        let mut held = self.claims.held.lock();
        let Some(claim) = held.get_mut(&token.job).filter(|claim| {
            claim.epoch == token.epoch && claim.node == token.node && Some(&claim.life) == living.as_ref()
        }) else {
            return Verdict::Stale;
        };
        claim.notes += 1;
        let mut note = Note {
            token: token.clone(),
            number: claim.notes,
            sort: "",
            line: 0,
            command: String::new(),
            result: String::new(),
            what: match serde_json::to_string(&what) {
                Ok(json) => json,
                Err(error) => {
                    tracing::error!(job = %token.job, %error, "a note cannot be written");
                    return Verdict::Stale;
                }
            },
        };
        if claim.change {
            match &what {
                What::Sending { index, command, .. } => {
                    note.sort = "S";
                    note.line = index + 1;
                    note.command.clone_from(command);
                }
                What::Line { index, command, .. } => {
                    note.sort = "L";
                    note.line = index + 1;
                    note.command.clone_from(command);
                    let mut known = KnownLines::default();
                    known.note(&what);
                    let line: Option<&ExecutionResult> = known.answered.first();
                    note.result = line.and_then(|line| serde_json::to_string(line).ok()).unwrap_or_default();
                }
                _ => {}
            }
        }
        // Still under the lock, so that notes of one claim stay in order.
        self.lane.push(Item::Note(note));
        Verdict::Taken
    }

    async fn cancel(self: &Arc<Self>, id: JobId, reason: &str) -> Result<Canceled, QueueError> {
        self.prepare().await;
        let nonce = Uuid::new_v4().simple().to_string();
        let reply = self
            .ask(Script::Cancel, |call| {
                call.arg(id.to_string()).arg(reason).arg(&nonce);
            })
            .await?;
        let job = || -> Result<Job, QueueError> {
            record::job(id, reply.items(1))?
                .map(|record| record.job)
                .ok_or_else(|| QueueError::Corrupt(format!("job {id} is not there any more")))
        };
        Ok(match reply.text(0) {
            "B" => Canceled::BeforeStart(job()?),
            "A" => Canceled::Asked(job()?),
            "T" => match self.find(id).await? {
                Some(job) => Canceled::TooLate(job),
                None => Canceled::Unknown,
            },
            _ => Canceled::Unknown,
        })
    }
}

fn claimed(reply: &Reply) -> Option<(u64, Vec<redis::Value>)> {
    let epoch = u64::try_from(reply.number(0)).ok().filter(|epoch| *epoch > 0)?;
    let mut values = vec![reply.value(1).clone()];
    values.extend_from_slice(reply.items(2));
    Some((epoch, values))
}

fn claimed_id(values: &[redis::Value]) -> Result<JobId, QueueError> {
    values
        .first()
        .and_then(text)
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| QueueError::Corrupt("a claim without a job".into()))
}

/// Gives a job back when the call that took it is dropped before it could hand it over.
struct Unclaim<'a> {
    shared: &'a Arc<Shared>,
    node: &'a str,
    ticket: &'a str,
    values: Option<Vec<redis::Value>>,
}

impl Drop for Unclaim<'_> {
    fn drop(&mut self) {
        if let Some(values) = self.values.take() {
            let (shared, node, ticket) =
                (Arc::clone(self.shared), self.node.to_owned(), self.ticket.to_owned());
            self.shared.spawn(async move { shared.unclaim(&node, &ticket, &values).await });
        }
    }
}

#[async_trait]
impl Queue for Redis {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, QueueError> {
        self.shared.submit(jobs).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        self.shared.find(id).await
    }

    async fn ended(&self, id: JobId, wait: Duration) -> Result<Option<Job>, QueueError> {
        let until = Instant::now() + wait;
        loop {
            // Registered before looking, so that no end falls between.
            let (tell, told) = oneshot::channel();
            {
                let mut waiters = self.shared.waiters.lock();
                let waiting = waiters.entry(id).or_default();
                waiting.retain(|waiter| !waiter.is_closed());
                waiting.push(tell);
            }
            let found = self.shared.find(id).await;
            let waits = matches!(&found, Ok(Some(job)) if !job.status.is_final());
            if !waits || Instant::now() >= until {
                drop(told);
                self.shared.forget_waiters(id);
                return found;
            }
            // The end, the time's end or a new connection: the job is read as it then stands.
            drop(tokio::time::timeout_at(until, told).await);
        }
    }

    async fn list(&self, query: &JobQuery) -> Result<Page, QueueError> {
        self.shared.list(query).await
    }

    async fn cancel(&self, id: JobId, reason: &str) -> Result<Canceled, QueueError> {
        self.shared.cancel(id, reason).await
    }

    async fn cancel_waiting(&self, query: &JobQuery) -> Result<Vec<JobId>, QueueError> {
        let mut canceled = Vec::new();
        for id in self.shared.waiting_jobs(query).await? {
            if let Canceled::BeforeStart(_) = self.shared.cancel(id, "its queue was emptied").await? {
                canceled.push(id);
            }
        }
        Ok(canceled)
    }

    async fn waiting(&self, id: JobId) -> Result<Option<Waiting>, QueueError> {
        self.shared.prepare().await;
        let reply = self
            .shared
            .ask(Script::Waiting, |call| {
                call.arg(id.to_string());
            })
            .await?;
        if reply.0.is_empty() {
            return Ok(None);
        }
        let some = |at: usize| Some(reply.text(at)).filter(|text| !text.is_empty());
        let due = reply.number(2);
        Ok(Some(Waiting {
            ahead: u64::try_from(reply.number(0)).unwrap_or(0),
            behind: some(1).and_then(|id| id.parse().ok()),
            not_before: (due > 0).then_some(netpulse_model::Timestamp(due)),
            held_for: some(5).and_then(|why| serde_json::from_str(why).ok()),
            node: some(3).map(str::to_owned),
            nobody: some(4).map(|why| {
                match why {
                    "f" => "No available FIFO worker to run the job",
                    "n" => "No available node to run the job",
                    _ => "No capacity on nodes",
                }
                .to_owned()
            }),
        }))
    }

    fn follow(&self, what: Follow, after: Option<EventId>) -> BoxStream<'static, Followed> {
        super::follow::follow(Arc::clone(&self.shared), what, after)
    }

    async fn counts(&self) -> Result<JobCounts, QueueError> {
        self.shared.prepare().await;
        let mut counts = redis::cmd("HMGET");
        counts.arg(self.shared.key("counts"));
        counts.arg(&["queued", "started", "finished", "failed", "canceled"]);
        let mut first = redis::cmd("ZRANGE");
        first.arg(self.shared.key("waiting")).arg(0).arg(0).arg("WITHSCORES");
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.add_command(counts).add_command(first);
        let answers = self.shared.read(&pipe).await?;
        let number = |answer: usize, at: usize| {
            answers.get(answer).and_then(|answer| items(answer).get(at)).and_then(record::number)
        };
        let get = |at: usize| number(0, at).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Ok(JobCounts {
            queued: get(0),
            started: get(1),
            finished: get(2),
            failed: get(3),
            canceled: get(4),
            oldest: number(1, 1).map(Timestamp),
        })
    }

    async fn health(&self) -> Result<(), QueueError> {
        self.shared.ask(Script::Health, |_| ()).await.map(|_| ())
    }

    async fn join(&self, node: &str, role: Role) -> Result<mpsc::UnboundedReceiver<Signal>, QueueError> {
        self.shared.join(node, role).await
    }

    async fn nodes(&self) -> Result<Vec<NodeStatus>, QueueError> {
        self.shared.nodes().await
    }

    async fn suspend(&self, node: &str) -> Result<(), QueueError> {
        self.shared.suspend(node).await
    }

    async fn leave(&self, node: &str) -> Result<(), QueueError> {
        self.shared.leave(node).await
    }

    async fn acquire(&self, node: &str, device: &DeviceKey) -> Result<Option<Lease>, QueueError> {
        self.shared.acquire(node, device).await
    }

    async fn renew(&self, node: &str) -> Result<Vec<Lease>, QueueError> {
        self.shared.renew(node).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), QueueError> {
        self.shared.release(lease).await
    }

    fn lease_time(&self) -> Duration {
        self.shared.options.lease
    }

    async fn claim(&self, lease: &Lease) -> Result<Option<Claim>, QueueError> {
        self.shared.prepare().await;
        let Some(life) = self.shared.living(&lease.node) else {
            return Ok(None);
        };
        let own = lease.clone();
        self.shared
            .take(&lease.node, life, Some(lease.device.clone()), Script::Claim, move |call, ticket| {
                call.arg(&own.node).arg(own.device.as_str()).arg(own.epoch).arg(ticket);
            })
            .await
    }

    async fn claim_fifo(&self, node: &str, per_device: usize) -> Result<Option<Claim>, QueueError> {
        self.shared.prepare().await;
        let Some(life) = self.shared.living(node) else {
            return Ok(None);
        };
        let (name, own) = (node.to_owned(), life.clone());
        self.shared
            .take(node, life, None, Script::ClaimFifo, move |call, ticket| {
                call.arg(&name).arg(&own).arg(per_device.max(1)).arg(ticket);
            })
            .await
    }

    fn progress(&self, token: &ClaimToken, what: What) -> Verdict {
        self.shared.progress(token, what)
    }

    async fn retry(
        &self,
        token: &ClaimToken,
        delay: Duration,
        why: &ErrorInfo,
    ) -> Result<Verdict, QueueError> {
        let shared = &self.shared;
        let held_for = serde_json::to_string(why).map_err(|error| QueueError::Corrupt(error.to_string()))?;
        shared.prepare().await;
        // What was noted decides whether a modification may be taken back.
        if !shared.lane.barrier(shared.options.deadline).await {
            return Err(QueueError::Unavailable("Redis has not confirmed what was noted before".into()));
        }
        let nonce = Uuid::new_v4().simple().to_string();
        let reply = shared
            .ask(Script::Retry, |call| {
                call.arg(token.job.to_string()).arg(token.epoch).arg(&token.node);
                call.arg(&nonce).arg(lifetime(delay)).arg(&why.message).arg(&held_for);
            })
            .await?;
        if reply.text(0) == "1" {
            shared.claims.forget(token.job, token.epoch);
            return Ok(Verdict::Taken);
        }
        Ok(Verdict::Stale)
    }

    async fn complete(&self, token: &ClaimToken, completion: Completion) -> Result<Verdict, QueueError> {
        self.shared.prepare().await;
        self.shared.complete(token, completion).await
    }

    async fn deliveries(&self, limit: usize, hold: Duration) -> Result<Due, QueueError> {
        self.shared.deliveries(limit, hold).await
    }

    async fn settle(&self, delivery: DeliveryId, epoch: u64, how: Delivered) -> Result<Verdict, QueueError> {
        self.shared.settle(delivery, epoch, how).await
    }

    fn put_worker(&self, record: WorkerRecord) {
        self.shared.put_worker(&record);
    }

    fn remove_worker(&self, name: &str) {
        self.shared.remove_worker(name);
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, QueueError> {
        self.shared.workers().await
    }

    async fn stop_worker(&self, name: &str) -> Result<bool, QueueError> {
        self.shared.lane.barrier(self.shared.options.deadline).await;
        let reply = self
            .shared
            .ask(Script::StopWorker, |call| {
                call.arg(name);
            })
            .await?;
        Ok(reply.text(0) == "1")
    }

    async fn close(&self) {
        self.shared.lane.barrier(self.shared.options.deadline).await;
        self.crash().await;
    }
}
