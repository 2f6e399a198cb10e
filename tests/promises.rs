//! The promises of ARCHITECTURE.md, proven on the whole program with simulated devices: what
//! counts is what the devices' own journal says they received.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;
