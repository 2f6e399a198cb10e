//! Drivers: sessions to devices, line by line.

use async_trait::async_trait;
use netpulse_model::plugin::{DetachedOutput, DetachedTask};
use netpulse_model::{ConnectionArgs, ExecutionResult, Outcome};
use serde_json::{Map, Value};

use crate::{Call, Failure};

fn no_detached() -> Failure {
    Failure::bad_request("this driver detaches no commands")
}

/// What a connection test saw.
pub type TestInfo = Map<String, Value>;

/// Reaches devices.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Opens a session. Say what failed with [`Failure::device`].
    async fn connect(&self, args: &ConnectionArgs, call: &Call) -> Result<Box<dyn Session>, Failure>;

    /// What is wrong with a request that no schema can say. Secrets in it are masked.
    async fn validate(&self, _request: &Value) -> Result<(), Failure> {
        Ok(())
    }

    /// Connects, looks, disconnects.
    async fn test(&self, args: &ConnectionArgs, call: &Call) -> Result<TestInfo, Failure> {
        let session = self.connect(args, call).await?;
        session.close().await;
        Ok(TestInfo::new())
    }
}

/// One session to one device. Never used by two calls at a time; dropped when nobody may speak to
/// the device any more, so close your sockets in `Drop`.
#[async_trait]
pub trait Session: Send + 'static {
    /// Runs one command. Results are made with [`ExecutionResult::ok`] and
    /// [`ExecutionResult::failed`]. A failure ends the job.
    async fn command(&mut self, command: &str, call: &Call) -> Result<ExecutionResult, Failure>;

    /// Enters configuration mode.
    async fn begin(&mut self, _call: &Call) -> Result<(), Failure> {
        Ok(())
    }

    /// Sends one configuration line. A result whose exit status is not 0 ends the change: the rest
    /// is not sent, and [`Session::discard`] is called.
    async fn line(&mut self, _line: &str, _call: &Call) -> Result<ExecutionResult, Failure> {
        Err(Failure::bad_request("this driver changes no configuration"))
    }

    /// All lines were accepted: commits, leaves configuration mode, saves if `save` is set.
    async fn commit(&mut self, _call: &Call) -> Result<(), Failure> {
        Ok(())
    }

    /// A line was refused, or the change was canceled: leaves configuration mode, throws a
    /// candidate away. Says what is in effect now: [`Outcome::NotApplied`] on a device with a
    /// candidate, [`Outcome::Partial`] where each line takes effect at once.
    async fn discard(&mut self, _call: &Call) -> Result<Outcome, Failure> {
        Ok(Outcome::Unknown)
    }

    /// Feature `detached`: launches a command that goes on without this session, under the name
    /// `task_id`.
    async fn launch(
        &mut self,
        _task_id: &str,
        _command: &str,
        _call: &Call,
    ) -> Result<DetachedTask, Failure> {
        Err(no_detached())
    }

    /// How such a command stands, and its output from byte `offset` on; [`Failure::not_found`] when
    /// there is none.
    async fn query(&mut self, _task_id: &str, _offset: u64, _call: &Call) -> Result<DetachedOutput, Failure> {
        Err(no_detached())
    }

    /// Ends it; false when it had ended.
    async fn kill(&mut self, _task_id: &str, _call: &Call) -> Result<bool, Failure> {
        Err(no_detached())
    }

    /// What was launched on the device and is not cleaned up.
    async fn list(&mut self, _call: &Call) -> Result<Vec<DetachedTask>, Failure> {
        Err(no_detached())
    }

    /// Gives a sign of life and looks for one.
    async fn alive(&mut self) -> Result<bool, Failure> {
        Ok(true)
    }

    /// Leaves politely.
    async fn close(self: Box<Self>) {}
}
