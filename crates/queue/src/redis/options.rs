//! How an engine reaches Redis, and the bounds of its store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Placer;
use crate::clock::Clock;
use crate::events::RingSize;
use crate::seal::SealKey;

/// Encryption of the connection.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// The authority that signed the server's certificate (PEM); the system's when none.
    pub ca: Option<PathBuf>,
    /// This side's certificate (PEM), when the server asks for one.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
}

/// Who knows which server is the master.
#[derive(Debug, Clone)]
pub struct RedisSentinel {
    /// The sentinels, asked in this order.
    pub hosts: Vec<(String, u16)>,
    /// The name that they watch the master by.
    pub master_name: String,
    /// Their password.
    pub password: Option<String>,
}

/// How an engine reaches its store, and the store's bounds and lifetimes.
#[derive(Clone)]
pub struct RedisOptions {
    /// The server's name or address; unused with Sentinel.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database number.
    pub db: i64,
    /// The user (ACL); the default one when none.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// Encryption, off when none.
    pub tls: Option<RedisTls>,
    /// Sentinel, off when none.
    pub sentinel: Option<RedisSentinel>,
    /// The longest wait for a connection or one answer.
    pub timeout: Duration,
    /// How often an idle TCP connection is probed.
    pub keepalive: Duration,
    /// What every key begins with: stores that share a server need names of their own. A hash tag
    /// follows it, so that all keys of a store lie in one slot of a Redis Cluster.
    pub prefix: String,
    /// The hash of device to node.
    pub host_to_node_map: String,
    /// The hash of node to what it has room for.
    pub node_info_map: String,
    /// The sealing keys, the same in every process: the first seals, all open.
    pub keys: Vec<SealKey>,
    /// The identity of this process's place: host, work folder and role. A new process of the same
    /// instance takes over the names of its nodes at once, so no two living processes may share it.
    pub instance: String,
    /// How long a device lease lasts unrenewed.
    pub lease: Duration,
    /// Jobs waiting at a time, over all queues.
    pub max_queued: usize,
    /// Jobs waiting at a time for one device.
    pub max_queued_per_device: usize,
    /// Messages not delivered yet, with the jobs that will end in one.
    pub max_outbox: usize,
    /// How many events are kept for watchers, and how many bytes of them, in the store and in the
    /// memory of each process that watches.
    pub events: RingSize,
    /// How long the outcome of a modification is kept.
    pub audit_retention: Duration,
    /// How long a canceled job is kept.
    pub canceled_ttl: Duration,
    /// The longest wait of a call before it answers that the store is unavailable.
    pub deadline: Duration,
    /// Replicas that have to confirm an accepted job before it counts as accepted.
    pub min_replicas: usize,
    /// Chooses nodes for devices; without one every node hears of every device.
    pub placer: Option<Arc<dyn Placer>>,
    /// The clock that deadlines of this process are measured by; tests push it forward. What is
    /// stored follows the server's clock.
    pub clock: Clock,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 6379,
            db: 0,
            username: None,
            password: None,
            tls: None,
            sentinel: None,
            timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(30),
            prefix: "np".into(),
            host_to_node_map: "netpulse:host_to_node_map".into(),
            node_info_map: "netpulse:node_info_map".into(),
            keys: Vec::new(),
            instance: String::new(),
            lease: Duration::from_secs(10),
            max_queued: 100_000,
            max_queued_per_device: 1_000,
            max_outbox: 100_000,
            events: RingSize { events: 50_000, bytes: 64 << 20 },
            audit_retention: Duration::from_secs(30 * 24 * 3600),
            canceled_ttl: Duration::from_secs(1800),
            deadline: Duration::from_secs(5),
            min_replicas: 0,
            placer: None,
            clock: Clock::default(),
        }
    }
}

impl RedisOptions {
    /// How often a process looks at the store's clock and deadlines when nothing else makes it ask.
    pub(super) fn look_every(&self) -> Duration {
        (self.lease / 3).clamp(Duration::from_millis(100), Duration::from_secs(10))
    }
}

/// Where to look when Redis cannot be reached.
fn advice(why: &str) -> &'static str {
    let why = why.to_ascii_lowercase();
    if ["authentication", "noauth", "wrongpass", "noperm"].iter().any(|word| why.contains(word)) {
        "it is there and refuses us: check `redis.username` and `redis.password`, and what that user may do"
    } else {
        "check `redis.host`, `redis.port`, `redis.tls` and that the server runs"
    }
}

/// Why a store could not be opened. Each says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// Nobody answers, or answers in time, or lets us in.
    #[error("Redis at {address} cannot be reached: {why}; {}", advice(why))]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server is there, but not fit to be a store.
    #[error("Redis at {address} cannot be the store: {what} is {found}; {wanted}")]
    Unfit {
        /// Where.
        address: String,
        /// What of it.
        what: String,
        /// What it is.
        found: String,
        /// What it has to be, and how to get there.
        wanted: String,
    },
    /// A file named in the options cannot be read.
    #[error("`{path}` (redis.tls) cannot be read: {why}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
}
