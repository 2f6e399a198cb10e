//! For which job, and until when: what the traits do not carry and calls to plugins need.

use std::time::{Duration, Instant};

use netpulse_model::JobId;

tokio::task_local! {
    static SCOPE: Scope;
}

/// The frame of everything that is done for one job.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The job.
    pub job: JobId,
    /// When its time is up.
    pub deadline: Instant,
}

impl Scope {
    /// Runs `work` in this frame.
    pub async fn around<F: Future>(self, work: F) -> F::Output {
        SCOPE.scope(self, work).await
    }

    /// Runs `work` in this frame, on a thread that is no task.
    pub fn around_blocking<T>(self, work: impl FnOnce() -> T) -> T {
        SCOPE.sync_scope(self, work)
    }

    /// The frame that we are in.
    #[must_use]
    pub fn current() -> Option<Self> {
        SCOPE.try_with(|scope| *scope).ok()
    }
}

/// When a call made now has to be over.
pub(crate) fn deadline(default: Duration) -> Instant {
    Scope::current().map_or_else(|| Instant::now() + default, |scope| scope.deadline)
}
