//! The node: takes jobs from the queue and runs them, one writer per device.
//!
//! A *pinned worker* ([`device`]) is one task that owns one device: its lease, its session, its
//! order. The *FIFO worker* ([`fifo`]) is a bounded set of slots, each with a session of its own.
//! Both run a job the same way ([`job`]). Nothing here knows a vendor, a store or a route.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod breaker;
mod credential;
mod device;
mod engines;
mod fence;
mod fifo;
mod job;
mod metrics;
#[cfg(test)]
mod moving;
mod node;
mod placing;
mod recorder;
mod text;

pub use engines::BuiltInTemplates;
pub use metrics::Metrics;
pub use node::{Node, NodeParts, Serves, host_name};
pub use placing::ByScheduler;
