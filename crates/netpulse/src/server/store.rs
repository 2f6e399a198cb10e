//! Where jobs wait: the embedded store, or the Redis that many processes share.

use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_plugin::Scheduler;
use netpulse_queue::{Embedded, OpenError, Options, Queue, RingSize};

use super::Shape;
use crate::exit::{Exit, Failure};

/// Opens the store that `store.engine` names.
pub(super) async fn open(
    config: &Config,
    _shape: Shape,
    _scheduler: Arc<dyn Scheduler>,
) -> Result<Arc<dyn Queue>, Failure> {
    Ok(embedded(config)?)
}

fn embedded(config: &Config) -> Result<Arc<Embedded>, Failure> {
    let options = Options {
        lease: Duration::from_secs(config.worker.lease.max(1)),
        max_queued: config.store.max_queued,
        max_queued_per_device: config.store.max_queued_per_device,
        max_outbox: config.store.max_outbox,
        result_cache: config.store.result_cache,
        events: RingSize { events: config.store.events, ..Options::default().events },
        audit_retention: Duration::from_secs(config.audit.retention_days.saturating_mul(24 * 3600)),
        canceled_ttl: Duration::from_secs(config.job.ttl),
        ..Options::default()
    };
    Embedded::open(&config.store.path, options).map_err(|error| {
        let code = if matches!(error, OpenError::InUse { .. }) { "store_in_use" } else { "store" };
        Failure::new(Exit::Local, code, error.to_string())
    })
}

