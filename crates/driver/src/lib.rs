//! The built-in drivers: what `netmiko`, `paramiko` and their like do with a session.
//!
//! A driver reads a request's connection and driver arguments, opens a session and does the work,
//! one result per command or line. Knows vendors and Linux; knows no queue and no REST route.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod connect;
pub mod netmiko;
pub mod paramiko;
mod unused;
