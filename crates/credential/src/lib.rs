//! The built-in credential providers, and the resolver that puts their secrets into connection arguments.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
