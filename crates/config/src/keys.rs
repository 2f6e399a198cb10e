//! The listing: every section and key with its type, default, bounds and documentation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::table::{Key, Rule, Typed, section, sections};

/// Where jobs wait.
pub const ENGINES: &[&str] = &["embedded", "redis"];
/// The queue strategies.
pub const STRATEGIES: &[&str] = &["fifo", "pinned"];
/// What to do about a device's host key.
pub const HOST_KEY_POLICIES: &[&str] = &["accept-new", "strict", "off"];
/// The shapes of a webhook's message.
pub const WEBHOOK_FORMATS: &[&str] = &["standard", "legacy"];
/// The credential providers that need no plugin.
pub const CREDENTIAL_PROVIDERS: &[&str] = &["vault_kv", "env", "file"];
/// How log lines look.
pub const LOG_FORMATS: &[&str] = &["text", "json"];

const MIB: u64 = 1024 * 1024;
const DAY: u64 = 86_400;

sections! {
    /// The REST API.
    server: Server {
        /// Address to listen on.
        host: String = "127.0.0.1".into(), Rule::NotEmpty;
        /// Port to listen on; 0 takes a free one.
        port: u16 = 9000, Rule::Range(0, 65_535);
        /// How clients reach this server, for links in answers; by default the address it listens on.
        external_url: Option<String> = None, Rule::Url;
        /// The key that clients send. Required: any text, best 16 characters or more.
        api_key: String = String::new(), Rule::Required, Rule::Secret;
        /// Name of the header, query parameter and cookie that carries the key.
        api_key_name: String = "X-API-KEY".into(), Rule::HeaderName;
        /// Certificate chain, a PEM file. With `tls_key` the server speaks HTTPS.
        tls_cert: Option<PathBuf> = None, Rule::ExistingFile;
        /// Private key of the certificate, a PEM file.
        tls_key: Option<PathBuf> = None, Rule::ExistingFile;
        /// Answer shared paths in the early API's envelope.
        legacy_envelope: bool = false;
        /// Origins that browsers may call from; empty means none.
        cors_origins: Vec<String> = Vec::new();
        /// Seconds a POST waits for its job's end when the client does not say.
        exec_wait: u64 = 0, Rule::Range(0, DAY);
        /// The longest `wait` that is honoured, seconds.
        max_wait: u64 = 300, Rule::Range(0, DAY);
        /// The largest request body, bytes.
        max_body: usize = 32 * 1024 * 1024, Rule::Range(1024, 16 * 1024 * MIB);
        /// Connections at a time; more wait in the kernel's queue.
        max_connections: usize = 4096, Rule::Range(1, 1_000_000);
        /// Devices in one bulk request.
        max_bulk: usize = 50_000, Rule::Range(1, 10_000_000);
    }

    /// Defaults of jobs, seconds.
    job: JobDefaults {
        /// Seconds a canceled job is remembered.
        ttl: u64 = 1800, Rule::Range(1, DAY);
        /// Seconds a job may run.
        timeout: u64 = 300, Rule::Range(1, DAY);
        /// Seconds a result is kept.
        result_ttl: u64 = 300, Rule::Range(1, 7 * DAY);
        /// Driver name to `fifo` or `pinned`, for requests that do not say (`{paramiko: pinned}`).
        default_strategy: BTreeMap<String, String> = BTreeMap::new(), Rule::ValuesOneOf(STRATEGIES);
    }

    /// Workers.
    worker: Worker {
        /// This node's name; the host name when empty.
        node: String = String::new();
        /// How a node is chosen for a device: `greedy`, `least_load`, `least_load_random`, `load_weighted_random`, or a plugin's name.
        scheduler: String = "least_load".into(), Rule::NotEmpty;
        /// Devices that one node may own at a time; idle ones make room.
        pinned_per_node: usize = 10_000, Rule::Range(1, 1_000_000);
        /// Jobs of `FifoQ` that run at a time.
        fifo_concurrency: usize = 64, Rule::Range(1, 100_000);
        /// FIFO jobs at a time on one device.
        sessions_per_device: usize = 1, Rule::Range(1, 1024);
        /// Seconds an idle session is kept, so that VTY lines are not held for ever.
        pinned_idle_timeout: u64 = 600, Rule::Range(0, 30 * DAY);
        /// Seconds between signs of life on an idle session, unless the request says (`keepalive`).
        keepalive: u64 = 60, Rule::Range(0, DAY);
        /// Seconds a device lease lasts unrenewed.
        lease: u64 = 10, Rule::Range(1, 3600);
        /// Seconds a stopping server waits for running jobs.
        drain_timeout: u64 = 30, Rule::Range(0, DAY);
        /// Failures in a row after which a device that does not answer, or refuses a login, is left alone for a while; 0: never.
        breaker_failures: usize = 3, Rule::Range(0, 10_000);
        /// Seconds it is left alone: its jobs fail at once, or are held when they may be retried.
        breaker_pause: u64 = 30, Rule::Range(1, DAY);
        /// Connections being opened at a time.
        connects_at_once: usize = 128, Rule::Range(1, 100_000);
        /// Folder of `node.lock` and `fifo.lock`, so that only one of each runs here; the store's folder when absent.
        work_dir: Option<PathBuf> = None;
    }

    /// Where jobs wait, and bounds of queues.
    store: Store {
        /// `embedded` in this process, for one machine; `redis` for many.
        engine: String = "embedded".into(), Rule::OneOf(ENGINES);
        /// What requests are sealed with in Redis: the same text for every process; derived from `server.api_key` when absent.
        seal_key: Option<String> = None, Rule::Secret;
        /// Folder of the embedded store, its keys and the host-key file.
        path: PathBuf = "netpulse-data".into(), Rule::NotEmpty;
        /// Jobs waiting at a time, over all queues.
        max_queued: usize = 200_000, Rule::Range(1, 100_000_000);
        /// Jobs waiting at a time for one device.
        max_queued_per_device: usize = 10_000, Rule::Range(1, 100_000_000);
        /// Webhooks not delivered yet, with the jobs that will end in one; past it such jobs are refused.
        max_outbox: usize = 100_000, Rule::Range(1, 100_000_000);
        /// Bytes of results kept in memory for fast reads; older ones are read from disk.
        result_cache: usize = 64 * 1024 * 1024, Rule::Range(0, 1024 * 1024 * MIB);
        /// Events kept for watchers that resume.
        events: usize = 65_536, Rule::Range(0, 100_000_000);
    }

    /// The Redis or Valkey server that all machines share (`store.engine: redis`).
    redis: Redis {
        /// Its name or address.
        host: String = "localhost".into(), Rule::NotEmpty;
        /// Port of the server.
        port: u16 = 6379, Rule::Range(1, 65_535);
        /// The number of its database; Redis Cluster has only 0.
        db: u16 = 0;
        /// User, where the server has more than the default one.
        username: Option<String> = None;
        /// Password of that user.
        password: Option<String> = None, Rule::Secret;
        /// Seconds to connect and to answer a command.
        timeout: u64 = 30, Rule::Range(1, 3600);
        /// Seconds between signs of life on an idle connection.
        keepalive: u64 = 30, Rule::Range(1, 3600);
        /// Replicas that must have a job before it counts as accepted.
        min_replicas: usize = 0, Rule::Range(0, 16);
    } with {
        /// TLS to Redis.
        tls: RedisTls {
            /// Whether to speak TLS.
            enabled: bool = false;
            /// Certificates that may have signed the server's, a PEM file; the system's when absent.
            ca: Option<PathBuf> = None;
            /// Certificate that this side proves itself with, a PEM file.
            cert: Option<PathBuf> = None;
            /// Private key of that certificate, a PEM file.
            key: Option<PathBuf> = None;
        }
        /// Redis behind Sentinel: who is the master is asked there.
        sentinel: RedisSentinel {
            /// Ask Sentinel; `redis.host` and `redis.port` are not used then.
            enabled: bool = false;
            /// Name or address of the Sentinels, separated by commas; each may carry its `:port`.
            host: String = "redis-sentinel".into(), Rule::NotEmpty;
            /// Port of those that carry none.
            port: u16 = 26_379, Rule::Range(1, 65_535);
            /// What Sentinel calls the master.
            master_name: String = "mymaster".into(), Rule::NotEmpty;
            /// Password of the Sentinels themselves.
            password: Option<String> = None, Rule::Secret;
        }
        /// Names of keys in Redis.
        key: RedisKey {
            /// What every other key begins with: installations that share one Redis need names of their own.
            prefix: String = "np".into(), Rule::NotEmpty;
            /// Hash of device to node.
            host_to_node_map: String = "netpulse:host_to_node_map".into(), Rule::NotEmpty;
            /// Hash of node to its capacity.
            node_info_map: String = "netpulse:node_info_map".into(), Rule::NotEmpty;
        }
    }

    /// References to secrets (`credential` in requests), resolved where the connection is made.
    credential: Credential {
        /// Whether requests may carry references.
        enabled: bool = false;
        /// The provider of references that name none: `vault_kv`, `env`, `file`, or a plugin's name.
        name: Option<String> = None;
        /// Further providers that references may name.
        providers: Vec<String> = Vec::new();
        /// Vault: its address, `https://vault.example.net:8200`.
        addr: Option<String> = None, Rule::Url;
        /// Vault: the namespace (Enterprise).
        namespace: Option<String> = None;
        /// Vault: the KV version 2 mount of references that name none.
        mount: String = "kv".into(), Rule::NotEmpty;
        /// Vault: paths that references may name (`kv/network`: it and all below; `kv/net*`: whatever begins so); empty means all that its policy gives us.
        allowed_paths: Vec<String> = Vec::new();
        /// Seconds a secret is kept in memory; 0 asks each time.
        cache_ttl: u64 = 30, Rule::Range(0, 3600);
        /// Vault: `true` checks its certificate, `false` does not, a path names the CA's PEM file.
        verify: String = "true".into(), Rule::NotEmpty;
        /// Vault: seconds for one answer.
        timeout: u64 = 5, Rule::Range(1, 60);
        /// Vault: a token.
        token: Option<String> = None, Rule::Secret;
        /// Vault: the role of an AppRole login, used when there is no token or it is not accepted.
        role_id: Option<String> = None;
        /// Vault: the secret id of an AppRole login.
        secret_id: Option<String> = None, Rule::Secret;
        /// Vault: where its AppRole method is mounted.
        approle_mount: String = "approle".into(), Rule::NotEmpty;
        /// File provider: the folder of the secrets' files.
        dir: Option<PathBuf> = None, Rule::ExistingFolder;
        /// Whether `/credential/vault/read` may show passwords to whoever has the API key.
        allow_show_password: bool = false;
    }

    /// Device sessions.
    session: Session {
        /// What to do about a device's host key: `accept-new` learns it once, `strict` knows it before, `off` asks nothing.
        host_keys: String = "accept-new".into(), Rule::OneOf(HOST_KEY_POLICIES);
        /// The host-key store; `known_hosts` in the store's folder when absent.
        known_hosts: Option<PathBuf> = None;
        /// Bytes of output that one command may give.
        max_output: usize = 100 * 1024 * 1024, Rule::Range(1024, 16 * 1024 * MIB);
        /// Seconds for TCP and SSH handshake, unless the request says (`conn_timeout`).
        connect_timeout: u64 = 10, Rule::Range(1, 3600);
        /// Folders below which clients may name private keys (`key_file`); empty means none.
        key_dirs: Vec<PathBuf> = Vec::new(), Rule::ExistingFolder;
    }

    /// Platforms.
    platform: Platform {
        /// Folder whose YAML files add platforms or replace built-in ones.
        dir: Option<PathBuf> = None, Rule::ExistingFolder;
    }

    /// Plugins that are programs of their own. Folders are searched with all below them.
    plugin: Plugin {
        /// Whether there are any; `false` runs no program and knows what is built in alone.
        external: bool = true;
        /// Folder of plugins of every kind; `~/.config/netpulse/plugins` when absent.
        directory: Option<PathBuf> = None;
        /// Folder of drivers.
        driver: Option<PathBuf> = None;
        /// Folder of renderers and parsers.
        template: Option<PathBuf> = None;
        /// Folder of webhooks.
        webhook: Option<PathBuf> = None;
        /// Folder of schedulers.
        scheduler: Option<PathBuf> = None;
        /// Folder of credential providers.
        credential: Option<PathBuf> = None;
        /// Folder of pipeline providers.
        provider: Option<PathBuf> = None;
        /// Folder of pipeline inputs.
        input: Option<PathBuf> = None;
        /// Folder of checks.
        check: Option<PathBuf> = None;
        /// Folder of assistants.
        assistant: Option<PathBuf> = None;
        /// Folder of outputs.
        output: Option<PathBuf> = None;
        /// Folder of platform files, beside `platform.dir`.
        platform: Option<PathBuf> = None;
        /// Built-in plugins that an external one of the same name replaces (`driver/netmiko`).
        r#override: Vec<String> = Vec::new();
        /// `kind/name` to the file name that wins when several plugins have that name.
        prefer: BTreeMap<String, String> = BTreeMap::new();
        /// A plugin's own settings: its file's name or id to a JSON or YAML text, or `file:` and the path of one.
        config: BTreeMap<String, String> = BTreeMap::new(), Rule::Secret;
        /// Further environment variables that plugins see.
        environment: Vec<String> = Vec::new();
        /// Seconds that a plugin lives without work; 0 for ever.
        idle_timeout: u64 = 3600, Rule::Range(0, 30 * DAY);
        /// Seconds for a plugin to come up.
        start_timeout: u64 = 30, Rule::Range(1, 3600);
        /// Bytes that one answer of a plugin may have.
        max_answer: usize = 64 * 1024 * 1024, Rule::Range(1024, 16 * 1024 * MIB);
        /// Bytes of memory of its own that a plugin's process may have; 0 for any.
        max_memory: u64 = 2 * 1024 * 1024 * 1024, Rule::Range(0, 1024 * 1024 * MIB);
        /// Folder for the plugins' sockets; the user's runtime folder, or the one for temporary files, when absent.
        runtime_dir: Option<PathBuf> = None, Rule::ExistingFolder;
        /// Public keys (PEM files, ed25519) whose signatures on plugins count; empty means none.
        keys: Vec<PathBuf> = Vec::new(), Rule::ExistingFile;
        /// Whether a plugin is installed only when one of `keys` signed it.
        require_signature: bool = false;
    }

    /// Templates.
    template: Template {
        /// Folders below which `file://` templates may lie; empty means none.
        dirs: Vec<PathBuf> = Vec::new(), Rule::ExistingFolder;
        /// Hosts that `http(s)://` templates may come from; empty means none.
        remote_hosts: Vec<String> = Vec::new();
        /// Folder of ntc-templates.
        ntc_dir: Option<PathBuf> = None, Rule::ExistingFolder;
        /// Folder of ttp-templates.
        ttp_dir: Option<PathBuf> = None, Rule::ExistingFolder;
        /// Compiled templates kept.
        cache: usize = 1024, Rule::Range(0, 1_000_000);
    }

    /// Files.
    storage: Storage {
        /// Folder of uploads and downloads.
        staging: PathBuf = "netpulse-data/staging".into(), Rule::NotEmpty;
        /// Hours they are kept.
        retention_hours: u64 = 24, Rule::Range(1, 24 * 3650);
    }

    /// Webhooks.
    webhook: Webhook {
        /// Key of the signature (`X-NetPulse-Signature`) for requests that bring none.
        secret: Option<String> = None, Rule::Secret;
        /// Networks, addresses and host names that may be called though they are not public. Loopback and link-local addresses are not among them unless listed.
        allow_private: Vec<String> = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"].map(str::to_owned).into(), Rule::Networks;
        /// Certificates to trust besides the system's, a PEM file.
        ca: Option<PathBuf> = None, Rule::ExistingFile;
        /// Shape of the message for requests that do not say: `standard`, or the early API's `legacy`.
        format: String = "standard".into(), Rule::OneOf(WEBHOOK_FORMATS);
        /// Attempts in flight at a time.
        concurrency: usize = 128, Rule::Range(1, 10_000);
        /// Attempts in flight at a time to one receiver.
        per_receiver: usize = 8, Rule::Range(1, 10_000);
    }

    /// What is kept of modifications.
    audit: Audit {
        /// Days the outcome of a modification still answers GET /jobs/{id}.
        retention_days: u64 = 30, Rule::Range(0, 3650);
    }

    /// What `netpulse worker` answers to monitoring: GET /metrics, /health/live, /health/ready. The API has these itself.
    metrics: Metrics {
        /// Address to listen on.
        host: String = "127.0.0.1".into(), Rule::NotEmpty;
        /// Port to listen on, 0 for a free one; without one nothing listens.
        port: Option<u16> = None, Rule::Range(0, 65_535);
    }

    /// Logs.
    log: Log {
        /// `DEBUG`, `INFO`, `WARNING` or `ERROR`, or a filter (`info,netpulse_session=debug`).
        level: String = "INFO".into(), Rule::LogFilter;
        /// `text` or `json`.
        format: String = "text".into(), Rule::OneOf(LOG_FORMATS);
    }
}
