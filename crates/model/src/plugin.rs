//! What the host and an external plugin say to each other: `docs/plugin-contract.md` as types.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ErrorCode, ErrorInfo};
use crate::request::Strategy;
use crate::result::{ExecutionResult, Outcome};

/// The contract that this version speaks.
pub const CONTRACT: &str = "netpulse.plugin/v1";

/// Header names of the contract, lower case.
pub mod header {
    /// The start's id.
    pub const START: &str = "x-netpulse-plugin-start";
    /// The request's number, echoed by its answer.
    pub const REQUEST: &str = "x-netpulse-plugin-request";
    /// Seconds until the host gives up.
    pub const TIMEOUT: &str = "x-netpulse-plugin-timeout";
    /// The token of a start over TCP.
    pub const TOKEN: &str = "x-netpulse-plugin-token";
    /// The code of an error (`docs/errors.md`).
    pub const ERROR: &str = "x-netpulse-plugin-error";
}

/// The media type of streamed answers.
pub const NDJSON: &str = "application/x-ndjson";

/// What a plugin can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Reaches devices.
    Driver,
    /// Makes text of data.
    TemplateRenderer,
    /// Makes data of text.
    TemplateParser,
    /// Chooses nodes.
    Scheduler,
    /// Tells that a job has ended.
    Webhook,
    /// Gives secrets.
    Credential,
    /// Gathers data for checks.
    Provider,
    /// Turns gathered data into what checks look at.
    Input,
    /// Judges.
    Check,
    /// Works on what checks found.
    Assistant,
    /// Brings it to people.
    Output,
    /// A device platform: data, not a program.
    Platform,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Driver,
        Self::TemplateRenderer,
        Self::TemplateParser,
        Self::Scheduler,
        Self::Webhook,
        Self::Credential,
        Self::Provider,
        Self::Input,
        Self::Check,
        Self::Assistant,
        Self::Output,
        Self::Platform,
    ];

    /// The name in lists, paths and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::TemplateRenderer => "template-renderer",
            Self::TemplateParser => "template-parser",
            Self::Scheduler => "scheduler",
            Self::Webhook => "webhook",
            Self::Credential => "credential",
            Self::Provider => "provider",
            Self::Input => "input",
            Self::Check => "check",
            Self::Assistant => "assistant",
            Self::Output => "output",
            Self::Platform => "platform",
        }
    }

    /// The capability's `type` on the wire.
    #[must_use]
    pub fn capability(self) -> &'static str {
        match self {
            Self::TemplateRenderer => "templateRenderer",
            Self::TemplateParser => "templateParser",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of plugin: there are {list}", list = Kind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", "))]
pub struct NoKind(pub String);

impl FromStr for Kind {
    type Err = NoKind;

    /// Reads either spelling.
    fn from_str(text: &str) -> Result<Self, NoKind> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text || kind.capability() == text)
            .ok_or_else(|| NoKind(text.to_owned()))
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How the start's configuration stands on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartForm {
    /// `server '<json>'`
    Server,
    /// `server --config '<json>'`
    ServerConfig,
    /// `--config '<json>'`
    Config,
}

impl StartForm {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Server, Self::ServerConfig, Self::Config];

    /// The arguments.
    #[must_use]
    pub fn arguments(self, config: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Server => &["server"],
            Self::ServerConfig => &["server", "--config"],
            Self::Config => &["--config"],
        };
        words.iter().copied().chain([config]).map(str::to_owned).collect()
    }

    /// The word in `capabilities`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ServerConfig => "server-config",
            Self::Config => "config",
        }
    }
}

/// What `<file> capabilities` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// [`CONTRACT`].
    #[serde(default)]
    pub contract: String,
    /// Unique: `<who>/<kind>/<name>/v<n>`.
    #[serde(default)]
    pub id: String,
    /// The plugin's own version.
    #[serde(default)]
    pub version: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// Which start form it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartForm>,
    /// What the program as a whole can do.
    #[serde(default)]
    pub features: Vec<String>,
    /// The older form: name to kinds.
    #[serde(default, rename = "type")]
    pub by_type: BTreeMap<String, Vec<String>>,
    /// What it is.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Not used by our kinds.
    #[serde(default, rename = "supportedConfigTypes")]
    pub supported_config_types: Vec<String>,
}

/// One thing that a plugin is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capability {
    /// The kind's [`Kind::capability`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The name that requests use.
    #[serde(default)]
    pub name: String,
    /// What it can do.
    #[serde(default)]
    pub features: Vec<String>,
    /// Drivers: where their jobs wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_queue_strategy: Option<Strategy>,
    /// Drivers: the port unless the request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_port: Option<u16>,
    /// Schemas by argument name.
    #[serde(default, rename = "jsonSchema")]
    pub json_schema: Value,
    /// Endpoint to a request body that is answered with 200.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub examples: Map<String, Value>,
}

impl Capability {
    /// Whether it can do `feature`.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }
}

/// The configuration of a start, on the command line: nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartConfig {
    /// The file's name.
    pub id: String,
    /// The start's id; absent from hosts that are not NetPulse.
    #[serde(default)]
    pub start: String,
    /// `unix` or `tcp`.
    #[serde(rename = "type", default = "unix")]
    pub kind: String,
    /// The socket's path, or `127.0.0.1:<port>`.
    #[serde(default)]
    pub location: String,
    /// TCP: the file with the token.
    #[serde(default, rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// A duration text or nanoseconds.
    #[serde(default, rename = "idleTimeout", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Value>,
    /// Always empty.
    #[serde(default)]
    pub config: Value,
}

fn unix() -> String {
    "unix".to_owned()
}

/// What `/healthz` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    #[serde(default)]
    pub status: String,
    /// [`CONTRACT`].
    #[serde(default)]
    pub contract: String,
    /// As in the capabilities.
    #[serde(default)]
    pub id: String,
    /// As in the capabilities.
    #[serde(default)]
    pub version: String,
}

/// One result as plugins write it: only `command` must be there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WireResult {
    /// What was sent.
    pub command: String,
    /// What came back.
    #[serde(default)]
    pub stdout: Value,
    /// The error text.
    #[serde(default)]
    pub stderr: Option<String>,
    /// 0 when the device accepted it.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// Where a downloaded file can be fetched.
    #[serde(default)]
    pub download_url: Option<String>,
    /// Further facts.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    /// What a parser made of it.
    #[serde(default)]
    pub parsed: Option<Value>,
}

impl From<WireResult> for ExecutionResult {
    fn from(wire: WireResult) -> Self {
        Self {
            command: wire.command,
            stdout: if wire.stdout.is_null() { Value::from("") } else { wire.stdout },
            stderr: wire.stderr.unwrap_or_default(),
            exit_status: wire.exit_status.unwrap_or_default(),
            download_url: wire.download_url,
            metadata: wire.metadata.unwrap_or_default(),
            parsed: wire.parsed,
        }
    }
}

impl From<ExecutionResult> for WireResult {
    fn from(result: ExecutionResult) -> Self {
        Self {
            command: result.command,
            stdout: result.stdout,
            stderr: Some(result.stderr),
            exit_status: Some(result.exit_status),
            download_url: result.download_url,
            metadata: Some(result.metadata),
            parsed: result.parsed,
        }
    }
}

/// An error inside an answer, as plugins write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// A code of `docs/errors.md`; `plugin_failed` when absent or unknown.
    #[serde(default, rename = "type")]
    pub code: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
}

impl From<WireError> for ErrorInfo {
    fn from(wire: WireError) -> Self {
        Self::new(code(&wire.code), wire.message)
    }
}

impl From<ErrorInfo> for WireError {
    fn from(error: ErrorInfo) -> Self {
        Self { code: error.code.as_str().to_owned(), message: error.message }
    }
}

/// The code of that text; [`ErrorCode::PluginFailed`] for one that nobody knows.
#[must_use]
pub fn code(text: &str) -> ErrorCode {
    ErrorCode::ALL.iter().copied().find(|c| c.as_str() == text).unwrap_or(ErrorCode::PluginFailed)
}

/// The answer of `/driver/send` and `/driver/config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// One per command or line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<WireResult>>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<WireError>,
    /// What a modification did.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Whether the session can serve another job.
    #[serde(default)]
    pub usable: Option<bool>,
    /// Nothing had reached the device when it failed.
    #[serde(default)]
    pub untouched: Option<bool>,
}

/// One line of a streamed answer.
// Read one at a time, never kept in numbers.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// This line is next.
    Sending(usize),
    /// The line announced last was answered.
    Result(WireResult),
    /// The end.
    Done(Done),
    /// A provider's item.
    Item(Value),
    /// A provider could not go on: the end of its stream.
    Error(Broken),
}

/// Why a stream of items ends before its result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The status that an answer would have had; 500 when absent.
    #[serde(default)]
    pub status: Option<u16>,
    /// A sentence.
    #[serde(default)]
    pub message: String,
}

/// A command that goes on without the session that launched it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachedTask {
    /// The name that the host gave it.
    pub task_id: String,
    /// What runs.
    #[serde(default)]
    pub command: String,
    /// Whether it still does.
    pub running: bool,
    /// The device's own number for it.
    #[serde(default)]
    pub pid: Option<u64>,
    /// How it ended, when it has and that is known.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// Where its output is on the device.
    #[serde(default)]
    pub log_file: Option<String>,
    /// When it was launched: ISO 8601.
    #[serde(default)]
    pub created_at: Option<String>,
}

/// The body of `/driver/detached/launch`, `/query`, `/kill` and `/list`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Detached {
    /// The capability.
    #[serde(default)]
    pub name: String,
    /// The session.
    pub session: String,
    /// For which job.
    #[serde(default)]
    pub job_id: Option<String>,
    /// Which task; absent from `list`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task_id: String,
    /// `launch`: what to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// `launch`: the driver's own arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub driver_args: Map<String, Value>,
    /// `query`: from which byte of the output on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// The answer of `/driver/detached/query`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachedOutput {
    /// The task as it stands.
    pub task: DetachedTask,
    /// Its output from the offset on.
    pub output: String,
    /// The offset to go on from.
    pub next_offset: u64,
}

/// The body of `/driver/connect`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    /// The capability.
    #[serde(default)]
    pub name: String,
    /// For which job.
    #[serde(default)]
    pub job_id: Option<String>,
    /// How to reach the device.
    pub connection_args: Map<String, Value>,
    /// Always empty.
    #[serde(default)]
    pub driver_args: Map<String, Value>,
    /// Seconds between signs of life.
    #[serde(default)]
    pub keepalive: Option<f64>,
}

/// The answer of `/driver/connect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The session's id.
    pub session: String,
    /// Whether the plugin had it already.
    #[serde(default)]
    pub reused: bool,
}

/// The body of `/driver/send` and `/driver/config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Execute {
    /// The capability.
    #[serde(default)]
    pub name: String,
    /// The session.
    pub session: String,
    /// This execution's id.
    #[serde(default)]
    pub run: String,
    /// For which job.
    #[serde(default)]
    pub job_id: Option<String>,
    /// `/driver/send`: what to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// `/driver/config`: what to configure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<String>>,
    /// `enable_mode`, `save`, `dry_run` as far as the request said.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// The driver's own arguments.
    #[serde(default)]
    pub driver_args: Map<String, Value>,
    /// The request's file transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_transfer: Option<Value>,
    /// Answer in NDJSON.
    #[serde(default)]
    pub stream: bool,
    /// The first so many lines need no further leave.
    #[serde(default)]
    pub granted: usize,
}

/// The body of `/driver/leave`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The capability.
    #[serde(default)]
    pub name: String,
    /// The execution.
    pub run: String,
    /// The line; without it, stop now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Whether the line may be sent.
    pub leave: bool,
}

/// The body of `/driver/disconnect` and `/driver/alive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    /// The capability.
    #[serde(default)]
    pub name: String,
    /// The session.
    pub session: String,
    /// Say nothing more to the device.
    #[serde(default)]
    pub force: bool,
}

/// The answer of `/driver/test`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    /// Whether the device let us in.
    pub success: bool,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
    /// A code of `docs/errors.md`.
    #[serde(default)]
    pub error_type: Option<String>,
    /// What was seen.
    #[serde(default)]
    pub info: Map<String, Value>,
}

/// One line of the log that a plugin writes on stderr.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, RFC 3339.
    #[serde(default)]
    pub time: Value,
    /// `debug`, `info`, `warn` or `error`.
    #[serde(default)]
    pub level: Value,
    /// The sentence.
    #[serde(default)]
    pub msg: Value,
    /// Everything else.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
