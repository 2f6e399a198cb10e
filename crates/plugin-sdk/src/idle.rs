//! How long there has been nothing to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Counts work: requests and open sessions.
#[derive(Clone, Default)]
pub(crate) struct Work(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    busy: usize,
    since: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self { busy: 0, since: Instant::now() }
    }
}

/// One piece of work; it ends when this is dropped.
pub(crate) struct Busy(Work);

impl Work {
    pub(crate) fn begin(&self) -> Busy {
        self.0.state.lock().busy += 1;
        Busy(self.clone())
    }

    /// Resolves when there has been nothing to do for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let changed = self.0.changed.notified();
            let left = {
                let state = self.0.state.lock();
                (state.busy == 0).then(|| limit.saturating_sub(state.since.elapsed()))
            };
            match left {
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(left) => {}
                    }
                }
                None => changed.await,
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock();
        state.busy -= 1;
        state.since = Instant::now();
        drop(state);
        self.0.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_in_flight_holds_the_idle_exit_off() {
        let work = Work::default();
        let busy = work.begin();
        let limit = Duration::from_millis(30);
        assert!(tokio::time::timeout(Duration::from_millis(100), work.idle(limit)).await.is_err());
        drop(busy);
        tokio::time::timeout(Duration::from_secs(5), work.idle(limit)).await.unwrap();
    }
}
