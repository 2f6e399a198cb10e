//! The node: hears what waits, starts and ends workers, keeps leases, drains.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netpulse_config::Config;
use netpulse_model::worker::{WorkerRecord, WorkerState};
use netpulse_model::{DeviceKey, JobId, QueueName, Timestamp};
use netpulse_plugin::{Credentials, Drivers, Templates};
use netpulse_queue::{Queue, QueueError, Role, Signal, worker_name};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::breaker::Breakers;
use crate::device::{self, Mailbox};
use crate::fence::Clock;
use crate::fifo;
use crate::metrics::Metrics;

/// Which work a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Devices and `FifoQ`, under one name.
    All,
    /// Devices, each by a worker of its own.
    Devices,
    /// `FifoQ`, under the name of its one worker.
    Fifo,
}

impl Serves {
    fn devices(self) -> bool {
        self != Self::Fifo
    }

    fn fifo(self) -> bool {
        self != Self::Devices
    }

    /// What the queue is told. A lease for each pinned worker, whose bound is kept here, and one for
    /// each FIFO slot, whose modifications hold their device's too.
    fn role(self, config: &Config) -> Role {
        let pinned = if self.devices() { config.worker.pinned_per_node.max(1) } else { 0 };
        let slots = if self.fifo() { config.worker.fifo_concurrency.max(1) } else { 0 };
        Role { capacity: pinned.saturating_add(slots), devices: self.devices(), fifo: self.fifo() }
    }
}

/// What a node needs.
pub struct NodeParts {
    /// Which work it takes.
    pub serves: Serves,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where jobs come from.
    pub queue: Arc<dyn Queue>,
    /// How to reach devices.
    pub drivers: Drivers,
    /// How to render payloads and parse outputs.
    pub templates: Arc<dyn Templates>,
    /// Where secrets come from that requests only refer to.
    pub credentials: Credentials,
    /// Where it counts.
    pub metrics: Metrics,
}

/// Cancels remembered that found no run: those of jobs claimed this very moment.
const EARLY_CANCELS: usize = 1024;

/// Longest that a node waits for the store to hear that it goes.
const STORE_TOLD: Duration = Duration::from_secs(5);

/// What the workers of a node share.
pub(crate) struct Inner {
    pub(crate) name: String,
    serves: Serves,
    pub(crate) config: Arc<Config>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) drivers: Drivers,
    pub(crate) templates: Arc<dyn Templates>,
    pub(crate) credentials: Credentials,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) connects: Semaphore,
    pub(crate) breakers: Breakers,
    pub(crate) fifo_wake: Notify,
    /// When the last renewal that succeeded was asked for.
    renewals: watch::Sender<Instant>,
    /// Somebody asked for a drain.
    asked: CancellationToken,
    outbox: Arc<Notify>,
    /// Take nothing more; end after the current job.
    pub(crate) stopping: CancellationToken,
    running: Mutex<HashMap<JobId, CancellationToken>>,
    /// Cancels that came between a claim and its run.
    early_cancels: Mutex<VecDeque<JobId>>,
    leases: Mutex<HashMap<DeviceKey, Vec<(u64, CancellationToken)>>>,
    tickets: AtomicU64,
    owners: Mutex<Owners>,
    tasks: TaskTracker,
    fifo: Mutex<WorkerRecord>,
}

/// The pinned workers, and devices that wait until one of them makes room.
#[derive(Default)]
struct Owners {
    running: HashMap<DeviceKey, Arc<Mailbox>>,
    waiting: VecDeque<DeviceKey>,
    /// Those in `waiting`, so that none waits twice.
    listed: HashSet<DeviceKey>,
}

impl Owners {
    fn wait(&mut self, device: DeviceKey) {
        if self.listed.insert(device.clone()) {
            self.waiting.push_back(device);
        }
    }

    fn next(&mut self) -> Option<DeviceKey> {
        let device = self.waiting.pop_front()?;
        self.listed.remove(&device);
        Some(device)
    }
}

impl Inner {
    pub(crate) fn fifo_name(&self) -> String {
        worker_name(&self.name, &QueueName::Fifo)
    }

    pub(crate) fn pinned_name(&self, device: &DeviceKey) -> String {
        worker_name(&self.name, &QueueName::Host(device.clone()))
    }

    /// Between two questions to a store that does not answer.
    pub(crate) async fn store_pause(&self) {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }

    /// Makes a job cancelable.
    pub(crate) fn running(&self, job: JobId) -> CancellationToken {
        let token = CancellationToken::new();
        self.running.lock().insert(job, token.clone());
        let mut early = self.early_cancels.lock();
        if let Some(at) = early.iter().position(|id| *id == job) {
            early.remove(at);
            token.cancel();
        }
        token
    }

    pub(crate) fn no_longer_running(&self, job: JobId) {
        self.running.lock().remove(&job);
    }

    /// Has `lost` cancelled when the lease of `device` is lost. Returns the ticket to end it with.
    pub(crate) fn watch_lease(&self, device: &DeviceKey, lost: CancellationToken) -> u64 {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.leases.lock().entry(device.clone()).or_default().push((ticket, lost));
        ticket
    }

    /// Ends [`Inner::watch_lease`].
    pub(crate) fn unwatch_lease(&self, device: &DeviceKey, ticket: u64) {
        let mut leases = self.leases.lock();
        if let Some(watchers) = leases.get_mut(device) {
            watchers.retain(|(mine, _)| *mine != ticket);
            if watchers.is_empty() {
                leases.remove(device);
            }
        }
    }

    /// One more FIFO job ended.
    pub(crate) fn fifo_ended(&self, succeeded: bool) {
        let mut record = self.fifo.lock();
        if succeeded {
            record.successful_job_count += 1;
        } else {
            record.failed_job_count += 1;
        }
    }

    /// Makes sure that `device` has a worker of this node, and wakes it.
    fn wake(self: &Arc<Self>, device: DeviceKey) {
        if self.stopping.is_cancelled() {
            return;
        }
        let mut owners = self.owners.lock();
        if let Some(mailbox) = owners.running.get(&device) {
            mailbox.wake();
            return;
        }
        if owners.running.len() >= self.config.worker.pinned_per_node.max(1) {
            owners.wait(device);
            // The one that has been idle longest makes room (D16: capacity is never for ever).
            let idle = owners
                .running
                .values()
                .filter(|m| !m.stop.is_cancelled())
                .filter_map(|m| m.idle_since.lock().map(|since| (since, Arc::clone(m))))
                .min_by_key(|(since, _)| *since);
            if let Some((_, mailbox)) = idle {
                mailbox.stop.cancel();
            }
            return;
        }
        self.start(&mut owners, device);
    }

    fn start(self: &Arc<Self>, owners: &mut Owners, device: DeviceKey) {
        let mailbox = Arc::new(Mailbox::new());
        owners.running.insert(device.clone(), Arc::clone(&mailbox));
        self.tasks.spawn(device::run(Arc::clone(self), device, mailbox));
    }

    /// A pinned worker wants to end. False when it was woken meanwhile and has to go on.
    pub(crate) fn retire(self: &Arc<Self>, device: &DeviceKey, mailbox: &Arc<Mailbox>) -> bool {
        let mut owners = self.owners.lock();
        let stopped = mailbox.stop.is_cancelled() || self.stopping.is_cancelled();
        if !stopped && mailbox.woken() {
            return false;
        }
        if owners.running.get(device).is_some_and(|mine| Arc::ptr_eq(mine, mailbox)) {
            owners.running.remove(device);
        }
        if self.stopping.is_cancelled() {
            return true;
        }
        // What was woken after the stop goes to a successor, behind those that wait already.
        if mailbox.woken() {
            owners.wait(device.clone());
        }
        while owners.running.len() < self.config.worker.pinned_per_node.max(1) {
            let Some(next) = owners.next() else { break };
            if !owners.running.contains_key(&next) {
                self.start(&mut owners, next);
            }
        }
        true
    }

    /// Whether a worker that has just gone idle is to make room for another device.
    pub(crate) fn room_wanted(&self) -> bool {
        !self.owners.lock().waiting.is_empty()
    }

    fn hear(self: &Arc<Self>, signal: Signal) {
        match signal {
            Signal::Device(device) => self.wake(device),
            Signal::Fifo => self.fifo_wake.notify_one(),
            Signal::Cancel(job) => {
                let token = self.running.lock().get(&job).cloned();
                match token {
                    Some(token) => token.cancel(),
                    None => {
                        let mut early = self.early_cancels.lock();
                        if early.len() == EARLY_CANCELS {
                            early.pop_front();
                        }
                        early.push_back(job);
                    }
                }
            }
            // An idle worker gives it back at once, a busy one after its current job.
            Signal::HandOver(device) => {
                if let Some(mailbox) = self.owners.lock().running.get(&device) {
                    mailbox.hand_over();
                }
            }
            Signal::Outbox => self.outbox.notify_one(),
            Signal::LeaseLost(lease) => {
                self.metrics.lease_lost();
                tracing::warn!(device = %lease.device, epoch = lease.epoch, "lease lost; nothing more is sent there");
                for (_, lost) in self.leases.lock().get(&lease.device).into_iter().flatten() {
                    lost.cancel();
                }
            }
            Signal::StopWorker(name) => {
                if name == self.name || name == self.fifo_name() {
                    tracing::warn!(worker = name, "asked to stop: this node drains");
                    self.asked.cancel();
                    return;
                }
                let owners = self.owners.lock();
                let found = owners.running.iter().find(|(device, _)| self.pinned_name(device) == name);
                if let Some((_, mailbox)) = found {
                    mailbox.stop.cancel();
                }
            }
        }
    }

    /// Renews the leases, well before they end, and says that the node lives.
    async fn keep_leases(self: Arc<Self>) {
        let lease = self.queue.lease_time();
        let mut record = self.record();
        loop {
            let asked = Instant::now();
            let renewed = tokio::time::timeout(lease / 3, self.queue.renew(&self.name)).await;
            self.metrics.store("renew", asked.elapsed());
            match renewed {
                Ok(Ok(lost)) => {
                    self.clock.renewed(asked);
                    self.renewals.send_replace(asked);
                    for lease in lost {
                        self.hear(Signal::LeaseLost(lease));
                    }
                }
                Ok(Err(QueueError::UnknownNode(_))) => self.rejoin().await,
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew leases"),
                Err(_elapsed) => tracing::warn!("the store does not answer a renewal"),
            }
            if !self.clock.good() {
                for (device, watchers) in self.leases.lock().iter() {
                    tracing::warn!(%device, "lease not renewed in time; nothing more is sent there");
                    watchers.iter().for_each(|(_, lost)| lost.cancel());
                }
            }
            self.put_records(&mut record);
            tokio::time::sleep((lease / 4).min(self.clock.left()).max(Duration::from_millis(50))).await;
        }
    }

    /// The store had written this node off (it was frozen for longer than its leases): everything
    /// it held is lost, and it starts anew.
    async fn rejoin(self: &Arc<Self>) {
        for (_, lost) in self.leases.lock().values().flatten() {
            lost.cancel();
        }
        let asked = Instant::now();
        match self.queue.join(&self.name, self.serves.role(&self.config)).await {
            Ok(signals) => {
                tracing::warn!("this node had been written off; joined again");
                self.clock.renewed(asked);
                // The listener before this one ends with its stream.
                tokio::spawn(listen(Arc::clone(self), signals));
                self.fifo_wake.notify_one();
            }
            Err(error) => tracing::warn!(%error, "cannot join again; trying with the next renewal"),
        }
    }

    /// Writes down the workers that speak for the whole node.
    fn put_records(&self, record: &mut WorkerRecord) {
        let status = if self.stopping.is_cancelled() {
            WorkerState::Suspended
        } else if self.running.lock().is_empty() {
            WorkerState::Idle
        } else {
            WorkerState::Busy
        };
        record.last_heartbeat = Timestamp::now();
        record.status = status;
        record.self_healing = self.metrics.self_healing();
        if self.serves.devices() {
            self.queue.put_worker(record.clone());
        }
        if self.serves.fifo() {
            let fifo = {
                let mut fifo = self.fifo.lock();
                fifo.last_heartbeat = record.last_heartbeat;
                if !self.serves.devices() {
                    // It is the node itself.
                    fifo.status = status;
                    fifo.self_healing = record.self_healing;
                }
                fifo.clone()
            };
            self.queue.put_worker(fifo);
        }
    }

    fn record(&self) -> WorkerRecord {
        let now = Timestamp::now();
        WorkerRecord {
            name: self.name.clone(),
            status: WorkerState::Idle,
            pid: std::process::id(),
            hostname: self.name.clone(),
            queues: vec![QueueName::Node(self.name.clone())],
            last_heartbeat: now,
            birth_at: now,
            successful_job_count: 0,
            failed_job_count: 0,
            self_healing: 0,
        }
    }
}

/// A running node.
pub struct Node {
    inner: Arc<Inner>,
    loops: Vec<JoinHandle<()>>,
}

impl Node {
    /// Joins the queue and starts to take jobs.
    ///
    /// # Errors
    /// The store refuses the node.
    pub async fn start(parts: NodeParts) -> Result<Self, QueueError> {
        let NodeParts { serves, config, queue, drivers, templates, credentials, metrics } = parts;
        let name = match serves {
            Serves::All | Serves::Devices => configured_name(&config),
            Serves::Fifo => worker_name(&configured_name(&config), &QueueName::Fifo),
        };
        let now = Timestamp::now();
        let fifo = WorkerRecord {
            name: worker_name(&name, &QueueName::Fifo),
            status: WorkerState::Idle,
            pid: std::process::id(),
            hostname: name.clone(),
            queues: vec![QueueName::Fifo],
            last_heartbeat: now,
            birth_at: now,
            successful_job_count: 0,
            failed_job_count: 0,
            self_healing: 0,
        };
        let signals = queue.join(&name, serves.role(&config)).await?;
        let inner = Arc::new(Inner {
            clock: Clock::new(queue.lease_time()),
            connects: Semaphore::new(config.worker.connects_at_once.max(1)),
            breakers: Breakers::new(
                config.worker.breaker_failures,
                Duration::from_secs(config.worker.breaker_pause),
            ),
            name,
            serves,
            config,
            queue,
            drivers,
            templates,
            credentials,
            metrics,
            fifo_wake: Notify::new(),
            renewals: watch::channel(Instant::now()).0,
            asked: CancellationToken::new(),
            outbox: Arc::default(),
            stopping: CancellationToken::new(),
            running: Mutex::default(),
            early_cancels: Mutex::default(),
            leases: Mutex::default(),
            tickets: AtomicU64::new(0),
            owners: Mutex::default(),
            tasks: TaskTracker::new(),
            fifo: Mutex::new(fifo),
        });
        inner.put_records(&mut inner.record());
        // Jobs accepted before we came wake us by the stream as well.
        inner.fifo_wake.notify_one();
        let loops = vec![
            tokio::spawn(listen(Arc::clone(&inner), signals)),
            tokio::spawn(Arc::clone(&inner).keep_leases()),
        ];
        if serves.fifo() {
            inner.tasks.spawn(fifo::run(Arc::clone(&inner)));
        }
        Ok(Self { inner, loops })
    }

    /// As if the store had said so.
    #[cfg(test)]
    pub(crate) fn hear(&self, signal: Signal) {
        self.inner.hear(signal);
    }

    /// Rung when messages of the outbox are due.
    #[must_use]
    pub fn outbox(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.outbox)
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Changes with every renewal of its leases: a sign that node and store work together. Ends
    /// with the node.
    #[must_use]
    pub fn renewals(&self) -> watch::Receiver<Instant> {
        self.inner.renewals.subscribe()
    }

    /// Resolves when the node was asked to stop from outside (`DELETE /workers/{node}`).
    pub async fn asked_to_stop(&self) {
        self.inner.asked.cancelled().await;
    }

    /// Takes nothing more and gives idle devices to other nodes at once; lets running jobs end
    /// within `worker.drain_timeout`, cancels the rest between lines, closes every session and
    /// leaves.
    pub async fn drain(mut self) {
        let inner = &self.inner;
        // Before the first device is given back, so that it goes to another node.
        match tokio::time::timeout(STORE_TOLD, inner.queue.suspend(&inner.name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the store was not told that this node drains"),
            Err(_elapsed) => tracing::warn!("the store does not answer; draining all the same"),
        }
        inner.stopping.cancel();
        inner.put_records(&mut inner.record());
        inner.tasks.close();
        let patience = Duration::from_secs(inner.config.worker.drain_timeout);
        if tokio::time::timeout(patience, inner.tasks.wait()).await.is_err() {
            let left: Vec<CancellationToken> = inner.running.lock().values().cloned().collect();
            tracing::warn!(
                jobs = left.len(),
                "still running after worker.drain_timeout; canceling between lines"
            );
            for token in left {
                token.cancel();
            }
            if tokio::time::timeout(Duration::from_secs(10), inner.tasks.wait()).await.is_err() {
                tracing::error!("some jobs could not be stopped; they end as after a lost worker");
            }
        }
        for task in self.loops.drain(..) {
            task.abort();
        }
        match tokio::time::timeout(STORE_TOLD, inner.queue.leave(&inner.name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not leave in order; leases run out by themselves");
            }
            Err(_elapsed) => {
                tracing::warn!("the store does not answer; leases run out by themselves");
            }
        }
    }
}

async fn listen(node: Arc<Inner>, mut signals: mpsc::UnboundedReceiver<Signal>) {
    while let Some(signal) = signals.recv().await {
        node.hear(signal);
    }
}

/// The configured name, else the host's.
fn configured_name(config: &Config) -> String {
    if config.worker.node.is_empty() { host_name() } else { config.worker.node.clone() }
}

/// The name of this machine, as it calls itself.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME").map_err(std::io::Error::other))
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "node".to_owned())
}
