//! The `netmiko` driver: command lines of network devices, with Netmiko's argument names.
//!
//! It opens SSH or Telnet by what `device_type` means, hands the bytes to the session engine, and
//! turns what the engine reports into results with Netmiko's and the upstream driver's texts. What
//! a vendor's command line looks like stands in the platform files, not here.

mod args;
mod detect;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netpulse_model::request::Strategy;
use netpulse_model::{
    ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, FieldError, JobKind,
};
use netpulse_plugin::{Driver, DriverSession, Opening};
use netpulse_session::cli::{Login, Session};
use netpulse_session::platform::{Found, PlatformError, Registry, TransportKind};
use netpulse_session::transport::{Pty, Transport, telnet};
use serde_json::{Map, Value};

use crate::connect::{self, ConnectSettings, Dialect};
use session::NetmikoSession;

/// Opening a terminal on a connection that stands.
const SHELL_TIMEOUT: Duration = Duration::from_secs(20);

/// The driver.
#[derive(Debug)]
pub struct Netmiko {
    settings: ConnectSettings,
    platforms: Arc<Registry>,
}

impl Netmiko {
    /// The driver with these settings, for these platforms.
    #[must_use]
    pub fn new(settings: ConnectSettings, platforms: Arc<Registry>) -> Self {
        Self { settings, platforms }
    }

    fn find(&self, args: &ConnectionArgs) -> Result<Found, FieldError> {
        let Some(name) = args.device_type() else {
            let mut error = FieldError::new(&["connection_args", "device_type"], "Field required");
            error.kind = "missing".to_owned();
            return Err(error);
        };
        self.platforms.find(name).map_err(|error| {
            let mut field = FieldError::new(&["connection_args", "device_type"], unknown(&error));
            field.input = Value::from(name);
            field
        })
    }

    /// Opens the session; what it warns about comes along.
    async fn open(&self, args: &ConnectionArgs) -> Result<NetmikoSession, ErrorInfo> {
        let bad = |errors: Vec<FieldError>| {
            ErrorInfo::new(ErrorCode::BadRequest, netpulse_model::fields::sentence(&errors))
        };
        let name = args.device_type().unwrap_or_default();
        let found = self.platforms.find(name).map_err(|e| match e {
            PlatformError::Unknown { .. } => ErrorInfo::new(ErrorCode::UnknownPlatform, unknown(&e)),
            other => ErrorInfo::new(ErrorCode::BadRequest, other.to_string()),
        })?;
        let own = args::session_args(args).map_err(bad)?;
        let device = connect::device(args, found.port).map_err(|e| bad(vec![e]))?;
        let pty = Pty::default();
        let mut opening = Opening::default();
        let (transport, warnings) = match found.transport {
            TransportKind::Ssh => {
                let mut plan = connect::ssh_plan(args, &self.settings, Dialect::Netmiko)?;
                if let Some(suffix) = &found.platform.rules.username_suffix
                    && !plan.target.user.contains('+')
                {
                    plan.target.user.push_str(suffix);
                }
                if args.port().is_none() {
                    plan.target.port = found.port;
                }
                let connection = connect::open(&plan, &self.settings).await?;
                let (connect, login) = connection.opening();
                opening = Opening { connect: Some(connect), login: Some(login), prompt: None };
                let shell = connection.shell(&pty, SHELL_TIMEOUT).await.map_err(connect::error_info)?;
                (shell, plan.warnings)
            }
            TransportKind::Telnet => {
                let began = Instant::now();
                let opened = self.telnet(args, &found, &pty).await?;
                opening.connect = Some(began.elapsed());
                opened
            }
        };
        let login = Login {
            label: device.to_string(),
            username: args.text("username").unwrap_or_default().to_owned(),
            password: args.text("password").unwrap_or_default().to_owned(),
            secret: own.secret.clone(),
            login_timeout: own.login_timeout,
            max_output: self.settings.max_output,
            terminator: own.terminator.clone(),
            registry: Some(Arc::clone(&self.platforms)),
            ..Login::default()
        };
        // With Telnet the login is part of it: the device asks in its own words.
        let began = Instant::now();
        let mut session = Session::open(transport, Arc::clone(&found.platform), login)
            .await
            .map_err(connect::error_info)?;
        if found.platform.name == "autodetect"
            && let Err(error) = detect::detect(&mut session, &self.platforms).await
        {
            session.close().await;
            return Err(connect::error_info(error));
        }
        opening.prompt = Some(began.elapsed());
        Ok(NetmikoSession::new(session, device.host().to_owned(), warnings, own.keepalive, opening))
    }

    async fn telnet(
        &self,
        args: &ConnectionArgs,
        found: &Found,
        pty: &Pty,
    ) -> Result<(Box<dyn Transport>, Vec<String>), ErrorInfo> {
        let host = args.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = args.port().unwrap_or(found.port);
        let timeout = args
            .0
            .get("conn_timeout")
            .and_then(Value::as_f64)
            .filter(|s| *s > 0.0 && *s <= 3600.0)
            .map_or(self.settings.connect_timeout, Duration::from_secs_f64);
        let mut warnings = connect::slips(args);
        for key in ["proxy_host", "pkey", "key_file", "use_keys", "ssh_config_file"] {
            if args
                .0
                .get(key)
                .is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)) && v.as_str() != Some(""))
            {
                warnings.push(format!("`{key}` was not used: the device is reached by Telnet"));
            }
        }
        let transport = telnet::connect(host, port, pty, timeout).await.map_err(connect::error_info)?;
        Ok((transport, warnings))
    }
}

/// What is wrong with a `device_type`, and who may know it where we do not.
fn unknown(error: &PlatformError) -> String {
    match error {
        PlatformError::Unknown { .. } => format!(
            "{error}; Netmiko itself may know it: install the plugin netmiko_py and send `driver: netmiko_py`"
        ),
        other => other.to_string(),
    }
}

#[async_trait]
impl Driver for Netmiko {
    fn name(&self) -> &str {
        "netmiko"
    }

    fn default_strategy(&self) -> Strategy {
        Strategy::Pinned
    }

    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        let port = self.find(args).map_or(22, |found| found.port);
        connect::device(args, port)
    }

    fn validate(&self, request: &ExecutionRequest) -> Vec<FieldError> {
        let mut errors = self.validate_connection(&request.connection_args);
        let args = &request.connection_args;
        match request.kind() {
            JobKind::Query => {
                errors.extend(args::command_options(&request.driver_args, args).err().unwrap_or_default())
            }
            JobKind::Modification => {
                errors.extend(
                    args::config_options(&request.driver_args, args, false).err().unwrap_or_default(),
                );
                if request.flag("save") == Some(true) {
                    errors.extend(self.cannot_save(args));
                }
            }
        }
        errors
    }

    fn validate_connection(&self, args: &ConnectionArgs) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let found = self.find(args);
        match &found {
            Ok(found) if found.transport == TransportKind::Telnet => {
                errors.extend(connect::device(args, found.port).err());
            }
            _ => errors.extend(connect::validate(args, &self.settings, Dialect::Netmiko)),
        }
        errors.extend(found.err());
        errors.extend(args::session_args(args).err().unwrap_or_default());
        // Two readers look at some arguments; a mistake is said once.
        let mut said = std::collections::HashSet::new();
        errors.retain(|error| said.insert(error.to_string()));
        errors
    }

    async fn connect(&self, args: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        Ok(Box::new(self.open(args).await?))
    }

    async fn test(&self, args: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        let mut session = self.open(args).await?;
        let seen = session.facts();
        session.close().await;
        let mut answer = Map::new();
        answer.insert("driver".into(), Value::from("netmiko"));
        answer.insert("host".into(), Value::from(args.host().unwrap_or_default()));
        answer.insert("device_type".into(), Value::from(seen.platform));
        answer.insert("prompt".into(), Value::from(seen.prompt));
        answer.insert("remote_version".into(), Value::from(seen.remote_version));
        Ok(answer)
    }
}

impl Netmiko {
    fn cannot_save(&self, args: &ConnectionArgs) -> Option<FieldError> {
        let found = self.find(args).ok()?;
        let platform = &found.platform;
        let can = platform.rules.save.commands.as_ref().is_some_and(|c| !c.is_empty());
        if can || platform.has_candidate() || platform.name == "autodetect" {
            return None;
        }
        let mut error = FieldError::new(
            &["save"],
            format!(
                "Platform {} has no command that saves its configuration; leave `save` out",
                platform.name
            ),
        );
        error.input = Value::from(true);
        Some(error)
    }
}
