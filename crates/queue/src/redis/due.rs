//! What falls due: expiry, retries, silent nodes, forgotten results. Every engine sleeps until the
//! store's next deadline and then does what is due; the scripts make sure that it is done once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Shared;
use super::record::text;
use super::scripts::Script;
use crate::api::QueueError;

/// Things done in one script, so that none keeps the server busy for long.
const AT_ONCE: usize = 100;

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The server's time of the answer that told it.
    told: i64,
    /// The next deadline, in the store's time.
    next: i64,
}

/// The store's next deadline, as this process last heard of it.
pub(super) struct Due {
    known: Mutex<Known>,
    /// The timer sleeps until then.
    armed: Mutex<i64>,
    rearmed: Notify,
    /// One run at a time in this process.
    running: tokio::sync::Mutex<()>,
}

impl Default for Due {
    fn default() -> Self {
        Self {
            known: Mutex::new(Known { told: 0, next: i64::MAX }),
            armed: Mutex::new(i64::MAX),
            rearmed: Notify::new(),
            running: tokio::sync::Mutex::default(),
        }
    }
}

impl Due {
    /// Every answer tells the next deadline; answers may come out of order.
    pub(super) fn learn(&self, told: i64, next: Option<i64>) {
        let next = next.unwrap_or(i64::MAX);
        let mut known = self.known.lock();
        // Far behind it is no older answer: the clock was set back.
        if told < known.told && known.told - told < super::OFFSET_KEPT {
            return;
        }
        *known = Known { told, next };
        drop(known);
        if next < *self.armed.lock() {
            self.rearmed.notify_one();
        }
    }

    fn next(&self) -> i64 {
        self.known.lock().next
    }
}

impl Shared {
    fn overdue(&self) -> bool {
        self.due.next() <= self.store_now()
    }

    /// Before a call decides or reads: what is due by now is done first.
    pub(super) async fn prepare(self: &Arc<Self>) {
        if self.overdue()
            && self.link.number() != 0
            && let Err(error) = self.tick().await
        {
            tracing::debug!(%error, "what is due cannot be done now");
        }
    }

    /// Does what is due.
    async fn tick(self: &Arc<Self>) -> Result<(), QueueError> {
        let _one = self.due.running.lock().await;
        if !self.overdue() {
            return Ok(());
        }
        // Whoever's lease ran out here sends no more; once its notes have arrived their absence
        // proves that nothing was sent.
        let lives = self.expired_lives();
        let lives = if lives.is_empty() || self.lane.barrier(self.options.deadline).await {
            lives
        } else {
            Vec::new()
        };
        loop {
            let reply = self
                .ask(Script::Tick, |call| {
                    call.arg(AT_ONCE);
                    for life in &lives {
                        call.arg(life);
                    }
                })
                .await?;
            let homeless: Vec<String> = reply.items(1).iter().filter_map(text).map(str::to_owned).collect();
            if !homeless.is_empty() {
                self.find_homes(homeless);
            }
            if reply.text(0) != "1" {
                return Ok(());
            }
        }
    }
}

/// Wakes when something falls due. In between it asks now and then what other processes have added:
/// their deadlines are met by themselves unless they die.
pub(super) async fn run(shared: Arc<Shared>) {
    let beat = shared.options.look_every();
    loop {
        let mut pause = beat;
        if shared.overdue() {
            let due = shared.due.next();
            let done = shared.tick().await;
            if done.is_ok() && shared.due.next() == due {
                // By the server's clock it is not due yet, by a hair.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if let Err(error) = done {
                if matches!(error, QueueError::Closed) {
                    return;
                }
                tracing::debug!(%error, "what is due cannot be done now");
                // The store is away or refuses; nothing tells when it no longer does.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            continue;
        }
        let next = shared.due.next();
        *shared.due.armed.lock() = next;
        let wait = next.saturating_sub(shared.store_now());
        pause = pause.min(Duration::from_micros(u64::try_from(wait).unwrap_or(0)));
        let moved = shared.options.clock.moved.notified();
        let slept = tokio::select! {
            () = moved => false,
            () = shared.due.rearmed.notified() => false,
            () = tokio::time::sleep(pause) => true,
        };
        if slept && !shared.overdue() {
            match shared.ask(Script::Look, |_| ()).await {
                Err(QueueError::Closed) => return,
                Err(error) => tracing::debug!(%error, "the next deadline cannot be read"),
                Ok(_) => {}
            }
        }
    }
}
