//! What a plugin author depends on: serve a driver, a parser, a credential provider, ... as a program of its own.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
