//! The driver kind: how to reach a device and what to do there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::plugin::Kind;
pub use netpulse_model::plugin::{DetachedOutput, DetachedTask};
use netpulse_model::request::Strategy;
use netpulse_model::{
    ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, ExecutionResult, FieldError, Outcome,
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::registry::{Implementation, Plugins};

/// A driver: validates requests for its devices and opens sessions to them.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// The name that requests carry in `driver`.
    fn name(&self) -> &str;

    /// Where its jobs wait unless the request or the configuration says.
    fn default_strategy(&self) -> Strategy;

    /// Which device these arguments mean.
    ///
    /// # Errors
    /// No host, or a port that is none.
    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError>;

    /// Everything wrong with a request that can be seen without the device; empty when sound.
    fn validate(&self, request: &ExecutionRequest) -> Vec<FieldError>;

    /// Everything wrong with connection arguments alone.
    fn validate_connection(&self, args: &ConnectionArgs) -> Vec<FieldError>;

    /// Whether there is more to say about a request than [`Driver::validate`] knows.
    fn examines(&self) -> bool {
        false
    }

    /// What else is wrong with a request, when finding out takes asking somebody: bounded to a few
    /// seconds, and nothing when that somebody does not answer. Whoever runs the job finds it then.
    async fn examine(&self, _request: &ExecutionRequest) -> Vec<FieldError> {
        Vec::new()
    }

    /// Opens a session. Bounded by the arguments' own timeouts.
    ///
    /// # Errors
    /// With the code that says which step failed.
    async fn connect(&self, args: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo>;

    /// Connects, looks, disconnects; what it saw (`host`, `prompt`, `remote_version`, ...).
    ///
    /// # Errors
    /// As [`Driver::connect`].
    async fn test(&self, args: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo>;
}

/// What to do over a session, rendered and ready to send.
#[derive(Debug, Clone)]
pub enum Work {
    /// Commands, one result each.
    Commands(Vec<String>),
    /// Configuration lines.
    Config(Vec<String>),
}

/// What a driver tells while it works. Called between awaits: must not block.
pub trait Watch: Send + Sync {
    /// Line `index` of `total` is about to be sent: after this, it may have reached the device.
    /// False when the right to send was lost: do not send it.
    fn sending(&self, index: usize, total: usize, line: &str) -> bool;

    /// Line `index` was answered.
    fn answered(&self, index: usize, total: usize, result: &ExecutionResult);
}

/// The frame of one execution.
pub struct Run<'a> {
    /// The request that the work came from (driver arguments, flags).
    pub request: &'a ExecutionRequest,
    /// The work.
    pub work: Work,
    /// Whom to tell.
    pub watch: &'a dyn Watch,
    /// Canceled: stop between lines; interrupt a command that hangs.
    pub cancel: CancellationToken,
    /// The right to send was lost: drop everything, say nothing more to the device.
    pub fence: CancellationToken,
    /// Whether the session served an earlier job.
    pub reused: bool,
}

/// What came of an execution.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One per command or line, in order; a config driver reports skipped lines too.
    pub results: Vec<ExecutionResult>,
    /// Why the job failed; none when it did what was asked.
    pub error: Option<ErrorInfo>,
    /// For modifications, always: what took effect.
    pub outcome: Option<Outcome>,
    /// The session can serve another job.
    pub reusable: bool,
    /// Nothing of the work had reached the device when it failed: it may be tried again, even a
    /// modification.
    pub untouched: bool,
}

impl Report {
    /// A report of a failure before anything was sent.
    pub fn untouched(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { error: Some(ErrorInfo::new(code, message)), untouched: true, ..Self::default() }
    }
}

/// How long the steps of opening a session took, as far as its driver knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opening {
    /// TCP, and the agreement on keys.
    pub connect: Option<Duration>,
    /// User and password or key.
    pub login: Option<Duration>,
    /// To the first prompt, ready for a command.
    pub prompt: Option<Duration>,
}

/// A live session to one device.
#[async_trait]
pub trait DriverSession: Send {
    /// Does the work. Never panics, never hangs: every wait inside has a deadline. The caller
    /// also drops this future when the job's own time is up, after which it only calls
    /// [`DriverSession::close`].
    async fn run(&mut self, run: Run<'_>) -> Report;

    /// Gives a sign of life and looks for one; cheap.
    ///
    /// # Errors
    /// The session is dead.
    async fn keepalive(&mut self) -> Result<(), ErrorInfo>;

    /// Resolves when the other side closes the session while it is idle. Safe to drop.
    async fn closed(&mut self);

    /// Seconds between signs of life, when the arguments say.
    fn keepalive_interval(&self) -> Option<Duration>;

    /// How long opening it took.
    fn opening(&self) -> Opening {
        Opening::default()
    }

    /// Commands that go on without this session, for a driver that has them.
    fn detached(&mut self) -> Option<&mut dyn DetachedTasks> {
        None
    }

    /// Leaves politely, within a second or two, and closes.
    async fn close(&mut self);
}

/// Launches commands that go on without their session, and looks after them.
#[async_trait]
pub trait DetachedTasks: Send {
    /// Launches `command` under the name `task_id`.
    ///
    /// # Errors
    /// It was not launched; `session_lost` when that is not known.
    async fn launch(
        &mut self,
        task_id: &str,
        command: &str,
        driver_args: &Map<String, Value>,
    ) -> Result<DetachedTask, ErrorInfo>;

    /// How it stands, and its output from byte `offset` on.
    ///
    /// # Errors
    /// There is no such task, or the device does not say.
    async fn query(&mut self, task_id: &str, offset: u64) -> Result<DetachedOutput, ErrorInfo>;

    /// Ends it; false when it had ended.
    ///
    /// # Errors
    /// As [`DetachedTasks::query`].
    async fn kill(&mut self, task_id: &str) -> Result<bool, ErrorInfo>;

    /// What was launched on the device and is not cleaned up.
    ///
    /// # Errors
    /// The device does not say.
    async fn list(&mut self) -> Result<Vec<DetachedTask>, ErrorInfo>;
}

/// The drivers by name: those built in, and behind them those that are programs of their own.
/// A job keeps the driver that it was given, whatever is reloaded meanwhile.
#[derive(Clone, Default)]
pub struct Drivers {
    plugins: Plugins,
}

impl Drivers {
    /// A registry of these drivers alone; a later one of the same name replaces an earlier one.
    #[must_use]
    pub fn new(drivers: Vec<Arc<dyn Driver>>) -> Self {
        let plugins = Plugins::without_external();
        for driver in drivers {
            plugins.register_driver(driver, "");
        }
        Self { plugins }
    }

    /// The drivers of that registry.
    #[must_use]
    pub fn of(plugins: Plugins) -> Self {
        Self { plugins }
    }

    /// The driver of that name, as far as is known now. [`Drivers::find`] looks further.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Driver>> {
        self.plugins.driver(name)
    }

    /// The driver of that name; looks into the plugin folders when nobody knows it yet.
    pub async fn find(&self, name: &str) -> Option<Arc<dyn Driver>> {
        match self.plugins.find(Kind::Driver, name).await? {
            Implementation::Driver(driver) => Some(driver),
            _ => None,
        }
    }

    /// All names known now, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.plugins.names(Kind::Driver)
    }

    /// The registry that they stand in.
    #[must_use]
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }
}
