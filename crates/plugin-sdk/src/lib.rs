//! What a plugin author depends on: serve a driver, a parser, a credential provider, ... as a
//! program of its own.
//!
//! A plugin is a `main` that says what it is and serves it. Command line, socket, health, idle
//! exit, shutdown, logs, panics, sessions, leave for every line and streaming are done here, as
//! `docs/plugin-contract.md` asks.
//!
//! ```no_run
//! use netpulse_plugin_sdk::{Call, Failure, Plugin, RenderCall, Renderer, async_trait};
//!
//! struct Shout;
//!
//! #[async_trait]
//! impl Renderer for Shout {
//!     async fn render(&self, request: RenderCall, _call: &Call) -> Result<String, Failure> {
//!         Ok(request.template.unwrap_or_default().to_uppercase())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Plugin::new("example.org/template/shout/v1", "0.1.0").renderer("shout", Shout).serve()
//! }
//! ```
//!
//! A driver stands in `examples/echo_driver.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod command;
mod driver;
mod idle;
mod kinds;
pub mod log;
mod plugin;
mod route;
mod run;
mod serve;

pub use async_trait::async_trait;
pub use driver::{Driver, Session, TestInfo};
pub use kinds::*;
pub use netpulse_model::plugin::{
    CONTRACT, Capabilities, Capability, DetachedOutput, DetachedTask, StartConfig,
};
pub use netpulse_model::worker::NodeInfo;
pub use netpulse_model::{ConnectionArgs, ErrorCode, ExecutionResult, Outcome};
pub use plugin::Plugin;
pub use serde_json::{Map, Value, json};
pub use tokio_util::sync::CancellationToken;

/// Why a request failed, for whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status: 400 the request is wrong, 403 not allowed, 404 not there, 410 the session is
    /// gone, 503 what the plugin depends on does not answer, 500 the plugin failed.
    pub status: u16,
    /// The code of `docs/errors.md`, where there is one.
    pub code: Option<ErrorCode>,
    /// One sentence: what, where, why, what to do. Never a secret.
    pub message: String,
}

impl Failure {
    /// The request is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: 400, code: None, message: message.into() }
    }

    /// Not allowed.
    pub fn denied(message: impl Into<String>) -> Self {
        Self { status: 403, code: None, message: message.into() }
    }

    /// What was asked for is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: 404, code: None, message: message.into() }
    }

    /// What the plugin depends on does not answer; it may be tried again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: 503, code: None, message: message.into() }
    }

    /// The plugin failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, code: None, message: message.into() }
    }

    /// Something went wrong with a device, as a code says: `connect_failed`,
    /// `authentication_failed`, `read_timeout`, ...
    pub fn device(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status: 500, code: Some(code), message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}

/// The frame of a call.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the host gives up.
    pub deadline: std::time::Instant,
    /// Told to stop: end what you do as soon as it is safe. Five seconds later you are dropped.
    pub stop: CancellationToken,
    /// For which job, where there is one.
    pub job: Option<String>,
    /// The driver's own arguments of this request.
    pub driver_args: Map<String, Value>,
    /// `enable_mode`, `save`, `dry_run` as far as the request said.
    pub options: Map<String, Value>,
}

impl Call {
    /// Whether the request set that option.
    #[must_use]
    pub fn option(&self, name: &str) -> bool {
        self.options.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// What is left of its time.
    #[must_use]
    pub fn left(&self) -> std::time::Duration {
        self.deadline.saturating_duration_since(std::time::Instant::now())
    }
}
