//! The courier: takes from the outbox what is due, calls receivers, and says how it went.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use netpulse_model::webhook::Notice;
use netpulse_plugin::{Failed, PluginError, WebhookCall, Webhooks};
use netpulse_queue::{Delivered, Delivery, Due, Queue, QueueError, Verdict};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::lane::Lane;
use crate::payload::payload;

/// How long a message is claimed for; attempts that may take longer prolong it.
const HOLD: Duration = Duration::from_secs(15);
/// Between the end of an attempt and the end of its hold, for saying how it went.
const MARGIN: Duration = Duration::from_secs(3);
/// Messages asked for at a time: each comes with its job's whole result.
const BATCH: usize = 16;
/// Between two questions to a store that does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait for an answer of the store.
const STORE: Duration = Duration::from_secs(30);
/// Receivers remembered without anything to send to them.
const LANES: usize = 1024;

/// How much a courier does at a time.
#[derive(Debug, Clone)]
pub struct CourierOptions {
    /// Attempts in flight.
    pub concurrency: usize,
    /// Attempts in flight to one receiver.
    pub per_receiver: usize,
    /// Messages are of the early API's shape unless the request says.
    pub legacy: bool,
}

impl Default for CourierOptions {
    fn default() -> Self {
        Self { concurrency: 128, per_receiver: 8, legacy: false }
    }
}

/// What a courier counted since it came up.
#[derive(Debug, Default)]
pub struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    postponed: AtomicU64,
    flying: AtomicU64,
    held: AtomicU64,
}

impl Counts {
    /// Messages that arrived.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Attempts that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Messages given up after their last attempt.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Times that a message was put back for lack of room at its receiver.
    pub fn postponed(&self) -> u64 {
        self.postponed.load(Ordering::Relaxed)
    }

    /// Attempts in flight now.
    pub fn flying(&self) -> u64 {
        self.flying.load(Ordering::Relaxed)
    }

    /// Messages in hands now, in flight or waiting for room.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn one(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A courier at work.
pub struct Courier {
    counts: Arc<Counts>,
    stopping: CancellationToken,
    run: JoinHandle<()>,
}

impl Courier {
    /// Begins to empty the outbox of `queue`. `wake` is rung whenever the node hears that messages
    /// are due ([`netpulse_queue::Signal::Outbox`]).
    #[must_use]
    pub fn start(
        queue: Arc<dyn Queue>,
        webhooks: Webhooks,
        wake: Arc<Notify>,
        options: CourierOptions,
    ) -> Self {
        let counts = Arc::<Counts>::default();
        let stopping = CancellationToken::new();
        let shared = Arc::new(Shared { queue, webhooks, options, counts: Arc::clone(&counts) });
        let run = Run {
            shared,
            stopping: stopping.clone(),
            lanes: HashMap::new(),
            tasks: JoinSet::new(),
            ask_at: Some(Instant::now()),
            asking: false,
            flying: 0,
            held: 0,
        };
        let run = tokio::spawn(run.run(wake));
        Self { counts, stopping, run }
    }

    /// What it counted.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Takes nothing more, lets attempts in flight end within `patience`, and puts the rest back.
    pub async fn drain(mut self, patience: Duration) {
        self.stopping.cancel();
        if tokio::time::timeout(patience, &mut self.run).await.is_err() {
            tracing::warn!("webhooks still in flight are left; they are sent again later");
            self.run.abort();
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.run.abort();
    }
}

struct Shared {
    queue: Arc<dyn Queue>,
    webhooks: Webhooks,
    options: CourierOptions,
    counts: Arc<Counts>,
}

/// A message in hands.
struct Message {
    delivery: Delivery,
    notice: Notice,
    /// The webhook as its kind reads it.
    webhook: Value,
    /// The claim ends then, by our own clock.
    until: Instant,
}

impl Message {
    /// When it has waited for long enough, with time to say so before its claim ends.
    fn give_up(&self) -> Instant {
        self.until - 2 * MARGIN
    }
}

/// What a task of the courier came to.
enum Ended {
    Asked(Result<Due, QueueError>, Instant),
    Attempt { receiver: String, took: Duration, arrived: bool },
    PutBack,
}

struct Run {
    shared: Arc<Shared>,
    stopping: CancellationToken,
    lanes: HashMap<String, Lane<Message>>,
    tasks: JoinSet<Ended>,
    /// When to ask the store next; none when nothing is known to come.
    ask_at: Option<Instant>,
    asking: bool,
    flying: usize,
    held: usize,
}

impl Run {
    async fn run(mut self, wake: Arc<Notify>) {
        loop {
            let now = Instant::now();
            self.put_back_overdue(now);
            self.start_attempts(now);
            self.ask(now);
            let alarm = self.alarm();
            tokio::select! {
                () = self.stopping.cancelled() => break,
                () = wake.notified() => self.ask_at = Some(Instant::now()),
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                () = tokio::time::sleep_until(alarm.into()) => {}
            }
        }
        // What has not begun is put back at once; what flies may land.
        let waiting: Vec<Message> =
            std::mem::take(&mut self.lanes).into_values().flat_map(Lane::into_waiting).collect();
        for message in waiting {
            self.put_back(message, Duration::ZERO);
        }
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Ended::Asked(Ok(due), _)) = ended {
                for delivery in due.deliveries {
                    self.settle_later(delivery, Duration::ZERO);
                }
            }
        }
    }

    /// When something has to be looked at, though nothing happens before.
    fn alarm(&self) -> Instant {
        let now = Instant::now();
        let far = now + Duration::from_secs(3600);
        let ask = if self.may_ask(now) { self.ask_at } else { None };
        let overdue = self.lanes.values().filter_map(|lane| lane.alarm(Message::give_up));
        ask.into_iter().chain(overdue).min().map_or(far, |at| at.min(far))
    }

    fn may_ask(&self, now: Instant) -> bool {
        let options = &self.shared.options;
        !self.asking
            && self.held < 2 * options.concurrency.max(1)
            && !self.lanes.values().any(|lane| lane.soon_free(options.per_receiver, now))
    }

    fn ask(&mut self, now: Instant) {
        if !self.may_ask(now) || self.ask_at.is_none_or(|at| at > now) {
            return;
        }
        self.asking = true;
        self.ask_at = None;
        let shared = Arc::clone(&self.shared);
        let room = 2 * shared.options.concurrency.max(1) - self.held;
        self.tasks.spawn(async move {
            let asked = Instant::now();
            let answer = tokio::time::timeout(STORE, shared.queue.deliveries(room.min(BATCH), HOLD)).await;
            let late = || Err(QueueError::Unavailable("the outbox did not answer in time".into()));
            Ended::Asked(answer.unwrap_or_else(|_| late()), asked)
        });
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let now = Instant::now();
        match ended {
            Ok(Ended::Asked(answer, asked)) => {
                self.asking = false;
                self.answered(answer, asked, now);
            }
            Ok(Ended::Attempt { receiver, took, arrived }) => {
                self.flying = self.flying.saturating_sub(1);
                self.hold(self.held.saturating_sub(1));
                if let Some(lane) = self.lanes.get_mut(&receiver) {
                    lane.ended(took, arrived, now);
                }
            }
            Ok(Ended::PutBack) => self.hold(self.held.saturating_sub(1)),
            // Attempts catch what their kinds do; nothing else of the courier's own can panic.
            Err(crash) => tracing::error!(%crash, "a task of the courier ended by itself"),
        }
        self.shared.counts.flying.store(self.flying as u64, Ordering::Relaxed);
    }

    fn hold(&mut self, held: usize) {
        self.held = held;
        self.shared.counts.held.store(held as u64, Ordering::Relaxed);
    }

    fn answered(&mut self, answer: Result<Due, QueueError>, asked: Instant, now: Instant) {
        let due = match answer {
            Ok(due) => due,
            Err(QueueError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be asked");
                self.ask_at = Some(now + PAUSE);
                return;
            }
        };
        let next = due.next.and_then(|next| now.checked_add(next));
        self.ask_at = self.ask_at.into_iter().chain(next).min();
        self.hold(self.held + due.deliveries.len());
        for delivery in due.deliveries {
            let notice: Notice = match serde_json::from_slice(&delivery.notify) {
                Ok(notice) => notice,
                Err(error) => {
                    tracing::error!(job = %delivery.job.id, %error, "a stored webhook cannot be read and is given up");
                    Counts::one(&self.shared.counts.given_up);
                    let why = "given up: what was stored cannot be read".to_owned();
                    self.say(delivery, Delivered::Done(Some(why)));
                    continue;
                }
            };
            let webhook = notice.webhook.given();
            let receiver = notice.webhook.origin().to_owned();
            let message = Message { delivery, notice, webhook, until: asked + HOLD };
            let most = self.shared.options.per_receiver;
            let lane = self.lanes.entry(receiver).or_insert_with(|| Lane::new(now));
            if let Err((message, delay)) = lane.offer(message, most, now) {
                self.put_back(message, delay);
            }
        }
        if self.lanes.len() > LANES {
            self.lanes.retain(|_, lane| !lane.forgotten(now));
        }
    }

    /// Starts what may start, the receivers with least in flight first.
    fn start_attempts(&mut self, now: Instant) {
        let options = &self.shared.options;
        while self.flying < options.concurrency.max(1) {
            let ready = self.lanes.iter_mut().filter(|(_, lane)| lane.may_start(options.per_receiver));
            let Some((receiver, lane)) = ready.min_by_key(|(_, lane)| lane.flying()) else { break };
            let Some(message) = lane.start(now) else { break };
            self.flying += 1;
            let (shared, receiver) = (Arc::clone(&self.shared), receiver.clone());
            self.tasks.spawn(async move {
                let started = Instant::now();
                let arrived = shared.attempt(message).await;
                Ended::Attempt { receiver, took: started.elapsed(), arrived }
            });
        }
        self.shared.counts.flying.store(self.flying as u64, Ordering::Relaxed);
    }

    /// Gives back what waits in vain: for a receiver that is stuck, or until its claim is about to end.
    fn put_back_overdue(&mut self, now: Instant) {
        let most = self.shared.options.per_receiver;
        let mut overdue = Vec::new();
        for lane in self.lanes.values_mut() {
            while let Some(put_back) = lane.in_vain(most, now, Message::give_up) {
                overdue.push(put_back);
            }
        }
        for (message, delay) in overdue {
            self.put_back(message, delay);
        }
    }

    fn put_back(&mut self, message: Message, delay: Duration) {
        Counts::one(&self.shared.counts.postponed);
        self.settle_later(message.delivery, delay);
    }

    fn settle_later(&mut self, delivery: Delivery, delay: Duration) {
        self.say(delivery, Delivered::Later(delay));
    }

    fn say(&mut self, delivery: Delivery, how: Delivered) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            shared.settle(&delivery, how).await;
            Ended::PutBack
        });
    }
}

impl Shared {
    /// One attempt and what follows from it; whether it arrived.
    async fn attempt(&self, message: Message) -> bool {
        let Message { delivery, notice, webhook, until } = message;
        let hook = &notice.webhook;
        let needed = Duration::from_secs_f64(hook.timeout.clamp(0.5, 120.0)) + MARGIN;
        if until.saturating_duration_since(Instant::now()) < needed {
            // Whoever else may have it by now is not to send at the same time.
            match self.settle(&delivery, Delivered::Held(needed + MARGIN)).await {
                Some(Verdict::Taken) => {}
                Some(Verdict::Stale) | None => return true,
            }
        }
        let (job, receiver, attempt) = (delivery.job.id, hook.origin(), delivery.attempt);
        let error = match self.call(&delivery, &notice, &webhook, needed).await {
            Ok(()) => {
                Counts::one(&self.counts.delivered);
                tracing::debug!(%job, receiver, attempt, delivery = %delivery.id, "webhook delivered");
                self.settle(&delivery, Delivered::Done(None)).await;
                return true;
            }
            Err(error) => error,
        };
        Counts::one(&self.counts.failed);
        // Asking again cannot make these right.
        let hopeless = matches!(error.kind, Failed::BadRequest | Failed::Denied);
        let how = match hook.retry_after(attempt).filter(|_| !hopeless) {
            Some(seconds) => {
                tracing::info!(%job, receiver, attempt, %error, again_in = seconds, "webhook failed");
                Delivered::Again(Duration::from_secs_f64(seconds))
            }
            None => {
                Counts::one(&self.counts.given_up);
                let times = if attempt == 1 { "1 attempt".to_owned() } else { format!("{attempt} attempts") };
                tracing::warn!(%job, receiver, attempt, delivery = %delivery.id, %error, "webhook given up");
                Delivered::Done(Some(format!("given up after {times}: {error}")))
            }
        };
        self.settle(&delivery, how).await;
        false
    }

    async fn call(
        &self,
        delivery: &Delivery,
        notice: &Notice,
        webhook: &Value,
        patience: Duration,
    ) -> Result<(), PluginError> {
        let name = &notice.webhook.name;
        let Some(kind) = self.webhooks.find(name).await else {
            let text = format!("there is no webhook of the kind `{name}` here");
            return Err(PluginError::new(Failed::Faulty, text));
        };
        let legacy = notice.webhook.format.as_deref().map_or(self.options.legacy, |word| word == "legacy");
        let payload = payload(&delivery.job, notice, legacy);
        let call = WebhookCall {
            webhook,
            job: &delivery.job,
            payload: &payload,
            delivery: delivery.id,
            attempt: delivery.attempt,
        };
        let call = AssertUnwindSafe(kind.call(call)).catch_unwind();
        match tokio::time::timeout(patience, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(PluginError::new(Failed::Faulty, format!("the webhook `{name}` crashed"))),
            Err(_) => Err(PluginError::new(Failed::Faulty, format!("the webhook `{name}` did not return"))),
        }
    }

    /// Says how it went, for as long as the store does not answer and it may still matter.
    async fn settle(&self, delivery: &Delivery, how: Delivered) -> Option<Verdict> {
        let until = Instant::now() + STORE;
        loop {
            let said = self.queue.settle(delivery.id, delivery.epoch, how.clone());
            match tokio::time::timeout(STORE, said).await {
                Ok(Ok(verdict)) => return Some(verdict),
                Ok(Err(QueueError::Closed)) => return None,
                Ok(Err(_)) | Err(_) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
                _ => {
                    tracing::warn!(delivery = %delivery.id, "the store does not answer; this webhook may be sent again");
                    return None;
                }
            }
        }
    }
}
