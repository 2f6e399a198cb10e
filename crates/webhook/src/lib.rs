//! The built-in webhook, and the courier that empties the outbox.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
