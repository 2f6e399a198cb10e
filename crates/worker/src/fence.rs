//! The right to send to a device, which ends by itself when it cannot be renewed.
//!
//! A lease is proof towards the store; the device knows nothing of it. So the holder must stop on
//! its own, by its own monotonic clock, before a successor may start (promise 2). A process that
//! was frozen and thawed finds out here, at its next line, before anyone tells it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// When the node last knew its leases to be good.
#[derive(Clone)]
pub(crate) struct Clock {
    renewed: Arc<Mutex<Instant>>,
    lasts: Duration,
}

impl Clock {
    /// A clock for leases that last `lease` and were just taken.
    pub(crate) fn new(lease: Duration) -> Self {
        // A fifth is the margin: for the bytes already handed to the kernel, and clock drift.
        Self { renewed: Arc::new(Mutex::new(Instant::now())), lasts: lease * 4 / 5 }
    }

    /// Notes a renewal that was *asked for* at `asked`: the answer may have taken its time.
    pub(crate) fn renewed(&self, asked: Instant) {
        *self.renewed.lock() = asked;
    }

    /// Whether the leases are surely still ours.
    pub(crate) fn good(&self) -> bool {
        self.renewed.lock().elapsed() < self.lasts
    }

    /// How long until they no longer are.
    pub(crate) fn left(&self) -> Duration {
        self.lasts.saturating_sub(self.renewed.lock().elapsed())
    }
}

/// One device's right to send.
#[derive(Clone)]
pub(crate) struct Fence {
    clock: Clock,
    /// When this device's lease was taken: newer than the node's last renewal at first.
    taken: Instant,
    lost: CancellationToken,
}

impl Fence {
    pub(crate) fn new(clock: &Clock, taken: Instant, lost: CancellationToken) -> Self {
        Self { clock: clock.clone(), taken, lost }
    }

    /// Whether a line may be sent now. Once lost, it stays lost.
    pub(crate) fn holds(&self) -> bool {
        if self.lost.is_cancelled() {
            return false;
        }
        if self.clock.good() || self.taken.elapsed() < self.clock.lasts {
            return true;
        }
        self.lost.cancel();
        false
    }

    /// Cancelled when the right was lost.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_2_a_thawed_owner_finds_its_right_gone() {
        let clock = Clock::new(Duration::from_millis(100));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let fence = Fence::new(&clock, long_ago, CancellationToken::new());
        assert!(fence.holds());
        clock.renewed(long_ago);
        assert!(!fence.holds(), "sends after its lease ended");
        clock.renewed(Instant::now());
        assert!(!fence.holds(), "came back to life without a new lease");
    }
}
