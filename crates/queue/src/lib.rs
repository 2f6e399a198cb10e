//! Where jobs wait, and who owns which device.
//!
//! One trait, [`Queue`], with the promises of a job's way; the embedded engine (SQLite) behind it,
//! and a conformance suite that any other engine must pass unchanged. Nothing here knows what a
//! session, a template or an HTTP route is.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;

pub use api::*;
