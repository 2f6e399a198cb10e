//! Webhooks: the built-in kind `basic`, and the courier that empties the outbox.
//!
//! A job that names a receiver leaves a message in the store's outbox in the same transaction that
//! ends it. A [`Courier`] in each server and node claims what is due and calls the receiver by the
//! kind that the message names ([`Basic`], or a plugin's), again and again as the request allows.
//! It never holds up a job, and a receiver that is dead or slow holds up no other.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod basic;
mod courier;
mod lane;
mod payload;
mod signature;

pub use address::{Addresses, BadAddress};
pub use basic::{Basic, BasicError, BasicOptions};
pub use courier::{Counts, Courier, CourierOptions};
pub use payload::payload;
pub use signature::{SIGNATURE, sign};
