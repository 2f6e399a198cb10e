//! The pinned worker: one task that owns one device, its lease, its session and its order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netpulse_model::worker::{WorkerRecord, WorkerState};
use netpulse_model::{DeviceKey, QueueName, Timestamp};
use netpulse_queue::{Lease, Next};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::fence::Fence;
use crate::job::{self, Held};
use crate::metrics::Phase;
use crate::node::Inner;

/// How the node speaks to one pinned worker.
pub(crate) struct Mailbox {
    notify: Notify,
    /// Something may wait that was not looked for yet.
    pending: AtomicBool,
    /// End after the current job.
    pub(crate) stop: CancellationToken,
    /// End for the sake of another node: what waits is for whoever is next, not for this node.
    hand_over: AtomicBool,
    /// Since when it is idle, for choosing who makes room.
    pub(crate) idle_since: parking_lot::Mutex<Option<Instant>>,
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        let mailbox = Self {
            notify: Notify::new(),
            pending: AtomicBool::new(false),
            stop: CancellationToken::new(),
            hand_over: AtomicBool::new(false),
            idle_since: parking_lot::Mutex::new(None),
        };
        mailbox.wake();
        mailbox
    }

    /// Something may wait in the device's queue.
    pub(crate) fn wake(&self) {
        self.pending.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Give the device to another node as soon as nothing runs on it.
    pub(crate) fn hand_over(&self) {
        self.hand_over.store(true, Ordering::SeqCst);
        self.stop.cancel();
    }

    /// Whether it was woken and has not looked since.
    pub(crate) fn woken(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }
}

/// Why an idle worker woke.
enum Woken {
    Work,
    Stop,
    TooLongIdle,
    Keepalive,
    SessionClosed,
    LeaseLost,
}

/// One pinned worker's state, kept small: thousands of them are idle at a time.
struct Owner {
    node: Arc<Inner>,
    device: DeviceKey,
    mailbox: Arc<Mailbox>,
    record: WorkerRecord,
    /// When the record was last written down.
    put_at: Instant,
    held: Option<Held>,
}

/// How often the record of a worker that goes from job to job is written down.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// Owns `device` until it is told to stop, is idle for too long, or loses it.
pub(crate) async fn run(node: Arc<Inner>, device: DeviceKey, mailbox: Arc<Mailbox>) {
    let now = Timestamp::now();
    let record = WorkerRecord {
        name: node.pinned_name(&device),
        status: WorkerState::Idle,
        pid: std::process::id(),
        hostname: node.name.clone(),
        queues: vec![QueueName::Host(device.clone())],
        last_heartbeat: now,
        birth_at: now,
        successful_job_count: 0,
        failed_job_count: 0,
        self_healing: 0,
    };
    let mut owner = Owner { node, device, mailbox, record, put_at: Instant::now(), held: None };
    while owner.own().await {}
    owner.node.queue.remove_worker(&owner.record.name);
}

impl Owner {
    /// Takes the lease and serves until it ends. True when there may be more to do.
    async fn own(&mut self) -> bool {
        let taken = Instant::now();
        // To ask for the lease is to look: when another has it, only a new wake asks again.
        self.mailbox.pending.store(false, Ordering::SeqCst);
        let lease = match self.node.queue.acquire(&self.node.name, &self.device).await {
            Ok(Some(lease)) => lease,
            // Somebody else owns it and serves its queue; we hear of it when they no longer do.
            Ok(None) => return !self.node.retire(&self.device, &self.mailbox),
            Err(error) => {
                tracing::warn!(worker = self.record.name, %error, "cannot take the device's lease; trying again");
                tokio::select! {
                    () = self.mailbox.stop.cancelled() => return !self.node.retire(&self.device, &self.mailbox),
                    () = self.node.store_pause() => return true,
                }
            }
        };
        self.node.metrics.phase(Phase::Lease, taken.elapsed());
        let lost = CancellationToken::new();
        let ticket = self.node.watch_lease(&self.device, lost.clone());
        let fence = Fence::new(&self.node.clock, taken, lost);
        self.put(WorkerState::Idle);
        let polite = Box::pin(self.serve(&lease, &fence)).await;
        if let Some(mut held) = self.held.take().filter(|_| polite) {
            Box::pin(held.session.close()).await;
        }
        self.node.unwatch_lease(&self.device, ticket);
        if self.mailbox.hand_over.load(Ordering::SeqCst) || self.node.stopping.is_cancelled() {
            // With the lease goes what waits; who is woken from here on was chosen anew.
            self.mailbox.pending.store(false, Ordering::SeqCst);
        }
        // The right ends before the name goes: nobody of this node takes it in between.
        if let Err(error) = self.node.queue.release(&lease).await {
            tracing::warn!(worker = self.record.name, %error, "cannot give the lease back; it runs out by itself");
        }
        !self.node.retire(&self.device, &self.mailbox)
    }

    /// Runs jobs as they come. True when it ends in order, false when the right was lost.
    async fn serve(&mut self, lease: &Lease, fence: &Fence) -> bool {
        let mut idle_since = Instant::now();
        loop {
            self.mailbox.pending.store(false, Ordering::SeqCst);
            let mut next = Next::Unknown;
            let empty = loop {
                let claim = match next {
                    // Taken with the end of the one before, while the worker was asked to end or lost its
                    // right: nothing of it has begun.
                    Next::Job(claim) if self.ends() || fence.token().is_cancelled() => {
                        self.node.queue.put_back(&claim.token).await;
                        if fence.token().is_cancelled() {
                            self.put(WorkerState::Idle);
                            return false;
                        }
                        break false;
                    }
                    Next::Job(claim) => *claim,
                    Next::Nothing => break true,
                    Next::Unknown if self.ends() => break false,
                    Next::Unknown => {
                        next = self.claim(lease).await;
                        continue;
                    }
                };
                *self.mailbox.idle_since.lock() = None;
                self.busy();
                let held = self.held.take();
                let mailbox = Arc::clone(&self.mailbox);
                let more = Some(job::More { lease, stop: &mailbox.stop });
                let ended = Box::pin(job::run(&self.node, &self.record.name, claim, held, fence, more)).await;
                self.held = ended.held;
                if ended.succeeded {
                    self.record.successful_job_count += 1;
                } else {
                    self.record.failed_job_count += 1;
                }
                idle_since = Instant::now();
                next = ended.next;
                if fence.token().is_cancelled() && !matches!(next, Next::Job(_)) {
                    self.put(WorkerState::Idle);
                    return false;
                }
            };
            if self.record.status == WorkerState::Busy {
                self.put(WorkerState::Idle);
            }
            if !empty {
                // Stopped with jobs perhaps waiting: a successor has to look (D8).
                self.mailbox.pending.store(true, Ordering::SeqCst);
            }
            *self.mailbox.idle_since.lock() = Some(idle_since);
            if self.node.room_wanted() {
                return true;
            }
            match self.idle(idle_since, fence).await {
                Woken::Work => {}
                Woken::Stop | Woken::TooLongIdle => return true,
                Woken::LeaseLost => return false,
                Woken::Keepalive => {
                    if let Some(held) = &mut self.held
                        && let Err(error) = Box::pin(held.session.keepalive()).await
                    {
                        self.dead_session(&error.message);
                    }
                    self.record.last_heartbeat = Timestamp::now();
                }
                Woken::SessionClosed => self.dead_session("the device closed the connection"),
            }
        }
    }

    /// Whether it is to end after its current job.
    fn ends(&self) -> bool {
        self.mailbox.stop.is_cancelled() || self.node.stopping.is_cancelled()
    }

    /// Asks the store for the next job.
    async fn claim(&mut self, lease: &Lease) -> Next {
        let asked = Instant::now();
        let answer = self.node.queue.claim(lease).await;
        self.node.metrics.store("claim", asked.elapsed());
        match answer {
            Ok(Some(claim)) => Next::Job(Box::new(claim)),
            Ok(None) => Next::Nothing,
            Err(error) => {
                tracing::warn!(worker = self.record.name, %error, "cannot take the next job; trying again");
                self.node.store_pause().await;
                Next::Unknown
            }
        }
    }

    /// Waits for something to do.
    async fn idle(&mut self, idle_since: Instant, fence: &Fence) -> Woken {
        let keep = Duration::from_secs(self.node.config.worker.pinned_idle_timeout);
        let idle_left = keep.saturating_sub(idle_since.elapsed());
        let default_keepalive = Duration::from_secs(self.node.config.worker.keepalive.max(1));
        let keepalive =
            self.held.as_ref().map(|h| h.session.keepalive_interval().unwrap_or(default_keepalive));
        let held = &mut self.held;
        let closed = async {
            match held {
                Some(held) => held.session.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = fence.token().cancelled() => Woken::LeaseLost,
            () = self.mailbox.stop.cancelled() => Woken::Stop,
            () = self.node.stopping.cancelled() => Woken::Stop,
            () = self.mailbox.notify.notified() => Woken::Work,
            () = closed => Woken::SessionClosed,
            () = tokio::time::sleep(keepalive.unwrap_or(idle_left)), if keepalive.is_some_and(|k| k < idle_left) => Woken::Keepalive,
            () = tokio::time::sleep(idle_left), if keep > Duration::ZERO => Woken::TooLongIdle,
        }
    }

    /// Forgets a session that died while idle: the next job opens a new one and never notices.
    fn dead_session(&mut self, why: &str) {
        self.held = None;
        self.node.metrics.healed();
        tracing::info!(
            worker = self.record.name,
            reason = why,
            "idle session ended; the next job opens a new one"
        );
    }

    /// Writes down that it works; one job after the other is told now and then.
    fn busy(&mut self) {
        if self.record.status != WorkerState::Busy || self.put_at.elapsed() >= RECORD_EVERY {
            self.put(WorkerState::Busy);
        }
    }

    fn put(&mut self, status: WorkerState) {
        self.put_at = Instant::now();
        self.record.status = status;
        self.record.last_heartbeat = Timestamp::now();
        self.node.queue.put_worker(self.record.clone());
    }
}
