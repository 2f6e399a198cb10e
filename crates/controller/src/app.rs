//! What every handler shares.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, StatusCode};
use netpulse_config::Config;
use netpulse_model::{Job, JobId};
use netpulse_plugin::{Credentials, Drivers, Templates, Webhooks};
use netpulse_queue::{Queue, QueueError};
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::ApiError;
use crate::health::Readiness;
use crate::metrics::Metrics;

/// Longest a call to the store may take before the client gets 503.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Memory for request bodies being read or worked on, in KiB, over all connections.
pub(crate) const BODY_BUDGET_KIB: usize = 256 * 1024;

/// What a controller is built from.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where jobs go.
    pub queue: Arc<dyn Queue>,
    /// The drivers by name.
    pub drivers: Drivers,
    /// The webhook kinds by name.
    pub webhooks: Webhooks,
    /// The template engines; without them `/template/...` answers 501.
    pub templates: Option<Arc<dyn Templates>>,
    /// What `/metrics` shows beside the controller's own figures: those of a node in this process.
    pub registry: Registry,
    /// Once cancelled, what would begin something is answered 503 with `Retry-After`.
    pub draining: CancellationToken,
    /// Who checks references to secrets, and gives them to connection tests.
    pub credentials: Credentials,
    /// Ends event streams and waiting requests when the server stops.
    pub shutdown: CancellationToken,
}

/// The shared state: cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Arc<Config>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) drivers: Drivers,
    pub(crate) webhooks: Webhooks,
    pub(crate) templates: Option<Arc<dyn Templates>>,
    pub(crate) metrics: Metrics,
    pub(crate) draining: CancellationToken,
    /// Requests in hand.
    pub(crate) requests: TaskTracker,
    pub(crate) ready: Readiness,
    pub(crate) credentials: Credentials,
    pub(crate) shutdown: CancellationToken,
    pub(crate) started: Instant,
    pub(crate) key_header: Option<HeaderName>,
    pub(crate) key_digest: Option<[u8; 32]>,
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) tests: Semaphore,
    pub(crate) renders: Arc<Semaphore>,
    request_prefix: String,
    request_count: AtomicU64,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        let server = &parts.config.server;
        let key_digest =
            (!server.api_key.is_empty()).then(|| Sha256::digest(server.api_key.as_bytes()).into());
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self(Arc::new(Inner {
            key_header: server.api_key_name.parse().ok(),
            key_digest,
            started: Instant::now(),
            bodies: Arc::new(Semaphore::new(BODY_BUDGET_KIB)),
            tests: Semaphore::new(parts.config.worker.connects_at_once.max(1)),
            renders: Arc::new(Semaphore::new(threads * 2)),
            request_prefix: JobId::random().to_string().get(..8).unwrap_or("np").to_owned(),
            request_count: AtomicU64::new(0),
            metrics: Metrics::new(parts.registry),
            draining: parts.draining,
            requests: TaskTracker::new(),
            ready: Readiness::default(),
            config: parts.config,
            queue: parts.queue,
            drivers: parts.drivers,
            webhooks: parts.webhooks,
            templates: parts.templates,
            credentials: parts.credentials,
            shutdown: parts.shutdown,
        }))
    }

    /// A request id that no other request of this or another process has.
    pub(crate) fn next_request_id(&self) -> String {
        format!("{}-{:x}", self.request_prefix, self.request_count.fetch_add(1, Ordering::Relaxed))
    }

    /// A call to the store, with its deadline.
    pub(crate) async fn store<T>(
        &self,
        call: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, ApiError> {
        let began = Instant::now();
        let answer = tokio::time::timeout(STORE_DEADLINE, call).await;
        self.metrics.store(began.elapsed());
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("The store did not answer within {} s; try again", STORE_DEADLINE.as_secs()),
            )
            .retry_after(5)),
        }
    }

    /// Jobs as soon as all have ended, or as they stand when `wait` has passed or the server stops; none
    /// where nothing is known of one.
    pub(crate) async fn ended_all(&self, ids: &[JobId], wait: Duration) -> Vec<Option<Job>> {
        let stand =
            || async { self.store(self.queue.ended_all(ids, Duration::ZERO)).await.unwrap_or_default() };
        tokio::select! {
            answer = self.queue.ended_all(ids, wait) => answer.unwrap_or_default(),
            () = self.shutdown.cancelled() => stand().await,
            // The engine keeps the time; this is for one that does not answer at all.
            () = tokio::time::sleep(wait + STORE_DEADLINE) => stand().await,
        }
    }

    /// A job as soon as it has ended, or as it stands when `wait` has passed or the server stops.
    pub(crate) async fn ended(&self, id: JobId, wait: Duration) -> Result<Option<Job>, ApiError> {
        if wait.is_zero() {
            return self.store(self.queue.job(id)).await;
        }
        tokio::select! {
            answer = self.queue.ended(id, wait) => Ok(answer?),
            () = self.shutdown.cancelled() => self.store(self.queue.job(id)).await,
            // The engine keeps the time; this is for one that does not answer at all.
            () = tokio::time::sleep(wait + STORE_DEADLINE) => self.store(self.queue.job(id)).await,
        }
    }
}
