//! The configuration as the program sees it, section by section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole configuration. Every key has a default but `server.api_key`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The REST API.
    pub server: Server,
    /// Defaults of jobs.
    pub job: JobDefaults,
    /// Workers.
    pub worker: Worker,
    /// The embedded store, and bounds of queues.
    pub store: Store,
    /// Device sessions.
    pub session: Session,
    /// Platforms.
    pub platform: Platform,
    /// Templates.
    pub template: Template,
    /// Files.
    pub storage: Storage,
    /// What is kept of modifications.
    pub audit: Audit,
    /// Logs.
    pub log: Log,
}

/// The REST API.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// How clients reach this server, for links in answers.
    pub external_url: Option<String>,
    /// The key that clients send. Required.
    pub api_key: String,
    /// Name of the header, query parameter and cookie that carries it.
    pub api_key_name: String,
    /// Certificate chain, PEM. With `tls_key` the server speaks HTTPS.
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Answer shared paths in the early API's envelope.
    pub legacy_envelope: bool,
    /// Origins that browsers may call from; empty means none.
    pub cors_origins: Vec<String>,
    /// Seconds a POST waits for its job's end when the client does not say.
    pub exec_wait: u64,
    /// The longest `wait` that is honoured, seconds.
    pub max_wait: u64,
    /// The largest request body, bytes.
    pub max_body: usize,
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Devices in one bulk request.
    pub max_bulk: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 9000,
            external_url: None,
            api_key: String::new(),
            api_key_name: "X-API-KEY".into(),
            tls_cert: None,
            tls_key: None,
            legacy_envelope: false,
            cors_origins: Vec::new(),
            exec_wait: 0,
            max_wait: 300,
            max_body: 32 * 1024 * 1024,
            max_connections: 4096,
            max_bulk: 50_000,
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Defaults of jobs, seconds.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobDefaults {
    /// How long a canceled job is remembered.
    pub ttl: u64,
    /// How long a job may run.
    pub timeout: u64,
    /// How long a result is kept.
    pub result_ttl: u64,
    /// Driver name to `fifo` or `pinned`, for requests that do not say.
    pub default_strategy: std::collections::BTreeMap<String, String>,
}

impl Default for JobDefaults {
    fn default() -> Self {
        Self { ttl: 1800, timeout: 300, result_ttl: 300, default_strategy: Default::default() }
    }
}

/// Workers.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// This node's name; the host name when empty.
    pub node: String,
    /// How a node is chosen for a device.
    pub scheduler: String,
    /// Devices that one node may own at a time; idle ones make room.
    pub pinned_per_node: usize,
    /// Jobs of `FifoQ` that run at a time.
    pub fifo_concurrency: usize,
    /// FIFO jobs at a time on one device.
    pub sessions_per_device: usize,
    /// Seconds an idle session is kept.
    pub pinned_idle_timeout: u64,
    /// Seconds between signs of life on an idle session, unless the request says (`keepalive`).
    pub keepalive: u64,
    /// Seconds a device lease lasts unrenewed.
    pub lease: u64,
    /// Seconds a stopping server waits for running jobs.
    pub drain_timeout: u64,
    /// Connections being opened at a time.
    pub connects_at_once: usize,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            node: String::new(),
            scheduler: "least_load".into(),
            pinned_per_node: 10_000,
            fifo_concurrency: 64,
            sessions_per_device: 1,
            pinned_idle_timeout: 600,
            keepalive: 60,
            lease: 10,
            drain_timeout: 30,
            connects_at_once: 128,
        }
    }
}

/// The embedded store, and bounds of queues.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Folder of the store, its keys and the host-key file.
    pub path: PathBuf,
    /// Jobs waiting at a time, over all queues.
    pub max_queued: usize,
    /// Jobs waiting at a time for one device.
    pub max_queued_per_device: usize,
    /// Bytes of results kept in memory for fast reads; older ones are read from disk.
    pub result_cache: usize,
    /// Events kept for watchers that resume.
    pub events: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "netpulse-data".into(),
            max_queued: 200_000,
            max_queued_per_device: 10_000,
            result_cache: 64 * 1024 * 1024,
            events: 65_536,
        }
    }
}

/// Device sessions.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// `accept-new`, `strict` or `off`.
    pub host_keys: String,
    /// The host-key store; `known_hosts` in the store's folder when absent.
    pub known_hosts: Option<PathBuf>,
    /// Bytes of output that one command may give.
    pub max_output: usize,
    /// Seconds for TCP and SSH handshake, unless the request says (`conn_timeout`).
    pub connect_timeout: u64,
    /// Folders below which clients may name private keys (`key_file`); empty means none.
    pub key_dirs: Vec<PathBuf>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            host_keys: "accept-new".into(),
            known_hosts: None,
            max_output: 100 * 1024 * 1024,
            connect_timeout: 10,
            key_dirs: Vec::new(),
        }
    }
}

/// Platforms.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Platform {
    /// Folder whose YAML files add platforms or replace built-in ones.
    pub dir: Option<PathBuf>,
}

/// Templates.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Template {
    /// Folders below which `file://` templates may lie; empty means none.
    pub dirs: Vec<PathBuf>,
    /// Hosts that `http(s)://` templates may come from; empty means none.
    pub remote_hosts: Vec<String>,
    /// Folder of ntc-templates.
    pub ntc_dir: Option<PathBuf>,
    /// Compiled templates kept.
    pub cache: usize,
}

impl Default for Template {
    fn default() -> Self {
        Self { dirs: Vec::new(), remote_hosts: Vec::new(), ntc_dir: None, cache: 1024 }
    }
}

/// Files.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Folder of uploads and downloads.
    pub staging: PathBuf,
    /// Hours they are kept.
    pub retention_hours: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { staging: "netpulse-data/staging".into(), retention_hours: 24 }
    }
}

/// What is kept of modifications.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Days the outcome of a modification still answers GET /jobs/{id}.
    pub retention_days: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { retention_days: 30 }
    }
}

/// Logs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `DEBUG`, `INFO`, `WARNING` or `ERROR`, or a filter (`info,netpulse_session=debug`).
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "INFO".into(), format: "text".into() }
    }
}
