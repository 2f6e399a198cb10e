//! The words everybody in NetPulse speaks: requests, jobs, results, workers, events, errors.
//!
//! No I/O, nothing asynchronous, no vendor. Everything that arrives from outside passes
//! [`fields`], which names each wrong field by its path; everything that leaves passes
//! [`secret::masked`], so that no password does.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod api;
pub mod credential;
pub mod device;
pub mod error;
pub mod event;
pub mod fields;
pub mod job;
pub mod plugin;
pub mod request;
pub mod result;
pub mod secret;
pub mod time;
pub mod webhook;
pub mod worker;

pub use credential::CredentialRef;
pub use device::{DeviceKey, QueueName};
pub use error::{ErrorCode, ErrorInfo};
pub use fields::FieldError;
pub use job::{Job, JobId, JobKind, JobStatus, Priority};
pub use request::{BulkRequest, ConnectionArgs, ExecutionRequest, Payload};
pub use result::{ExecutionResult, JobResult, Outcome};
pub use time::Timestamp;
pub use webhook::WebHook;
