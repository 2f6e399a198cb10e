//! What a plugin is: one trait per kind, the registry that finds them by name, and the host that
//! runs those that are programs of their own.
//!
//! Built in or a program of its own, a plugin stands behind the same trait; what host and program
//! say to each other stands in `docs/plugin-contract.md`. Nothing here knows a vendor, a queue or
//! a route.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod adapt;
mod credentials;
mod discovery;
pub mod doctor;
mod driver;
mod fill;
pub mod guard;
mod host;
pub mod install;
mod kinds;
mod registry;
pub mod schema;
mod templates;
mod webhooks;

pub use adapt::scope::Scope;
pub use adapt::templates::AllTemplates;
pub use credentials::*;
pub use driver::*;
pub use fill::*;
pub use host::{ENVIRONMENT, GuardProgram, HostSettings, MAX_REQUEST};
pub use kinds::*;
pub use netpulse_model::plugin::Kind;
pub use registry::*;
pub use templates::*;
pub use webhooks::*;
