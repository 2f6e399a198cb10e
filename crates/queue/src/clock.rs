//! Time as the engine sees it: a wall clock for what people read, a steady one for deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use netpulse_model::Timestamp;
use tokio::sync::Notify;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// For timestamps that are shown or stored.
    pub(crate) wall: Timestamp,
    /// Microseconds that only grow: for leases, delays and lifetimes, so that a jump of the wall
    /// clock neither ends a lease nor prolongs one.
    pub(crate) steady: i64,
}

impl Moment {
    /// The steady time `after` from here.
    pub(crate) fn after(self, after: Duration) -> i64 {
        self.steady.saturating_add(micros(after))
    }
}

/// A duration in microseconds, at most [`i64::MAX`].
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The engine's clock. It follows the machine's; tests may push it forward.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    ahead: Arc<AtomicI64>,
    pub(crate) moved: Arc<Notify>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), ahead: Arc::default(), moved: Arc::default() }
    }
}

impl Clock {
    /// Pushes both clocks forward by `by`; what falls due happens at once. For tests of lifetimes
    /// that nobody wants to wait for.
    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(micros(by), Ordering::SeqCst);
        self.moved.notify_waiters();
        self.moved.notify_one();
    }

    /// How far it has been pushed forward, microseconds.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::SeqCst)
    }

    pub(crate) fn now(&self) -> Moment {
        let ahead = self.ahead.load(Ordering::SeqCst);
        Moment {
            wall: Timestamp(Timestamp::now().0.saturating_add(ahead)),
            steady: micros(self.start.elapsed()).saturating_add(ahead),
        }
    }
}
