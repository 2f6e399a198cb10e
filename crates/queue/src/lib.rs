//! Where jobs wait, and who owns which device.
//!
//! One trait, [`Queue`], with the promises of a job's way; the embedded engine (SQLite) behind it,
//! and a conformance suite that any other engine must pass unchanged. Nothing here knows what a
//! session, a template or an HTTP route is.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod core;
mod embedded;
mod events;
mod seal;

pub use api::*;
pub use clock::Clock;
pub use embedded::{Embedded, Faults, OpenError, Options};
pub use events::{LINE_LIMIT, RingSize};
pub use seal::SealError;
