//! A driver that is a program of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hyper::Method;
use netpulse_model::plugin::{Connect, Connected, SessionRef, Tested, code};
use netpulse_model::request::{Operation, Strategy};
use netpulse_model::secret;
use netpulse_model::{
    ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, FieldError, JobKind,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Plugin;
use super::examine::Examiner;
use super::scope::Scope;
use crate::driver::{DetachedTasks, Driver, DriverSession, Report, Run};
use crate::host::blame::Errand;
use crate::host::program::{Program, Unanswered};
use crate::host::start::Start;
use crate::host::wire::CallError;
use crate::schema::Schema;

/// For a plugin to close a session whose right was lost, before its process is killed.
const FORCED: Duration = Duration::from_secs(1);
/// For a plugin to leave a device politely.
const POLITE: Duration = Duration::from_secs(2);
/// Where the plugin's own check of a request is.
const VALIDATE: &str = "/driver/validate";
/// For a sign of life.
const ALIVE: Duration = Duration::from_secs(30);

/// The adapter.
pub(crate) struct ExternalDriver(Arc<Inner>);

pub(super) struct Inner {
    pub(super) plugin: Plugin,
    connection_args: Option<Schema>,
    pub(super) driver_args: Option<Schema>,
    examiner: Examiner,
}

impl ExternalDriver {
    /// The adapter of that capability.
    ///
    /// # Errors
    /// A schema of it is none.
    pub(crate) fn new(plugin: Plugin) -> Result<Self, String> {
        let (connection_args, driver_args) =
            (plugin.schema("connection_args")?, plugin.schema("driver_args")?);
        let examiner = Examiner::default();
        Ok(Self(Arc::new(Inner { plugin, connection_args, driver_args, examiner })))
    }
}

impl Inner {
    pub(super) fn has(&self, feature: &str) -> bool {
        self.plugin.capability.has(feature)
    }

    /// A failed call as a job's error.
    pub(super) fn info(&self, error: &CallError) -> ErrorInfo {
        let code = match error {
            CallError::Refused { code: Some(text), .. } => code(text),
            CallError::Refused { status: 400 | 404, .. } => ErrorCode::BadRequest,
            CallError::Refused { status: 410, .. } => ErrorCode::SessionLost,
            CallError::Refused { status: 503, .. } => ErrorCode::ConnectFailed,
            _ => ErrorCode::PluginFailed,
        };
        ErrorInfo::new(code, self.plugin.sentence(error))
    }

    /// One call on a session's own start.
    pub(super) async fn on<T: DeserializeOwned>(
        &self,
        start: &Arc<Start>,
        path: &str,
        body: &impl serde::Serialize,
        deadline: Instant,
        errand: &Errand,
    ) -> Result<T, CallError> {
        self.plugin.program.call_on(start, path, body, deadline, Vec::new(), errand).await
    }

    /// What the plugin's own check is asked: no secret is in it.
    fn question(&self, request: &ExecutionRequest, lines: &[String]) -> Value {
        let mut shown = json!({
            "driver": request.driver,
            "connection_args": secret::masked_map(&request.connection_args.0),
            "driver_args": secret::masked_map(&request.driver_args),
        });
        let key = if matches!(request.operation, Operation::Command(_)) { "command" } else { "config" };
        let secrets = request.secrets();
        shown[key] = lines.iter().map(|line| secret::scrub(line, &secrets)).collect();
        for flag in ["enable_mode", "save", "dry_run"] {
            if let Some(on) = request.flag(flag) {
                shown[flag] = on.into();
            }
        }
        json!({"name": self.plugin.name(), "request": shown})
    }

    fn validation(&self, device: &str, request: &ExecutionRequest, lines: &[String]) -> Errand {
        Errand::on_device(VALIDATE, device, lines.iter().map(String::as_str), &request.driver_args)
    }
}

fn secrets_of(args: &ConnectionArgs) -> Vec<String> {
    secret::collect(&Value::Object(args.0.clone()))
}

fn mistake(loc: &[&str], msg: String, input: Value) -> FieldError {
    FieldError { input, ..FieldError::new(loc, msg) }
}

#[async_trait]
impl Driver for ExternalDriver {
    fn name(&self) -> &str {
        self.0.plugin.name()
    }

    fn default_strategy(&self) -> Strategy {
        self.0.plugin.capability.default_queue_strategy.unwrap_or(Strategy::Fifo)
    }

    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        let host = args.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let sound = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if bare.is_empty() || bare.len() > 255 || bare.starts_with('-') || !bare.chars().all(sound) {
            let msg = "Input should be a host name or an address, without port, scheme or user";
            return Err(mistake(&["connection_args", "host"], msg.to_owned(), Value::from(host)));
        }
        let default = self.0.plugin.capability.default_port.unwrap_or(22);
        let port = match args.0.get("port") {
            None | Some(Value::Null) => default,
            Some(given) => args.port().filter(|port| *port > 0).ok_or_else(|| {
                mistake(
                    &["connection_args", "port"],
                    "Input should be a port, 1 to 65535".to_owned(),
                    given.clone(),
                )
            })?,
        };
        Ok(DeviceKey::new(bare, port, default))
    }

    fn validate(&self, request: &ExecutionRequest) -> Vec<FieldError> {
        let mut errors = self.validate_connection(&request.connection_args);
        if let Some(schema) = &self.0.driver_args {
            errors.extend(schema.check_map(&request.driver_args, &["driver_args"]));
        }
        let name = self.name();
        if request.kind() == JobKind::Modification && !self.0.has("config") {
            errors.push(mistake(
                &["config"],
                format!("The driver {name} changes no configuration"),
                Value::Null,
            ));
        }
        for flag in ["save", "dry_run"] {
            if request.flag(flag) == Some(true) && !self.0.has(flag) {
                let msg = format!("The driver {name} cannot do this; leave `{flag}` out");
                errors.push(mistake(&[flag], msg, Value::from(true)));
            }
        }
        errors
    }

    fn validate_connection(&self, args: &ConnectionArgs) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = self.device(args).err().into_iter().collect();
        if let Some(schema) = &self.0.connection_args {
            errors.extend(schema.check_map(&args.0, &["connection_args"]));
        }
        errors
    }

    fn examines(&self) -> bool {
        self.0.has("validate")
    }

    async fn examine(&self, request: &ExecutionRequest) -> Vec<FieldError> {
        // What is rendered, and what a credential brings, only the worker knows.
        if !self.examines() || request.rendering.is_some() || request.credential.is_some() {
            return Vec::new();
        }
        let (key, items) = match &request.operation {
            Operation::Command(payload) => ("command", payload.items()),
            Operation::Config(payload) => ("config", super::driver_run::lines(&payload.items())),
        };
        let Ok(device) = self.device(&request.connection_args) else { return Vec::new() };
        let body = self.0.question(request, &items);
        let errand = self.0.validation(device.as_str(), request, &items);
        const FIELDS: &[&str] = &[
            "driver",
            "connection_args",
            "driver_args",
            "command",
            "config",
            "enable_mode",
            "save",
            "dry_run",
        ];
        let plugin = &self.0.plugin;
        self.0.examiner.ask(plugin, VALIDATE, &body, request.secrets(), &errand, (FIELDS, key)).await
    }

    async fn connect(&self, args: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        let session = self.open(args).await.map_err(|error| self.0.info(&error))?;
        Ok(Box::new(session))
    }

    async fn test(&self, args: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        let plugin = &self.0.plugin;
        if !self.0.has("test") {
            let mut session = self.open(args).await.map_err(|error| self.0.info(&error))?;
            session.close().await;
            return Ok(Map::new());
        }
        let body = json!({"name": self.name(), "connection_args": args.0});
        let tested: Tested = plugin
            .program
            .call(
                "/driver/test",
                &body,
                plugin.deadline(),
                secrets_of(args),
                &self.arrival("/driver/test", args),
            )
            .await
            .map_err(|error| self.0.info(&error))?;
        if tested.success {
            return Ok(tested.info);
        }
        let kind = tested.error_type.as_deref().map_or(ErrorCode::ConnectFailed, code);
        let text = tested.error.unwrap_or_else(|| "The device did not let us in".to_owned());
        Err(ErrorInfo::new(kind, secret::scrub(&text, &secrets_of(args))))
    }
}

impl ExternalDriver {
    /// Coming to a device with these arguments.
    fn arrival(&self, path: &str, args: &ConnectionArgs) -> Errand {
        let device = self.device(args).map(|device| device.as_str().to_owned()).unwrap_or_default();
        Errand::on_device(path, &device, [], &args.0)
    }

    async fn open(&self, args: &ConnectionArgs) -> Result<Session, CallError> {
        let plugin = &self.0.plugin;
        let deadline = plugin.deadline();
        let keepalive = args.0.get("keepalive").and_then(Value::as_f64).filter(|s| *s > 0.0 && *s < 86_400.0);
        let body = Connect {
            name: self.name().to_owned(),
            job_id: Scope::current().map(|scope| scope.job.to_string()),
            connection_args: args.0.clone(),
            driver_args: Map::new(),
            keepalive,
        };
        let errand = self.arrival("/driver/connect", args);
        plugin.program.admit(&errand)?;
        let user = plugin.program.user();
        let mut again = true;
        loop {
            let start = tokio::time::timeout_at(deadline.into(), plugin.program.running())
                .await
                .map_err(|_| CallError::NotSent("was not ready in time".to_owned()))??;
            let call = plugin.program.call_on::<Connected>(
                &start,
                "/driver/connect",
                &body,
                deadline,
                secrets_of(args),
                &errand,
            );
            match call.await {
                // It had ended idle under us: nothing was done.
                Err(CallError::NotSent(_)) if again && start.has_ended() => again = false,
                Err(error) => return Err(error),
                Ok(connected) if connected.session.is_empty() => {
                    return Err(CallError::Nonsense("answered /driver/connect without a session".to_owned()));
                }
                Ok(connected) => {
                    return Ok(Session {
                        driver: Arc::clone(&self.0),
                        start,
                        id: connected.session,
                        host: args.host().unwrap_or_default().to_owned(),
                        device: self.device(args).map(|d| d.as_str().to_owned()).unwrap_or_default(),
                        keepalive: keepalive.map(Duration::from_secs_f64),
                        state: State::Open,
                        _user: user,
                    });
                }
            }
        }
    }
}

/// What is known of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Idle.
    Open,
    /// A call on it has begun and not ended.
    Busy,
    /// The plugin does not have it any more, or was told.
    Gone,
}

/// A session that lives in the plugin's process.
pub(super) struct Session {
    pub(super) driver: Arc<Inner>,
    pub(super) start: Arc<Start>,
    pub(super) id: String,
    pub(super) host: String,
    /// The host with its port, for whom to blame.
    pub(super) device: String,
    keepalive: Option<Duration>,
    pub(super) state: State,
    _user: TaskTrackerToken,
}

impl Session {
    pub(super) fn program(&self) -> &Arc<Program> {
        &self.driver.plugin.program
    }

    fn reference(&self, force: bool) -> SessionRef {
        SessionRef { name: self.driver.plugin.name().to_owned(), session: self.id.clone(), force }
    }

    /// The right to speak to the device was lost: the plugin closes its socket at once, or ends.
    pub(super) async fn cut(&mut self) {
        self.state = State::Gone;
        cut(&self.start, &self.reference(true)).await;
    }

    /// Feature `validate`: what the plugin itself finds wrong.
    pub(super) async fn validate(
        &self,
        request: &ExecutionRequest,
        lines: &[String],
        deadline: Instant,
    ) -> Result<(), CallError> {
        if !self.driver.has("validate") {
            return Ok(());
        }
        let body = self.driver.question(request, lines);
        let errand = self.driver.validation(&self.device, request, lines);
        self.driver.on::<Value>(&self.start, VALIDATE, &body, deadline, &errand).await.map(|_| ())
    }
}

async fn cut(start: &Arc<Start>, reference: &SessionRef) {
    if start.has_ended() {
        return;
    }
    let body = serde_json::to_vec(reference).unwrap_or_default();
    let answer = start.exchange(Method::POST, "/driver/disconnect", body, Instant::now() + FORCED).await;
    if let (Err(error), false) = (answer, start.has_ended()) {
        tracing::warn!(
            target: "plugin", plugin = start.voice.id,
            "did not close a session that it has no right to any more, and is killed: {}", error.reason()
        );
        // Whatever else it was doing did not bring this about.
        start.suspects.absolve();
        start.kill().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.state == State::Gone || self.start.has_ended() {
            return;
        }
        let (start, reference) = (Arc::clone(&self.start), self.reference(true));
        // Given up in the middle of a job: nobody waits for the end of this.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { cut(&start, &reference).await });
        }
    }
}

#[async_trait]
impl DriverSession for Session {
    async fn run(&mut self, run: Run<'_>) -> Report {
        self.state = State::Busy;
        let report = self.execute(&run).await;
        if self.state == State::Busy {
            self.state = State::Open;
        }
        report
    }

    async fn keepalive(&mut self) -> Result<(), ErrorInfo> {
        let lost = |text: String| ErrorInfo::new(ErrorCode::SessionLost, text);
        if self.start.has_ended() {
            self.state = State::Gone;
            return Err(lost(format!("the plugin {} has ended", self.driver.plugin.id())));
        }
        if !self.driver.has("keepalive") {
            return Ok(());
        }
        #[derive(serde::Deserialize)]
        struct Alive {
            alive: bool,
        }
        let answer: Result<Alive, CallError> = self
            .driver
            .on(
                &self.start,
                "/driver/alive",
                &self.reference(false),
                Instant::now() + ALIVE,
                &Errand::default(),
            )
            .await;
        match answer {
            Ok(Alive { alive: true }) => Ok(()),
            Ok(Alive { alive: false }) => Err(lost(format!("{}: the device does not answer", self.host))),
            Err(error) => Err(lost(self.driver.plugin.sentence(&error))),
        }
    }

    async fn closed(&mut self) {
        self.start.ended().await;
    }

    fn keepalive_interval(&self) -> Option<Duration> {
        self.keepalive
    }

    fn detached(&mut self) -> Option<&mut dyn DetachedTasks> {
        if self.driver.has("detached") { Some(self) } else { None }
    }

    async fn close(&mut self) {
        match self.state {
            State::Gone => {}
            State::Busy => self.cut().await,
            State::Open if self.start.has_ended() => self.state = State::Gone,
            State::Open => {
                let reference = self.reference(false);
                let body = serde_json::to_vec(&reference).unwrap_or_default();
                let ledger = self.driver.plugin.program.ledger();
                let unanswered = Unanswered::new(&self.start, ledger, &Errand::default());
                let answer = self
                    .start
                    .exchange(Method::POST, "/driver/disconnect", body, Instant::now() + POLITE)
                    .await;
                unanswered.settle(&answer);
                match answer {
                    Ok(_) => self.state = State::Gone,
                    Err(error) => {
                        tracing::debug!(plugin = self.driver.plugin.id(), "disconnect: {}", error.reason());
                        // Dropped soon, and cut then.
                    }
                }
            }
        }
    }
}
