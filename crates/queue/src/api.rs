//! The trait that every engine implements, and the words of its calls.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use netpulse_model::event::{Event, EventId, What};
use netpulse_model::job::RetryPolicy;
use netpulse_model::worker::{NodeInfo, WorkerRecord};
use netpulse_model::{
    DeviceKey, ErrorCode, ErrorInfo, ExecutionResult, Job, JobId, JobKind, JobResult, JobStatus, Priority,
    QueueName, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A name that one running node goes by. Two nodes never share one.
pub type NodeName = String;

/// The name of the worker that serves `queue` on `node`: `sw-a_HostQ_192.0.2.1`, `sw-a_FifoQ`. A
/// node for `FifoQ` alone is named like its worker.
#[must_use]
pub fn worker_name(node: &str, queue: &QueueName) -> String {
    let queue = format!("_{queue}");
    if node.ends_with(&queue) { node.to_owned() } else { format!("{node}{queue}") }
}

/// A job to be accepted.
#[derive(Clone)]
pub struct NewJob {
    /// Its identity, chosen by the submitter.
    pub id: JobId,
    /// `FifoQ` or the device's own queue.
    pub queue: QueueName,
    /// The device it is for, also in `FifoQ`: modifications take its lease.
    pub device: Option<DeviceKey>,
    /// Whether it changes the device.
    pub kind: JobKind,
    /// Its place among the jobs of its queue.
    pub priority: Priority,
    /// The driver's name.
    pub driver: String,
    /// The host as the client wrote it.
    pub device_name: Option<String>,
    /// The commands or lines, masked.
    pub command: Vec<String>,
    /// How long it may wait.
    pub ttl: Duration,
    /// How long it may run.
    pub timeout: Duration,
    /// How long its result is kept.
    pub result_ttl: Duration,
    /// Tries after failed connections; queries only.
    pub retry: RetryPolicy,
    /// The same key within the life of its job gives the same job.
    pub idempotency_key: Option<String>,
    /// Digest of the request, so that a key used again for another request is refused.
    pub digest: [u8; 32],
    /// The request itself, secrets included. The engine seals it before it touches a disk or wire.
    pub payload: Vec<u8>,
    /// Whom to tell when the job has ended, in the words of whoever delivers it; opaque here, sealed
    /// like the request. With it, the end of the job, however it comes, puts a [`Delivery`] into
    /// the outbox in the same step. While messages and jobs that will make one fill the outbox's
    /// bound, a job with it is answered [`Submitted::Full`] (`store.max_outbox`).
    pub notify: Option<Vec<u8>>,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// Durable, in order.
    Accepted(Job),
    /// The key was known: this is the job it stands for.
    Known(Job),
    /// The key was known, but for another request.
    KeyReused(JobId),
    /// A bound was reached: try again after so long. The text names the bound's key.
    Full {
        /// Which bound, in words.
        what: String,
        /// When it may be worth another try.
        retry_after: Duration,
    },
    /// Nobody could run it: no node lives, or none has room for its device. Nothing was kept.
    NoNode {
        /// What is missing, in words.
        why: String,
    },
}

/// Why the store could not be asked. Everything here is temporary unless it says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The store does not answer or cannot write (outage, disk full): 503 on submit.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored cannot be read back.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// The engine has been closed.
    #[error("the store has been closed")]
    Closed,
    /// The node has not joined, or has left: whatever it held is lost, and it has to join again.
    #[error("the node `{0}` has not joined")]
    UnknownNode(NodeName),
    /// Another node of this name lives.
    #[error("a node named `{0}` lives already: give each node a name of its own (`worker.node`)")]
    NameTaken(NodeName),
}

/// The right to be the one writer of one device, until it ends or is renewed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The device.
    pub device: DeviceKey,
    /// Who holds it.
    pub node: NodeName,
    /// Grows with every new holder; never reused.
    pub epoch: u64,
}

/// A job in hands: what it takes to run it and to say how it ended.
#[derive(Clone)]
pub struct Claim {
    /// The job as it stands now (`started`).
    pub job: Job,
    /// Proof of the claim.
    pub token: ClaimToken,
    /// The request, opened.
    pub payload: Vec<u8>,
    /// How long it may run.
    pub timeout: Duration,
    /// Its retry policy.
    pub retry: RetryPolicy,
}

/// Proof that a job was claimed: refused once another claim, a lost lease or an end came between.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimToken {
    /// The job.
    pub job: JobId,
    /// The claim's number: grows with every claim of any job.
    pub epoch: u64,
    /// The node that claimed it.
    pub node: NodeName,
}

/// What follows an end on the same device.
pub enum Next {
    /// The next job, claimed.
    Job(Box<Claim>),
    /// Nothing waits that may start: [`Signal::Device`] tells when something does.
    Nothing,
    /// It was not looked, or the answer was lost: [`Queue::claim`] tells.
    Unknown,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Completion {
    /// `Finished`, `Failed` or `Canceled`.
    pub status: JobStatus,
    /// The result, whole.
    pub result: JobResult,
}

/// What a completion, a renewal or a progress note met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Taken,
    /// The claim or lease is no longer this one's: nothing was changed. A worker that meets this
    /// stops sending. [`Queue::retry`] also refuses so a modification that has begun to send.
    Stale,
}

/// What a cancel met.
#[derive(Debug, Clone, PartialEq)]
pub enum Canceled {
    /// It had not started; it never will.
    BeforeStart(Job),
    /// It runs; its worker has been told and will say between which lines it stopped.
    Asked(Job),
    /// Too late: it had ended.
    TooLate(Job),
    /// No such job.
    Unknown,
}

/// Which jobs to list. Every part given must hold.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// In this queue.
    pub queue: Option<QueueName>,
    /// In one of these states; empty means any.
    pub status: Vec<JobStatus>,
    /// Run by a worker of this node.
    pub node: Option<String>,
    /// For this host (any port) or `host:port`.
    pub host: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most so many; 0 means all.
    pub limit: usize,
}

/// One page of a listing, newest first, stable while jobs come and go.
#[derive(Debug, Clone)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page starts; none when this was the last.
    pub next: Option<String>,
}

/// What a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Leases it may hold at a time.
    pub capacity: usize,
    /// It owns devices and serves their queues.
    pub devices: bool,
    /// It serves `FifoQ`.
    pub fifo: bool,
}

impl From<usize> for Role {
    /// A node for everything, with this capacity.
    fn from(capacity: usize) -> Self {
        Self { capacity, devices: true, fifo: true }
    }
}

/// A node as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// What it takes.
    pub role: Role,
    /// Devices it owns, or that were given to it.
    pub devices: usize,
    /// Jobs it runs.
    pub running: usize,
    /// It renewed in time.
    pub alive: bool,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When it last renewed.
    pub renewed_at: Timestamp,
}

/// A message of the outbox.
pub type DeliveryId = uuid::Uuid;

/// A message of the outbox, in the hands of one courier for a while.
#[derive(Clone)]
pub struct Delivery {
    /// Its identity: the same over every attempt, restart and courier.
    pub id: DeliveryId,
    /// The job as it ended, whole.
    pub job: Job,
    /// [`NewJob::notify`], opened.
    pub notify: Vec<u8>,
    /// Which attempt this is, from 1; a courier that was lost counts as one.
    pub attempt: u32,
    /// Proof of the claim; grows with every claim of any delivery.
    pub epoch: u64,
}

/// What of the outbox is due.
#[derive(Clone, Default)]
pub struct Due {
    /// Claimed for the asker until its hold ends, oldest first.
    pub deliveries: Vec<Delivery>,
    /// When the next one is due, from now: its time comes, or its hold ends. Zero when more are due
    /// than were asked for; none when the outbox is empty.
    pub next: Option<Duration>,
}

/// How an attempt to deliver went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// It arrived, or was given up for good (the text says why, and is published as
    /// [`What::Undelivered`]): forget it.
    Done(Option<String>),
    /// Try again after this.
    Again(Duration),
    /// Nothing was tried, for lack of room: due again after this, and the claim does not count as
    /// an attempt.
    Later(Duration),
    /// Still at it: the hold lasts for this long from now. The claim goes on, its epoch too.
    Held(Duration),
}

/// Chooses nodes for devices that have none. Asked by engines that serve many nodes.
#[async_trait]
pub trait Placer: Send + Sync + 'static {
    /// For each device a node of `nodes`, or none when there is no room for it. `nodes` are alive
    /// and own devices; `count` is what each owns already.
    ///
    /// # Errors
    /// Why none could be chosen for any of them, as a sentence.
    async fn place(&self, nodes: &[NodeInfo], devices: &[DeviceKey])
    -> Result<Vec<Option<NodeName>>, String>;
}

/// What a node is told over its one notification stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Jobs wait for a device that this node owns, or that nobody owns and this node may take.
    Device(DeviceKey),
    /// Jobs wait in `FifoQ`.
    Fifo,
    /// A job that this node runs is to be canceled.
    Cancel(JobId),
    /// A worker of this node is to end after its current job.
    StopWorker(String),
    /// A lease was lost: stop sending to this device now.
    LeaseLost(Lease),
    /// Another node has room and this one more than its share: give this device back as soon as
    /// nothing runs on it.
    HandOver(DeviceKey),
    /// Messages of the outbox are due.
    Outbox,
}

/// Counts for `/system/stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobCounts {
    /// Waiting (also for a retry).
    pub queued: u64,
    /// Running.
    pub started: u64,
    /// Kept results of each end.
    pub finished: u64,
    /// As above.
    pub failed: u64,
    /// As above.
    pub canceled: u64,
    /// When the job that has waited longest was accepted.
    #[serde(default)]
    pub oldest: Option<Timestamp>,
}

/// Whose events to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// One job's, ending with its end.
    Job(JobId),
    /// Everybody's, without end.
    All,
}

/// An item of an event stream.
#[derive(Debug, Clone)]
pub enum Followed {
    /// Something happened.
    Event(Event),
    /// The follower fell behind, or resumed from before what is kept: events before this id are
    /// gone. The jobs themselves still tell the truth.
    Gap(EventId),
}

/// Why a job waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many jobs of its queue go before it.
    pub ahead: u64,
    /// The job that holds its device, if one does.
    pub behind: Option<JobId>,
    /// Not before this time (a retry).
    pub not_before: Option<Timestamp>,
    /// Why its last try did not go, when it is held for the next; unknown after a restart.
    #[serde(default)]
    pub held_for: Option<ErrorInfo>,
    /// The node that owns its device, or that was chosen for it.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// Nobody can run it now, and why (no node lives, none has room), in words.
    #[serde(default)]
    pub nobody: Option<String>,
}

/// Where jobs wait and who owns which device.
///
/// Promises are numbered as in ARCHITECTURE.md. All calls are safe to drop at any `await`: what
/// was already decided stays decided, and the caller finds it with [`Queue::job`].
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    // --- those who ask -------------------------------------------------------------------------

    /// Accepts jobs, all in one transaction, in this order. Returns when they are durable
    /// (promise 1); the answers align with the input.
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, QueueError>;

    /// One job, whole: never final without its result (D1).
    async fn job(&self, id: JobId) -> Result<Option<Job>, QueueError>;

    /// One job as soon as it has ended, or as it stands when `wait` has passed.
    async fn ended(&self, id: JobId, wait: Duration) -> Result<Option<Job>, QueueError>;

    /// [`Queue::ended`] of many: as soon as all have ended, or as they stand when `wait` has passed, in
    /// the order of `ids`. None where nothing is known of a job.
    async fn ended_all(&self, ids: &[JobId], wait: Duration) -> Result<Vec<Option<Job>>, QueueError> {
        let until = tokio::time::Instant::now() + wait;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            found.push(self.ended(*id, left).await?);
        }
        Ok(found)
    }

    /// A page of jobs.
    async fn list(&self, query: &JobQuery) -> Result<Page, QueueError>;

    /// Cancels one job, waiting or running (promise 9).
    async fn cancel(&self, id: JobId, reason: &str) -> Result<Canceled, QueueError>;

    /// Cancels every waiting job that matches `queue` or `host`; returns which.
    async fn cancel_waiting(&self, query: &JobQuery) -> Result<Vec<JobId>, QueueError>;

    /// Why a waiting job waits; none when it does not wait.
    async fn waiting(&self, id: JobId) -> Result<Option<Waiting>, QueueError>;

    /// Events after `after` (all that are kept when none), then as they happen. For one job whose
    /// events are no longer kept, they are made from the job itself.
    fn follow(&self, what: Follow, after: Option<EventId>) -> BoxStream<'static, Followed>;

    /// How many jobs are in which state.
    async fn counts(&self) -> Result<JobCounts, QueueError>;

    /// Whether the store answers and can write.
    async fn health(&self) -> Result<(), QueueError>;

    // --- nodes ---------------------------------------------------------------------------------

    /// Makes a node known and opens its notification stream. Jobs that an earlier life of the
    /// same name had running are settled first (promise 6). Dropping the receiver is leaving
    /// without a word: leases run out.
    ///
    /// # Errors
    /// [`QueueError::NameTaken`] when another node of that name lives elsewhere.
    async fn join(&self, node: &str, role: Role) -> Result<mpsc::UnboundedReceiver<Signal>, QueueError>;

    /// The nodes known: those that live, and those that fell silent and have not come back.
    async fn nodes(&self) -> Result<Vec<NodeStatus>, QueueError>;

    /// The node takes nothing new, while what it has ends: from now on no device and no job of
    /// `FifoQ` is offered to it or given to it, and it is not offered to a [`Placer`]. It keeps what
    /// it holds until it gives it back. Ends with [`Queue::leave`] or another [`Queue::join`].
    async fn suspend(&self, node: &str) -> Result<(), QueueError>;

    /// Leaves: its leases end at once, its workers are removed.
    async fn leave(&self, node: &str) -> Result<(), QueueError>;

    /// Takes a device, if nobody holds it; the lease lasts [`Queue::lease_time`] unless renewed.
    /// A node that holds it already gets the same lease again. None also while a modification of
    /// `FifoQ` runs on it, when the node has all the devices that it joined for (`capacity`), and
    /// when the node has not joined or fell silent: it hears of the device again by
    /// [`Signal::Device`] once it is free, but has to remember itself what it had no room for.
    async fn acquire(&self, node: &str, device: &DeviceKey) -> Result<Option<Lease>, QueueError>;

    /// Prolongs all leases of a node and says that it lives; returns those that were lost since it
    /// last renewed. [`QueueError::UnknownNode`] when it never joined or has left: everything is
    /// lost, join again.
    async fn renew(&self, node: &str) -> Result<Vec<Lease>, QueueError>;

    /// Gives a device back. A job still running under the lease is settled as if its worker was
    /// lost; an old lease changes nothing.
    async fn release(&self, lease: &Lease) -> Result<(), QueueError>;

    /// How long a lease lasts unrenewed.
    fn lease_time(&self) -> Duration;

    /// The next job of a device's own queue, in order (promise 3); none when it is empty, when a
    /// job of the device runs, or when the lease is lost. A modification's start is durable
    /// before this returns (promise 6).
    ///
    /// Order holds over both ways to a device: a modification starts when nothing runs on the
    /// device and nothing accepted before it (by priority, then acceptance) waits for it, in its
    /// own queue or in `FifoQ`; a query does not overtake a modification that waits.
    ///
    /// On [`QueueError::Unavailable`] the job stays where it was and is signalled again: wait a
    /// moment before asking.
    async fn claim(&self, lease: &Lease) -> Result<Option<Claim>, QueueError>;

    /// The next job of `FifoQ` that may run now: a modification only when its device has no other
    /// writer, whose lease the claim then holds until it ends; at most `per_device` jobs of `FifoQ`
    /// at a time on one device. A lease whose owner runs nothing is no hindrance: the owner's next
    /// claim waits for the modification, as only claims allow to send.
    ///
    /// After [`Signal::Fifo`] a node asks until there is none or its slots are full, and again
    /// whenever a slot comes free: it is signalled once until it asks.
    async fn claim_fifo(&self, node: &str, per_device: usize) -> Result<Option<Claim>, QueueError>;

    /// Notes what is about to be sent or was answered: published as an event, and for a
    /// modification written so that a crash still tells the last line known sent. Does not wait
    /// for the disk. Only [`Verdict::Taken`] allows to send the line.
    fn progress(&self, token: &ClaimToken, what: What) -> Verdict;

    /// Puts a query back to be tried again after `delay` (promise 6: modifications are refused
    /// unless nothing was sent, which the caller vouches for).
    async fn retry(
        &self,
        token: &ClaimToken,
        delay: Duration,
        why: &ErrorInfo,
    ) -> Result<Verdict, QueueError>;

    /// Ends a job: stored once, a stale claim changes nothing (promise 7). The outcome of a
    /// modification is durable before this returns; until then readers see it `started` and its
    /// device is held.
    ///
    /// During an outage of the store this waits. [`QueueError::Unavailable`] means that the wait
    /// was given up, not the result: call again with the same completion until there is a verdict
    /// (promise 11). A call that is repeated while the first one is on its way joins it.
    async fn complete(&self, token: &ClaimToken, completion: Completion) -> Result<Verdict, QueueError>;

    /// [`Queue::complete`], then [`Queue::claim`] with the lease of the same device: where the store
    /// is far away, in one step. What a claim that fails means, [`Next::Unknown`] says; the end's
    /// verdict holds whatever became of the claim. A call that is dropped takes no job with it.
    async fn complete_and_claim(
        &self,
        token: &ClaimToken,
        completion: Completion,
        lease: &Lease,
    ) -> Result<(Verdict, Next), QueueError> {
        let verdict = self.complete(token, completion).await?;
        let next = match self.claim(lease).await {
            Ok(Some(claim)) => Next::Job(Box::new(claim)),
            Ok(None) => Next::Nothing,
            Err(_) => Next::Unknown,
        };
        Ok((verdict, next))
    }

    /// Gives back a claim of which nothing was begun: its job waits on at its old place. A claim that is
    /// stale changes nothing; one that cannot be given back now is settled with its lease.
    async fn put_back(&self, token: &ClaimToken) {
        // Whatever it meets, there is nothing more to do about it.
        let why = ErrorInfo::new(ErrorCode::WorkerLost, "its worker could not begin it");
        let _ = self.retry(token, Duration::ZERO, &why).await;
    }

    // --- the outbox ------------------------------------------------------------------------------

    /// Up to `limit` messages that are due, for `hold`: then, unless settled, they are due again
    /// (at least once). [`Signal::Outbox`] says when to ask, and so does [`Due::next`].
    async fn deliveries(&self, limit: usize, hold: Duration) -> Result<Due, QueueError>;

    /// Says how an attempt went. [`Verdict::Stale`], and nothing changed, when the hold has ended
    /// and the message was claimed again, or when this was said already.
    async fn settle(&self, delivery: DeliveryId, epoch: u64, how: Delivered) -> Result<Verdict, QueueError>;

    // --- workers -------------------------------------------------------------------------------

    /// Writes down a worker's state.
    fn put_worker(&self, record: WorkerRecord);

    /// Strikes a worker off.
    fn remove_worker(&self, name: &str);

    /// The workers known.
    async fn workers(&self) -> Result<Vec<WorkerRecord>, QueueError>;

    /// Asks a worker to end after its current job; false when there is none of that name.
    async fn stop_worker(&self, name: &str) -> Result<bool, QueueError>;

    /// Ends the engine: what was accepted is on disk when this returns.
    async fn close(&self);
}

/// The results of lines known from progress notes, for a job whose worker was lost.
#[derive(Debug, Clone, Default)]
pub struct KnownLines {
    /// Lines answered.
    pub answered: Vec<ExecutionResult>,
    /// The line that was on its way, if any.
    pub sending: Option<(usize, String)>,
}

impl KnownLines {
    /// Takes in one progress note; others than `Sending` and `Line` say nothing about lines.
    pub fn note(&mut self, what: &What) {
        match what {
            What::Sending { index, command, .. } => self.sending = Some((*index, command.clone())),
            What::Line { command, stdout, stderr, exit_status, .. } => {
                self.sending = None;
                let mut result = ExecutionResult::ok(command.clone(), "");
                result.stdout = stdout.clone();
                result.stderr = stderr.clone();
                result.exit_status = *exit_status;
                self.answered.push(result);
            }
            _ => {}
        }
    }
}
