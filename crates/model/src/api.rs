//! The bodies of the REST API, shared by the server that writes them and the client that reads them.
//!
//! Field names and shapes are upstream's (0.4.x); fields it does not have are added, none is left
//! out. Requests are *read* by [`crate::request`], which names every mistake; the request types
//! here are for those who send them, and for the OpenAPI document.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::credential::CredentialRef;
use crate::event::EventId;
use crate::job::{Job, JobId, JobKind, JobStatus, Priority, RetryPolicy};
use crate::request::{AuditMode, BulkFailure, Payload, Strategy};
use crate::result::JobResult;
use crate::time::Timestamp;

/// A job as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobInResponse {
    /// Its identity.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// When it was accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// When it was put into its queue.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub enqueued_at: Option<Timestamp>,
    /// When a worker took it (the last time).
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// `FifoQ`, or `HostQ_<host>` (with `:<port>` where it is not the driver's default).
    pub queue: String,
    /// Who took it.
    pub worker: Option<String>,
    /// Its result: there exactly when the status is final.
    #[schema(value_type = Option<JobResult>)]
    pub result: Option<Arc<JobResult>>,
    /// The detached task it belongs to.
    pub task_id: Option<String>,
    /// The host as the client wrote it.
    pub device_name: Option<String>,
    /// The commands or configuration lines, secrets masked.
    pub command: Option<Vec<String>>,
    /// Seconds it ran.
    pub duration: Option<f64>,
    /// Seconds it waited.
    pub queue_time: Option<f64>,
    /// The host as the client wrote it (added; the same as `device_name`).
    #[serde(default)]
    pub host: Option<String>,
    /// The driver's name (added).
    #[serde(default)]
    pub driver: Option<String>,
    /// Whether it changes the device (added).
    #[serde(default)]
    pub kind: Option<JobKind>,
    /// Its place among the jobs of its queue (added).
    #[serde(default)]
    pub priority: Option<Priority>,
    /// How often it was started (added).
    #[serde(default)]
    pub attempt: Option<u32>,
}

impl From<Job> for JobInResponse {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            status: job.status,
            created_at: Some(job.created_at),
            enqueued_at: job.enqueued_at,
            started_at: job.started_at,
            ended_at: job.ended_at,
            queue: job.queue.to_string(),
            duration: job.duration(),
            queue_time: job.queue_time(),
            worker: job.worker,
            result: job.result,
            task_id: job.task_id,
            host: job.device_name.clone(),
            device_name: job.device_name,
            command: job.command,
            driver: Some(job.driver),
            kind: Some(job.kind),
            priority: Some(job.priority),
            attempt: Some(job.attempt),
        }
    }
}

/// What became of a bulk request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BulkResponse {
    /// The accepted jobs, in the order of the request; `device_name` and `host` name the device.
    pub succeeded: Vec<JobInResponse>,
    /// The devices that could not be asked, and why.
    pub failed: Vec<BulkFailure>,
}

/// What a connection test saw. A device that cannot be reached is an answer, not an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestResponse {
    /// Whether the device let us in.
    pub success: bool,
    /// Seconds it took.
    pub latency: Option<f64>,
    /// Why not.
    pub error: Option<String>,
    /// The error's stable code (added).
    #[serde(default)]
    pub error_type: Option<String>,
    /// `driver`, `host`, and what the driver saw: `prompt`, `device_type`, `remote_version`, ...
    #[schema(value_type = Option<Object>)]
    pub result: Option<Map<String, Value>>,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
}

/// What a cancel did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CancelResponse {
    /// The job.
    pub id: JobId,
    /// `before_start`: it never runs. `asked`: it runs, its worker has been told, and the job's
    /// result will say between which lines it stopped (added).
    #[serde(default)]
    pub canceled: String,
}

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyResponse {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// Whether it waits at all.
    pub waiting: bool,
    /// How many jobs of its queue go before it.
    pub ahead: Option<u64>,
    /// The job that holds its device.
    pub behind: Option<JobId>,
    /// Not before this time (a retry).
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// The node that owns its device, or that was chosen for it.
    #[serde(default)]
    pub node: Option<String>,
    /// What it waits for, in one word.
    #[serde(default)]
    pub kind: WhyKind,
    /// All of it as a sentence.
    pub reason: String,
}

/// What a job waits for. Where several hold, the one that must go first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhyKind {
    /// It has ended.
    #[default]
    Ended,
    /// It runs.
    Runs,
    /// It is held until a time: its next try.
    HeldUntil,
    /// It is held until a time, because its device did not answer, or refused its login, several times
    /// in a row (`worker.breaker_failures`).
    Breaker,
    /// No node lives that could run it.
    NoNode,
    /// Nodes live, and none has room for its device.
    Capacity,
    /// Another job holds its device.
    DeviceBusy,
    /// Other jobs of its queue go first.
    Order,
    /// Nothing: it is next.
    Next,
}

/// A node: what it takes, and how much of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeInResponse {
    /// Its name.
    pub name: String,
    /// `ready`; `draining`: it takes nothing new; `silent`: it no longer renews its leases.
    pub state: NodeState,
    /// `devices`, `fifo`; none while it drains.
    pub roles: Vec<String>,
    /// Devices it may hold at a time.
    pub capacity: u64,
    /// Devices it owns, or that were given to it.
    pub devices: u64,
    /// Jobs it runs.
    pub running: u64,
    /// Its workers.
    pub workers: u64,
    /// Its process, on its machine.
    pub pid: Option<u32>,
    /// Repairs without a human since it came up.
    pub self_healing: u64,
    /// When it joined.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    /// When it last said that it lives.
    #[schema(value_type = String, format = DateTime)]
    pub renewed_at: Timestamp,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It takes jobs.
    Ready,
    /// It takes nothing new and ends what runs.
    Draining,
    /// It does not renew its leases.
    Silent,
}

/// A worker's name, as an answer to its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NameResponse {
    /// The worker.
    pub name: String,
}

/// The server is up and its store answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthResponse {
    /// `ok`.
    pub status: String,
}

/// The state of the whole system in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatsResponse {
    /// `online`.
    pub status: String,
    /// Workers.
    pub workers: WorkerStats,
    /// Jobs.
    pub jobs: JobStats,
    /// Nodes.
    pub nodes: NodeStats,
    /// Repairs without a human.
    pub self_healing: SelfHealing,
    /// Seconds since this server came up.
    pub uptime_seconds: u64,
}

/// Workers by class and state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStats {
    /// All.
    pub total: u64,
    /// Owners of one device each.
    pub pinned: u64,
    /// Servers of `FifoQ`.
    pub fifo: u64,
    /// Nodes.
    pub node: u64,
    /// Not at work.
    pub idle: u64,
    /// At work.
    pub busy: u64,
}

/// Jobs by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobStats {
    /// The sum of the next four.
    pub total: u64,
    /// Kept results that went well.
    pub succeeded: u64,
    /// Kept results that did not.
    pub failed: u64,
    /// Running.
    pub in_progress: u64,
    /// Waiting.
    pub queued: u64,
    /// Canceled and still remembered (added).
    #[serde(default)]
    pub canceled: u64,
}

/// Nodes and how many devices they may own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStats {
    /// Nodes that live.
    pub active: u64,
    /// Devices they may own together.
    pub total_capacity: u64,
}

/// Repairs without a human.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SelfHealing {
    /// How often, over all nodes that live, since each came up.
    pub total_triggers: u64,
}

/// What every error looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A sentence, or for a body of wrong types the list of its mistakes.
    pub detail: Value,
    /// The mistakes, each with `type`, `loc`, `msg` and `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub errors: Option<Vec<Value>>,
}

/// A place in the event stream from which events are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GapBody {
    /// Events before this one are no longer kept; the jobs themselves still tell the truth.
    pub before: EventId,
}

/// A renderer or a parser and what it works with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct TemplateBody {
    /// `jinja2`; `textfsm`, `ttp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The template, or where it lies (`file://`, `http://`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// To render: the variables. To parse: the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// The engine's own (`args`, `use_ntc_template`, `ntc_template_args`, ...).
    #[serde(flatten)]
    #[schema(additional_properties)]
    pub extra: Map<String, Value>,
}

/// One request to one device, as a client sends it. Fields left out take the server's defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ExecBody {
    /// `netmiko`, `paramiko`, or another driver's name.
    pub driver: String,
    /// How to reach the device: `host`, `device_type`, `username`, `password`, `port`, ...
    #[schema(value_type = Object)]
    pub connection_args: Map<String, Value>,
    /// Where user and password lie, instead of in the request (`{"ref": "sites/hq/admin"}`). The
    /// early form `connection_args.credential_ref` is read as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialRef>,
    /// The driver's own arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub driver_args: Map<String, Value>,
    /// Commands to run. Not together with `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Payload>,
    /// Configuration to push, line by line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Payload>,
    /// Render the payload first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendering: Option<TemplateBody>,
    /// Parse each output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parsing: Option<TemplateBody>,
    /// Where to wait; the driver decides when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_strategy: Option<Strategy>,
    /// Seconds the job may wait: 1 to 86400, 300 unless given (600 in bulk).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// Seconds the job may run: 1 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_timeout: Option<u64>,
    /// Seconds its result is kept: 60 to 604800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_ttl: Option<u64>,
    /// What the audit keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_mode: Option<AuditMode>,
    /// Its place among the jobs of its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How often a query is tried again when no connection comes about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Whom to tell when the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookBody>,
    /// Enter privileged mode first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_mode: Option<bool>,
    /// Save the configuration after a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<bool>,
    /// Anything else the driver reads.
    #[serde(flatten)]
    #[schema(additional_properties)]
    pub extra: Map<String, Value>,
}

/// A receiver that is told when the job has ended. Fields left out take the values named.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct WebhookBody {
    /// `http://` or `https://`.
    pub url: String,
    /// The kind: `basic` unless a plugin brings another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `GET`, `POST` (the default), `PUT`, `DELETE` or `PATCH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Cookies to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookies: Option<BTreeMap<String, String>>,
    /// User and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Vec<String>>,
    /// Seconds for one attempt: 0.5 to 120, 5 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Attempts after the first: 0 to 10, 3 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Seconds before each retry, the last one used again: 10, 30, 120 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_intervals: Option<Vec<f64>>,
    /// `standard` or `legacy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Key of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// One request to many devices, as a client sends it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct BulkBody {
    /// What holds for every device.
    #[serde(flatten)]
    pub base: ExecBody,
    /// Per device: `host`, any other connection argument, its own `command` or `config`, and its own
    /// `credential` or `credential_ref` (`null` for none).
    #[schema(value_type = Vec<Object>)]
    pub devices: Vec<Map<String, Value>>,
}

/// A request to test a connection, as a client sends it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct TestBody {
    /// The driver's name.
    pub driver: String,
    /// How to reach the device.
    #[schema(value_type = Object)]
    pub connection_args: Map<String, Value>,
    /// Where user and password lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialRef>,
}

/// A secret to be written, as a client sends it.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CredentialCreate {
    /// Where, without the mount.
    pub path: String,
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
    /// The field that holds the name; `username` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_key: Option<String>,
    /// The field that holds the password; `password` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_key: Option<String>,
    /// What is to be known about it; not secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

/// A secret to be looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CredentialRead {
    /// Where, without the mount.
    pub path: String,
    /// Show the password, where the configuration allows it.
    #[serde(default)]
    pub show_password: bool,
    /// The field that holds the name; `username` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_key: Option<String>,
    /// The field that holds the password; `password` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_key: Option<String>,
}

/// The path of a secret.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CredentialPath {
    /// Where, without the mount.
    pub path: String,
}

/// Which secrets to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CredentialList {
    /// Below which folder; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// At any depth.
    #[serde(default)]
    pub recursive: bool,
}

/// Secrets to be looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct CredentialPaths {
    /// 1 to 100 of them.
    pub paths: Vec<String>,
    /// Show the passwords, where the configuration allows it.
    #[serde(default)]
    pub show_password: bool,
}

/// A plugin, as `GET /plugins` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PluginInfo {
    /// `driver`, `template-renderer`, `webhook`, ...; none for a file that could not say what it is.
    pub kind: Option<String>,
    /// The name that requests use, or the file's.
    pub name: String,
    /// `<who>/<kind>/<name>/v<n>`.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// `built-in` or `external`.
    pub source: String,
    /// The file of an external one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `declared` (starts at its first call), `started`, or `failed`.
    pub state: String,
    /// What is wrong with it.
    pub error: Option<String>,
    /// What it can do beyond the least.
    #[serde(default)]
    pub features: Vec<String>,
    /// How often its process was started.
    #[serde(default)]
    pub starts: u64,
}
