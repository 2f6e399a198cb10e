//! The `paramiko` driver: commands and changes on Linux servers, over SSH.
//!
//! Every command runs on a channel of its own, so nothing that one sets is there for the next:
//! `environment` and `working_directory` go with each. Exit statuses are the commands' own.

mod args;
mod command;
mod run;

use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::fields::FieldError;
use netpulse_model::request::Strategy;
use netpulse_model::{ConnectionArgs, DeviceKey, ErrorInfo, ExecutionRequest};
use netpulse_plugin::{Driver, DriverSession, Opening, Report, Run};
use netpulse_session::transport::ssh::SshConnection;
use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::connect::{self, ConnectSettings, Dialect};

/// TCP port when the arguments name none.
const PORT: u16 = 22;

/// How long a sign of life may take.
const PROBE: Duration = Duration::from_secs(10);

/// The driver.
#[derive(Debug, Clone)]
pub struct Paramiko {
    settings: ConnectSettings,
}

impl Paramiko {
    /// The driver with what the configuration says.
    #[must_use]
    pub fn new(settings: ConnectSettings) -> Self {
        Self { settings }
    }

    async fn open(&self, args: &ConnectionArgs) -> Result<Session, ErrorInfo> {
        let plan = connect::ssh_plan(args, &self.settings, Dialect::Paramiko)?;
        let connection = connect::open(&plan, &self.settings).await?;
        let asked = args.0.get("keepalive").is_some_and(|v| !v.is_null());
        Ok(Session {
            connection,
            host: plan.target.host,
            warnings: plan.warnings,
            login_password: plan.target.credentials.password,
            keepalive: plan.options.keepalive.filter(|_| asked),
            max_output: self.settings.max_output,
        })
    }
}

#[async_trait]
impl Driver for Paramiko {
    fn name(&self) -> &str {
        "paramiko"
    }

    fn default_strategy(&self) -> Strategy {
        Strategy::Fifo
    }

    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        connect::device(args, PORT)
    }

    fn validate(&self, request: &ExecutionRequest) -> Vec<FieldError> {
        let mut errors = self.validate_connection(&request.connection_args);
        if let Err(wrong) = args::read(&request.driver_args) {
            errors.extend(wrong);
        }
        errors
    }

    fn validate_connection(&self, args: &ConnectionArgs) -> Vec<FieldError> {
        let mut errors = connect::validate(args, &self.settings, Dialect::Paramiko);
        let has_login = ["password", "key_filename", "key_file", "pkey"]
            .iter()
            .any(|key| args.0.get(*key).is_some_and(|v| !v.is_null()))
            || args.0.get("allow_agent").and_then(Value::as_bool) == Some(true);
        if !has_login {
            errors.push(FieldError::new(
                &["connection_args"],
                "At least one of `password`, `key_filename` and `pkey` is required",
            ));
        }
        errors
    }

    async fn connect(&self, args: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        Ok(Box::new(self.open(args).await?))
    }

    async fn test(&self, args: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        let session = self.open(args).await?;
        let mut seen = Map::new();
        seen.insert("driver".into(), Value::from(self.name()));
        seen.insert("host".into(), Value::from(session.host.as_str()));
        seen.insert("remote_version".into(), Value::from(session.connection.remote_version()));
        session.connection.close().await;
        Ok(seen)
    }
}

/// A connection to one server.
struct Session {
    connection: SshConnection,
    host: String,
    warnings: Vec<String>,
    /// What `sudo` is given when it asks and the request names no other.
    login_password: Option<SecretString>,
    keepalive: Option<Duration>,
    max_output: usize,
}

#[async_trait]
impl DriverSession for Session {
    async fn run(&mut self, run: Run<'_>) -> Report {
        self.execute(run).await
    }

    async fn keepalive(&mut self) -> Result<(), ErrorInfo> {
        self.connection.probe(PROBE).await.map_err(connect::error_info)
    }

    async fn closed(&mut self) {
        self.connection.closed().await;
    }

    fn keepalive_interval(&self) -> Option<Duration> {
        self.keepalive
    }

    fn opening(&self) -> Opening {
        let (connect, login) = self.connection.opening();
        Opening { connect: Some(connect), login: Some(login), prompt: None }
    }

    async fn close(&mut self) {
        self.connection.close().await;
    }
}
