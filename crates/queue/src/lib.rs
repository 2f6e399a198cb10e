//! Where jobs wait, and who owns which device.
//!
//! One trait, [`Queue`], with the promises of a job's way; the embedded engine (SQLite) behind it,
//! and a conformance suite (feature `conformance`) that any other engine must pass unchanged.
//! Nothing here knows what a session, a template or an HTTP route is.
//!
//! ```
//! use std::time::Duration;
//! use netpulse_model::{DeviceKey, JobId, JobKind, Priority, QueueName};
//! use netpulse_queue::{Embedded, NewJob, Options, Queue, Submitted};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let queue = Embedded::open(folder.path(), Options::default())?;
//! let device = DeviceKey::new("192.0.2.11", 22, 22);
//! let job = NewJob {
//!     id: JobId::random(),
//!     queue: QueueName::Host(device.clone()),
//!     device: Some(device.clone()),
//!     kind: JobKind::Query,
//!     priority: Priority::Normal,
//!     driver: "netmiko".into(),
//!     device_name: Some("192.0.2.11".into()),
//!     command: vec!["show version".into()],
//!     ttl: Duration::from_secs(1800),
//!     timeout: Duration::from_secs(300),
//!     result_ttl: Duration::from_secs(300),
//!     retry: Default::default(),
//!     idempotency_key: None,
//!     digest: [0; 32],
//!     payload: b"the request".to_vec(),
//!     notify: None,
//! };
//! assert!(matches!(queue.submit(vec![job]).await?[..], [Submitted::Accepted(_)]));
//!
//! let _signals = queue.join("node-1", 100.into()).await?;
//! let lease = queue.acquire("node-1", &device).await?.ok_or("somebody holds the device")?;
//! let claim = queue.claim(&lease).await?.ok_or("nothing waits")?;
//! assert_eq!(claim.payload, b"the request");
//! queue.close().await;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod core;
mod embedded;
mod events;
mod redis;
mod seal;

pub use api::*;
pub use clock::Clock;
pub use embedded::{Embedded, Faults, OpenError, Options};
pub use events::{LINE_LIMIT, RingSize};
pub use redis::{Finding, Redis, RedisOpenError, RedisOptions, RedisSentinel, RedisTls, Severity};
pub use seal::{SealError, SealKey};
