//! The calls of [`Queue`] on Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use netpulse_model::event::{EventId, What};
use netpulse_model::worker::WorkerRecord;
use netpulse_model::{DeviceKey, ErrorInfo, ExecutionResult, Job, JobId, Timestamp};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::lane::{Item, Note};
use super::record::{self, items};
use super::scripts::{Script, lifetime};
use super::{Redis, Shared};
use crate::api::{
    Canceled, Claim, ClaimToken, Completion, Delivered, DeliveryId, Due, Follow, Followed, JobCounts,
    JobQuery, KnownLines, Lease, NewJob, Next, NodeStatus, Page, Queue, QueueError, Role, Signal, Submitted,
    Verdict, Waiting,
};
use crate::events;

impl Shared {
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

#[async_trait]
impl Queue for Redis {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, QueueError> {
        self.shared.submit(jobs).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, QueueError> {
        self.shared.find(id).await
    }

    async fn ended(&self, id: JobId, wait: Duration) -> Result<Option<Job>, QueueError> {
        self.shared.ended(id, wait).await
    }

    async fn ended_all(&self, ids: &[JobId], wait: Duration) -> Result<Vec<Option<Job>>, QueueError> {
        Ok(self.shared.ended_all(ids, wait).await)
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
        counts.arg(&["started", "finished", "failed", "canceled"]);
        let mut queued = redis::cmd("ZCARD");
        queued.arg(self.shared.key("waiting"));
        let mut first = redis::cmd("ZRANGE");
        first.arg(self.shared.key("waiting")).arg(0).arg(0).arg("WITHSCORES");
        let mut pipe = redis::Pipeline::with_capacity(3);
        pipe.add_command(counts).add_command(first).add_command(queued);
        let answers = self.shared.read(&pipe).await?;
        let number = |answer: usize, at: usize| {
            answers.get(answer).and_then(|answer| items(answer).get(at)).and_then(record::number)
        };
        let get = |at: usize| number(0, at).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Ok(JobCounts {
            queued: answers.get(2).and_then(record::number).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            started: get(0),
            finished: get(1),
            failed: get(2),
            canceled: get(3),
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
            .take(&lease.node, &life, true, Script::Claim, move |call, ticket| {
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
            .take(node, &life, false, Script::ClaimFifo, move |call, ticket| {
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
        self.shared.complete(token, completion, None).await.map(|(verdict, _)| verdict)
    }

    async fn complete_and_claim(
        &self,
        token: &ClaimToken,
        completion: Completion,
        lease: &Lease,
    ) -> Result<(Verdict, Next), QueueError> {
        self.shared.prepare().await;
        self.shared.complete(token, completion, Some(lease)).await
    }

    async fn put_back(&self, token: &ClaimToken) {
        self.shared.put_back(token).await;
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
