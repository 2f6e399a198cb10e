//! The working state of the embedded engine: which jobs wait, who owns which device, what falls due.
//!
//! A plain state machine: it is told the time, decides at once, and leaves what has to be written,
//! published or signalled as effects for its caller. It knows no disk, no thread and no task, so
//! its rules can be tested by themselves.

mod device;
mod ends;
mod nodes;
mod outbox;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::job::RetryPolicy;
use netpulse_model::{DeviceKey, ErrorInfo, Job, JobId, JobKind, JobStatus, Priority, QueueName, Timestamp};

use crate::api::{JobCounts, KnownLines, Lease, NodeName, Signal, Waiting, worker_name};
use crate::clock::{Moment, micros};
use device::Device;
pub(crate) use ends::{Cancel, Completed};
use nodes::Node;
use outbox::Outbox;
pub(crate) use outbox::{Mark, Posted, Taken};

/// A job's place: priority, then acceptance.
pub(crate) type Order = (Priority, u64);

/// A query whose workers were lost this often is not tried again: it may be what kills them.
pub(crate) const LOST_WORKERS: u32 = 3;

/// Bounds and lifetimes.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) max_queued: usize,
    pub(crate) max_queued_per_device: usize,
    pub(crate) max_outbox: usize,
    pub(crate) lease: Duration,
    pub(crate) audit_retention: Duration,
    pub(crate) canceled_ttl: Duration,
}

/// What the caller of the state machine has to do, in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Publish.
    Event { at: Timestamp, job: JobId, device: Option<String>, what: What },
    /// Tell a node.
    Signal { node: NodeName, signal: Signal },
    /// Write behind: nobody waits for it.
    Write(Record),
    /// This job's end can be seen now.
    Ended(JobId, JobStatus),
    /// A node fell silent or left: its workers are no more.
    Gone(NodeName),
}

/// What has to be on disk.
#[derive(Debug)]
pub(crate) enum Record {
    /// A job was started.
    Start { seq: u64, job: Box<Job>, node: NodeName },
    /// It waits again.
    Wait { seq: u64, job: Box<Job>, not_before: Option<Timestamp>, lost: u32 },
    /// What is known of a modification's lines.
    Note { seq: u64, index: usize, note: What },
    /// It is to be canceled once its worker answers.
    CancelAsked { seq: u64, reason: String },
    /// It ended.
    End {
        seq: u64,
        job: Box<Job>,
        node: Option<NodeName>,
        lost: u32,
        expires_at: Timestamp,
        /// Puts a message into the outbox in the same transaction.
        notifies: bool,
    },
}

impl Record {
    pub(crate) fn seq(&self) -> u64 {
        match self {
            Self::Start { seq, .. }
            | Self::Wait { seq, .. }
            | Self::Note { seq, .. }
            | Self::CancelAsked { seq, .. }
            | Self::End { seq, .. } => *seq,
        }
    }
}

/// A sealed request in memory, counted as long as anybody has it.
#[derive(Debug)]
pub(crate) struct Sealed {
    bytes: Box<[u8]>,
    held: Arc<AtomicUsize>,
}

impl Sealed {
    pub(crate) fn new(bytes: Vec<u8>, held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes: bytes.into_boxed_slice(), held: Arc::clone(held) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Which of a device's two ways a running job came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the owner of the device.
    Pinned,
    /// By a slot of `FifoQ`.
    Fifo,
}

/// The claim on a running job.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) node: NodeName,
    pub(crate) epoch: u64,
}

/// Where a live job stands, finer than its status.
#[derive(Debug)]
pub(crate) enum Phase {
    /// In its queue.
    Waiting,
    /// Waits for the time of its next try.
    Delayed,
    /// A worker has it.
    Running(Hold),
    /// Its end is decided but not yet durable; a running one still holds its device.
    Ending { then: Box<Job>, held: Option<Hold> },
    /// Its end can be seen; it stays here until it is on disk.
    Done,
}

/// A job that has not ended, or whose end is not on disk yet.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) job: Job,
    pub(crate) seq: u64,
    pub(crate) ttl: Duration,
    pub(crate) timeout: Duration,
    pub(crate) result_ttl: Duration,
    pub(crate) retry: RetryPolicy,
    /// Sealed; none when memory for payloads ran short and it has to be read from disk.
    pub(crate) payload: Option<Arc<Sealed>>,
    pub(crate) phase: Phase,
    pub(crate) lost: u32,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) held_for: Option<ErrorInfo>,
    pub(crate) cancel: Option<String>,
    /// Its end makes a message of the outbox.
    pub(crate) notifies: bool,
    pub(crate) known: KnownLines,
    /// When the job's next deadline is set for.
    timer: Option<i64>,
}

impl Live {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        job: Job,
        seq: u64,
        ttl: Duration,
        timeout: Duration,
        result_ttl: Duration,
        retry: RetryPolicy,
        payload: Option<Arc<Sealed>>,
    ) -> Self {
        Self {
            job,
            seq,
            ttl,
            timeout,
            result_ttl,
            retry,
            payload,
            phase: Phase::Waiting,
            lost: 0,
            not_before: None,
            held_for: None,
            cancel: None,
            notifies: false,
            known: KnownLines::default(),
            timer: None,
        }
    }

    fn order(&self) -> Order {
        (self.job.priority, self.seq)
    }

    fn is_modification(&self) -> bool {
        self.job.kind == JobKind::Modification
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A delayed job's time has come.
    Due(JobId),
    /// A waiting job has waited too long.
    Expired(JobId),
    /// A node has not renewed.
    Silent(NodeName),
    /// Messages of the outbox are due, or their hold has ended.
    Outbox,
}

/// The state machine.
pub(crate) struct Core {
    rules: Rules,
    jobs: HashMap<JobId, Live>,
    devices: HashMap<DeviceKey, Device>,
    nodes: HashMap<NodeName, Node>,
    /// Everything that waits in `FifoQ`.
    fifo: BTreeSet<Order>,
    /// The first job of each device in `FifoQ` that may start now, and those without a device.
    fifo_ready: BTreeMap<Order, JobId>,
    /// Devices whose own queue has a job that may start now.
    ready: BTreeSet<DeviceKey>,
    timers: BTreeSet<(i64, Timer)>,
    outbox: Outbox,
    epoch: u64,
    seq: u64,
    last_created: Timestamp,
    queued: usize,
    started: usize,
    effects: Vec<Effect>,
}

impl Core {
    /// `epoch` is larger than any used before; `seq` and `last_created` are the last ones used.
    pub(crate) fn new(rules: Rules, epoch: u64, seq: u64, last_created: Timestamp) -> Self {
        Self {
            rules,
            jobs: HashMap::new(),
            devices: HashMap::new(),
            nodes: HashMap::new(),
            fifo: BTreeSet::new(),
            fifo_ready: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            outbox: Outbox::default(),
            epoch,
            seq,
            last_created,
            queued: 0,
            started: 0,
            effects: Vec::new(),
        }
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn live(&self, id: JobId) -> Option<&Live> {
        self.jobs.get(&id)
    }

    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id).map(|live| &live.job)
    }

    /// Waiting and running ones; those that ended are counted elsewhere.
    pub(crate) fn counts(&self) -> JobCounts {
        // One held until its next try waits for nobody.
        let waiting = |live: &&Live| matches!(live.phase, Phase::Waiting);
        let oldest = || self.jobs.values().filter(waiting).map(|live| live.job.created_at).min();
        JobCounts {
            queued: self.queued as u64,
            started: self.started as u64,
            oldest: if self.queued > 0 { oldest() } else { None },
            ..JobCounts::default()
        }
    }

    /// When something falls due next, in steady time.
    pub(crate) fn next_deadline(&self) -> Option<i64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what has fallen due.
    pub(crate) fn tick(&mut self, now: Moment) {
        while let Some((at, _)) = self.timers.first() {
            if *at > now.steady {
                break;
            }
            let Some((_, timer)) = self.timers.pop_first() else {
                break;
            };
            match timer {
                Timer::Due(id) => self.due(id, now),
                Timer::Expired(id) => self.expire(id, now),
                Timer::Silent(node) => self.silent(&node, now),
                Timer::Outbox => self.outbox_due(now),
            }
        }
    }

    // --- acceptance ----------------------------------------------------------------------------

    /// Keeps a place for a job that is being written; the text says which bound was reached.
    /// `notifies` keeps one in the outbox too.
    pub(crate) fn reserve(&mut self, device: Option<&DeviceKey>, notifies: bool) -> Result<(), String> {
        if self.queued >= self.rules.max_queued {
            return Err(format!("{} jobs wait already (store.max_queued)", self.queued));
        }
        if let Some(key) = device {
            let device = self.devices.entry(key.clone()).or_default();
            if device.queued >= self.rules.max_queued_per_device {
                return Err(format!(
                    "{} jobs wait for device {key} already (store.max_queued_per_device)",
                    device.queued
                ));
            }
        }
        if notifies {
            self.reserve_message()?;
        }
        self.count_queued(device, 1);
        Ok(())
    }

    /// Gives the place back: the job was not accepted.
    pub(crate) fn unreserve(&mut self, device: Option<&DeviceKey>, notifies: bool) {
        if notifies {
            self.unreserve_message();
        }
        self.count_queued(device, -1);
        if let Some(key) = device {
            self.refresh(&key.clone());
        }
    }

    /// The next place in the order of acceptance, and its time, which never runs backwards.
    pub(crate) fn next_seq(&mut self, now: Moment) -> (u64, Timestamp) {
        self.seq += 1;
        self.last_created = self.last_created.max(now.wall);
        (self.seq, self.last_created)
    }

    /// A job with a reserved place is durable: it may be seen and started.
    pub(crate) fn admit(&mut self, live: Live, now: Moment) {
        let (id, queue) = (live.job.id, live.job.queue.to_string());
        self.event_of(&live.job, now.wall, What::Queued { queue });
        self.jobs.insert(id, live);
        self.enqueue(id, now);
    }

    /// A job read back from disk that waited, or waits for its next try.
    pub(crate) fn restore(&mut self, mut live: Live, now: Moment) {
        let id = live.job.id;
        if live.notifies {
            self.promise_message();
        }
        self.count_queued(live.job.device.as_ref(), 1);
        match live.not_before {
            Some(at) if at > now.wall => {
                live.phase = Phase::Delayed;
                let delay = at.0.saturating_sub(now.wall.0);
                self.jobs.insert(id, live);
                self.set_timer(id, now.steady.saturating_add(delay), Timer::Due(id));
            }
            _ => {
                self.jobs.insert(id, live);
                self.enqueue(id, now);
            }
        }
    }

    /// A job read back from disk that ran when the process ended.
    pub(crate) fn restore_started(&mut self, live: Live, node: NodeName, now: Moment) {
        let id = live.job.id;
        if live.notifies {
            self.promise_message();
        }
        self.jobs.insert(id, Live { phase: Phase::Running(Hold { node, epoch: 0 }), ..live });
        self.started += 1;
        self.settle(id, ends::Lost::Process, now);
    }

    // --- the queues ----------------------------------------------------------------------------

    /// Puts a job that is counted as queued into its queue.
    fn enqueue(&mut self, id: JobId, now: Moment) {
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        live.phase = Phase::Waiting;
        live.job.status = JobStatus::Queued;
        live.not_before = None;
        live.held_for = None;
        let (order, modification) = (live.order(), live.is_modification());
        let waited = live.job.enqueued_at.map_or(0, |at| now.wall.0.saturating_sub(at.0).max(0));
        let deadline = now.steady.saturating_add(micros(live.ttl)).saturating_sub(waited);
        let (device, queue) = (live.job.device.clone(), live.job.queue.clone());
        self.set_timer(id, deadline, Timer::Expired(id));
        let fifo = !matches!(queue, QueueName::Host(_));
        if fifo {
            self.fifo.insert(order);
        }
        match device {
            Some(key) => {
                let device = self.devices.entry(key.clone()).or_default();
                if fifo { &mut device.fifo } else { &mut device.host }.insert(order, id);
                if modification {
                    device.modifications.insert(order);
                }
                self.refresh(&key);
            }
            None => {
                self.fifo_ready.insert(order, id);
                self.signal_fifo();
            }
        }
    }

    /// Takes a waiting or delayed job out; it is no longer counted as queued.
    fn dequeue(&mut self, id: JobId) {
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        let (order, waiting) = (live.order(), matches!(live.phase, Phase::Waiting));
        let device = live.job.device.clone();
        self.clear_timer(id);
        self.count_queued(device.as_ref(), -1);
        if !waiting {
            return;
        }
        self.fifo.remove(&order);
        match device {
            Some(key) => {
                if let Some(device) = self.devices.get_mut(&key) {
                    device.host.remove(&order);
                    device.fifo.remove(&order);
                    device.modifications.remove(&order);
                }
            }
            None => {
                self.fifo_ready.remove(&order);
            }
        }
    }

    fn count_queued(&mut self, device: Option<&DeviceKey>, change: isize) {
        self.queued = self.queued.saturating_add_signed(change);
        if let Some(key) = device {
            let device = self.devices.entry(key.clone()).or_default();
            device.queued = device.queued.saturating_add_signed(change);
        }
    }

    fn due(&mut self, id: JobId, now: Moment) {
        if let Some(live) = self.jobs.get_mut(&id).filter(|live| matches!(live.phase, Phase::Delayed)) {
            live.timer = None;
            live.job.enqueued_at = Some(now.wall);
            self.enqueue(id, now);
            self.write_wait(id);
        }
    }

    fn write_wait(&mut self, id: JobId) {
        if let Some(live) = self.jobs.get(&id) {
            let record = Record::Wait {
                seq: live.seq,
                job: Box::new(live.job.clone()),
                not_before: live.not_before,
                lost: live.lost,
            };
            self.effects.push(Effect::Write(record));
        }
    }

    fn set_timer(&mut self, id: JobId, at: i64, timer: Timer) {
        self.clear_timer(id);
        if let Some(live) = self.jobs.get_mut(&id) {
            live.timer = Some(at);
            self.timers.insert((at, timer));
        }
    }

    fn clear_timer(&mut self, id: JobId) {
        if let Some(at) = self.jobs.get_mut(&id).and_then(|live| live.timer.take()) {
            self.timers.remove(&(at, Timer::Due(id)));
            self.timers.remove(&(at, Timer::Expired(id)));
        }
    }

    /// The jobs that wait and match, in order of acceptance.
    pub(crate) fn waiting_jobs(&self, matches: impl Fn(&Job) -> bool) -> Vec<JobId> {
        let mut found: Vec<(u64, JobId)> = self
            .jobs
            .values()
            .filter(|live| matches!(live.phase, Phase::Waiting | Phase::Delayed) && matches(&live.job))
            .map(|live| (live.seq, live.job.id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Why a job waits.
    pub(crate) fn waiting(&self, id: JobId) -> Option<Waiting> {
        let live = self.jobs.get(&id)?;
        let order = live.order();
        match live.phase {
            Phase::Waiting => {
                let device = live.job.device.as_ref().and_then(|key| self.devices.get(key));
                let ahead = match (&live.job.queue, device) {
                    (QueueName::Host(_), Some(device)) => device.host.range(..order).count(),
                    _ => self.fifo.range(..order).count(),
                };
                Some(Waiting {
                    ahead: ahead as u64,
                    behind: device.and_then(Device::holder),
                    node: device.and_then(|device| device.lease.as_ref()).map(|lease| lease.node.clone()),
                    ..Waiting::default()
                })
            }
            Phase::Delayed => Some(Waiting {
                not_before: live.not_before,
                held_for: live.held_for.clone(),
                ..Waiting::default()
            }),
            _ => None,
        }
    }

    // --- claims --------------------------------------------------------------------------------

    /// The next job of a device's own queue, if its lease holds and it may start.
    pub(crate) fn claim(&mut self, lease: &Lease, now: Moment) -> Option<JobId> {
        if !self.nodes.get(&lease.node)?.alive {
            return None;
        }
        let device = self.devices.get_mut(&lease.device)?;
        device.signaled = false;
        if device.lease.as_ref() != Some(lease) {
            return None;
        }
        let id = device.host_candidate()?;
        self.start(id, &lease.node, Way::Pinned, now);
        Some(id)
    }

    /// The next job of `FifoQ` that may start.
    pub(crate) fn claim_fifo(&mut self, node: &str, per_device: usize, now: Moment) -> Option<JobId> {
        let state = self.nodes.get_mut(node)?;
        if !state.alive || !state.role.fifo {
            return None;
        }
        state.fifo_signaled = false;
        let per_device = per_device.max(1);
        let id = self.fifo_ready.values().copied().find(|id| {
            let device = self.jobs.get(id).and_then(|live| live.job.device.as_ref());
            device.and_then(|key| self.devices.get(key)).is_none_or(|d| d.fifo_running.len() < per_device)
        })?;
        self.start(id, node, Way::Fifo, now);
        Some(id)
    }

    fn start(&mut self, id: JobId, node: &str, way: Way, now: Moment) {
        self.dequeue(id);
        self.epoch += 1;
        self.started += 1;
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        live.phase = Phase::Running(Hold { node: node.to_owned(), epoch: self.epoch });
        live.known = KnownLines::default();
        live.job.status = JobStatus::Started;
        live.job.attempt += 1;
        live.job.started_at = Some(live.job.enqueued_at.map_or(now.wall, |at| at.max(now.wall)));
        live.job.worker = Some(worker_name(node, &live.job.queue));
        let (device, modification) = (live.job.device.clone(), live.is_modification());
        if let Some(node) = self.nodes.get_mut(node) {
            node.running.insert(id);
        }
        if let Some(key) = device {
            let device = self.devices.entry(key.clone()).or_default();
            match way {
                Way::Pinned => device.pinned = Some(id),
                Way::Fifo => device.fifo_running.push(id),
            }
            if modification {
                device.writer = Some(id);
            }
            self.refresh(&key);
        }
        if !modification {
            self.announce_start(id, now);
            if let Some(record) = self.start_record(id) {
                self.effects.push(Effect::Write(record));
            }
        }
    }

    /// What has to be written before a modification's start counts.
    pub(crate) fn start_record(&self, id: JobId) -> Option<Record> {
        let live = self.jobs.get(&id)?;
        let Phase::Running(hold) = &live.phase else {
            return None;
        };
        Some(Record::Start { seq: live.seq, job: Box::new(live.job.clone()), node: hold.node.clone() })
    }

    /// Publishes a start: a query's at once, a modification's when it is durable.
    pub(crate) fn announce_start(&mut self, id: JobId, now: Moment) {
        if let Some(live) = self.jobs.get(&id).filter(|live| matches!(live.phase, Phase::Running(_))) {
            let job = live.job.clone();
            let worker = job.worker.clone().unwrap_or_default();
            self.event_of(&job, now.wall, What::Started { worker, attempt: job.attempt });
        }
    }

    /// A claim that reached nobody: the job goes back as if it had not been taken.
    pub(crate) fn unclaim(&mut self, id: JobId, epoch: u64, now: Moment) {
        let Some(live) = self.jobs.get_mut(&id) else {
            return;
        };
        if !matches!(&live.phase, Phase::Running(hold) if hold.epoch == epoch) {
            return;
        }
        live.job.attempt = live.job.attempt.saturating_sub(1);
        live.job.started_at = None;
        live.job.worker = None;
        self.free(id);
        self.count_queued_of(id, 1);
        self.enqueue(id, now);
        self.write_wait(id);
    }

    fn count_queued_of(&mut self, id: JobId, change: isize) {
        let device = self.jobs.get(&id).and_then(|live| live.job.device.clone());
        self.count_queued(device.as_ref(), change);
    }

    /// The epoch of the claim under which a job runs.
    pub(crate) fn epoch_of(&self, id: JobId) -> Option<u64> {
        match &self.jobs.get(&id)?.phase {
            Phase::Running(hold) => Some(hold.epoch),
            _ => None,
        }
    }

    /// Takes a running (or ending) job off its node and device.
    fn free(&mut self, id: JobId) {
        let Some(live) = self.jobs.get(&id) else {
            return;
        };
        let (Phase::Running(hold) | Phase::Ending { held: Some(hold), .. }) = &live.phase else {
            return;
        };
        let (node, device) = (hold.node.clone(), live.job.device.clone());
        self.started = self.started.saturating_sub(1);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.running.remove(&id);
        }
        if let Some(device) = device.and_then(|key| self.devices.get_mut(&key)) {
            device.free(id);
        }
    }

    fn event_of(&mut self, job: &Job, at: Timestamp, what: What) {
        let device = job.device.as_ref().map(ToString::to_string);
        self.effects.push(Effect::Event { at, job: job.id, device, what });
    }
}
