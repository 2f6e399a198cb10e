//! The REST API through real HTTP on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod auth;
mod bad_input;
mod client;
mod device;
mod embedded;
mod events;
mod jobs;
mod memory;
mod openapi;
mod operations;
mod server;
mod world;
