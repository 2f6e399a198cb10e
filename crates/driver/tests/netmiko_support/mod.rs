//! Asking the netmiko driver as a worker does.

use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::netmiko::Netmiko;
use netpulse_model::{ConnectionArgs, ExecutionRequest, ExecutionResult};
use netpulse_plugin::{Driver, DriverSession, Report, Run, Watch, Work};
use netpulse_session::platform::Registry;
use netpulse_session::transport::hostkeys::HostKeys;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub fn object(value: Value) -> ConnectionArgs {
    ConnectionArgs(value.as_object().unwrap().clone())
}

pub fn driver() -> Netmiko {
    Netmiko::new(ConnectSettings::new(HostKeys::in_memory()), Registry::builtin().unwrap())
}

/// Remembers what it was told; `deny` lines are forbidden.
#[derive(Default)]
pub struct Log {
    pub sent: Mutex<Vec<String>>,
    pub answered: Mutex<Vec<ExecutionResult>>,
    pub deny: Option<String>,
    pub cancel_after: Option<(usize, CancellationToken)>,
}

impl Watch for Log {
    fn sending(&self, _index: usize, _total: usize, line: &str) -> bool {
        if self.deny.as_deref() == Some(line) {
            return false;
        }
        self.sent.lock().push(line.to_owned());
        true
    }

    fn answered(&self, index: usize, _total: usize, result: &ExecutionResult) {
        self.answered.lock().push(result.clone());
        if let Some((after, token)) = &self.cancel_after
            && index == *after
        {
            token.cancel();
        }
    }
}

/// Does what the request body says over an open session.
pub async fn run(
    session: &mut dyn DriverSession,
    body: Value,
    reused: bool,
    log: &Log,
    cancel: CancellationToken,
) -> Report {
    let mut whole = json!({"driver": "netmiko", "connection_args": {"host": "x"}});
    for (key, value) in body.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let request = ExecutionRequest::read(&whole, 300).unwrap();
    let items = request.payload().items();
    let work = match request.kind() {
        netpulse_model::JobKind::Query => Work::Commands(items),
        netpulse_model::JobKind::Modification => Work::Config(items),
    };
    session
        .run(Run { request: &request, work, watch: log, cancel, fence: CancellationToken::new(), reused })
        .await
}

/// The same, with nobody watching.
pub async fn ask(session: &mut dyn DriverSession, body: Value) -> Report {
    run(session, body, true, &Log::default(), CancellationToken::new()).await
}

pub async fn connect(args: &ConnectionArgs) -> Box<dyn DriverSession> {
    driver().connect(args).await.unwrap()
}
