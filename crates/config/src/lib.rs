//! What an operator may set: every key with its type, default and bounds.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod keys;

pub use keys::*;
