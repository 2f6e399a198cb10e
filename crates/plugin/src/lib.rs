//! What a plugin is: one trait per kind, and the registry that finds them by name.
//!
//! Built in or a program of its own, a plugin stands behind the same trait. Nothing here knows a
//! vendor, a queue or a route.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod credentials;
mod driver;
mod fill;
pub mod install;
mod kinds;
mod templates;
mod webhooks;

pub use credentials::*;
pub use driver::*;
pub use fill::*;
pub use kinds::*;
pub use templates::*;
pub use webhooks::*;
