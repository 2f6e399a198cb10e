//! The connection that commands travel on: multiplexed, made anew when it breaks.
//!
//! One task owns it. Callers report a broken connection and wait, within their deadline, for the
//! next one; they never see a half-dead one twice.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, Value,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::options::{RedisOpenError, RedisOptions};
use super::scripts::Scripts;

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// It was not sent, or it is not known whether it was done.
    Lost(String),
    /// The server said no and did nothing; asking again soon may help.
    Later(String),
    /// The server said no and did nothing; it will not say otherwise soon.
    Refused(String),
    /// The server calls the request itself wrong.
    Wrong(String),
    /// The engine has been closed.
    Closed,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(why) | Self::Later(why) | Self::Refused(why) | Self::Wrong(why) => f.write_str(why),
            Self::Closed => f.write_str("closed"),
        }
    }
}

#[derive(Clone)]
enum State {
    Up { connection: MultiplexedConnection, number: u64 },
    Down(String),
    Closed,
}

/// How to reach the server, read once.
pub(super) struct Target {
    options: RedisOptions,
    certificates: Option<TlsCertificates>,
}

impl Target {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, RedisOpenError> {
        let read = |path: &std::path::PathBuf| {
            std::fs::read(path)
                .map_err(|error| RedisOpenError::File { path: path.clone(), why: error.to_string() })
        };
        let certificates = match &options.tls {
            None => None,
            Some(tls) => {
                let client_tls = match (&tls.cert, &tls.key) {
                    (Some(cert), Some(key)) => {
                        Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
                    }
                    (None, None) => None,
                    _ => {
                        return Err(RedisOpenError::Options(
                            "`redis.tls.cert` and `redis.tls.key` belong together: give both or neither"
                                .into(),
                        ));
                    }
                };
                Some(TlsCertificates { client_tls, root_cert: tls.ca.as_ref().map(read).transpose()? })
            }
        };
        Ok(Self { options: options.clone(), certificates })
    }

    /// Where the store is, for messages.
    pub(super) fn address(&self) -> String {
        match &self.options.sentinel {
            Some(sentinel) => {
                let hosts: Vec<String> =
                    sentinel.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
                format!("the master `{}` of the sentinels {}", sentinel.master_name, hosts.join(", "))
            }
            None => format!("{}:{}", self.options.host, self.options.port),
        }
    }

    fn client(&self, host: &str, port: u16, settings: RedisConnectionInfo) -> Result<Client, RedisError> {
        let host = host.to_owned();
        let address = match &self.certificates {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let keepalive = TcpKeepalive::new()
            .with_time(self.options.keepalive.max(Duration::from_secs(1)))
            .with_interval((self.options.keepalive / 3).max(Duration::from_secs(1)));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        let info = address.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(settings);
        match &self.certificates {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }

    fn settings(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_db(self.options.db)
            .set_lib_name("netpulse", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.options.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.options.password {
            settings = settings.set_password(password);
        }
        settings
    }

    fn config(&self) -> AsyncConnectionConfig {
        let timeout = self.options.timeout.min(self.options.deadline);
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(self.options.timeout))
    }

    /// Where the master is now.
    async fn master(&self) -> Result<(String, u16), String> {
        let Some(sentinel) = &self.options.sentinel else {
            return Ok((self.options.host.clone(), self.options.port));
        };
        let mut last = "no sentinel is named".to_owned();
        for (host, port) in &sentinel.hosts {
            let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2);
            if let Some(password) = &sentinel.password {
                settings = settings.set_password(password);
            }
            let found = async {
                let client = self.client(host, *port, settings)?;
                let mut connection =
                    client.get_multiplexed_async_connection_with_config(&self.config()).await?;
                redis::cmd("SENTINEL")
                    .arg("get-master-addr-by-name")
                    .arg(&sentinel.master_name)
                    .query_async::<Option<(String, u16)>>(&mut connection)
                    .await
            };
            match tokio::time::timeout(self.options.deadline, found).await {
                Ok(Ok(Some(address))) => return Ok(address),
                Ok(Ok(None)) => {
                    last = format!("the sentinel {host}:{port} knows no master `{}`", sentinel.master_name)
                }
                Ok(Err(error)) => last = format!("the sentinel {host}:{port}: {error}"),
                Err(_) => last = format!("the sentinel {host}:{port} does not answer"),
            }
        }
        Err(last)
    }

    /// The server that holds the store's keys: the master, in a Redis Cluster the one whose slot
    /// they are in.
    pub(super) async fn find(&self) -> Result<Client, String> {
        let (mut host, mut port) = self.master().await?;
        for _ in 0..4 {
            let client = self.client(&host, port, self.settings()).map_err(|error| error.to_string())?;
            let asked = async {
                let mut connection =
                    client.get_multiplexed_async_connection_with_config(&self.config()).await?;
                let key = format!("{}health", self.options.prefix);
                redis::cmd("GET").arg(key).query_async::<Value>(&mut connection).await?;
                let role: Value = redis::cmd("ROLE").query_async(&mut connection).await.unwrap_or_default();
                Ok::<_, RedisError>(role)
            };
            match tokio::time::timeout(self.options.deadline, asked).await {
                Err(_) => return Err(format!("{host}:{port} does not answer")),
                Ok(Ok(role)) => {
                    let replica = matches!(&role, Value::Array(parts)
                        if matches!(parts.first(), Some(Value::BulkString(word)) if word == b"slave"));
                    if replica {
                        return Err(format!("{host}:{port} is a replica, which cannot be written"));
                    }
                    return Ok(client);
                }
                Ok(Err(error)) => match error.redirect_node() {
                    Some((address, _)) => {
                        let (to, at) = address.rsplit_once(':').ok_or("an odd redirection")?;
                        port = at.parse().map_err(|_| "an odd redirection".to_owned())?;
                        // In a redirection an empty host means the one that was asked.
                        if !to.is_empty() {
                            host = to.to_owned();
                        }
                    }
                    None => return Err(error.to_string()),
                },
            }
        }
        Err("redirected too often".into())
    }

    /// Whether the server is part of a Redis Cluster.
    pub(super) async fn is_cluster(&self) -> Result<bool, String> {
        let client = self.find().await?;
        let asked = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&self.config()).await?;
            redis::cmd("INFO").arg("cluster").query_async::<String>(&mut connection).await
        };
        match tokio::time::timeout(self.options.deadline, asked).await {
            Ok(Ok(info)) => Ok(info.contains("cluster_enabled:1")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the server does not answer".into()),
        }
    }

    /// A connection for blocking commands: its answers may take as long as they like.
    pub(super) async fn blocking(&self) -> Result<MultiplexedConnection, String> {
        let client = self.find().await?;
        let config = self.config().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| error.to_string())
    }
}

/// The command connection.
pub(super) struct Link {
    pub(super) target: Target,
    state: watch::Sender<State>,
    broken: Notify,
    scripts: Arc<Scripts>,
}

impl Link {
    /// Connects once; later breaks are mended by [`Link::keep`].
    pub(super) async fn open(target: Target, scripts: Arc<Scripts>) -> Result<Self, RedisOpenError> {
        let link = Self {
            target,
            state: watch::Sender::new(State::Down(String::new())),
            broken: Notify::new(),
            scripts,
        };
        match link.connect().await {
            Ok(connection) => {
                link.state.send_replace(State::Up { connection, number: 1 });
                Ok(link)
            }
            Err(why) => Err(RedisOpenError::Unreachable { address: link.target.address(), why }),
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let client = self.target.find().await?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&self.target.config())
            .await
            .map_err(|error| error.to_string())?;
        let load = self.scripts.load();
        let loaded = load.query_async::<Vec<String>>(&mut connection);
        match tokio::time::timeout(self.target.options.deadline, loaded).await {
            Ok(Ok(_)) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the server does not answer".into()),
        }
    }

    /// Makes a new connection whenever the old one breaks.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut number = 1;
        loop {
            self.broken.notified().await;
            if !matches!(*self.state.borrow(), State::Down(_)) {
                continue;
            }
            let mut pause = Duration::from_millis(20);
            loop {
                if matches!(*self.state.borrow(), State::Closed) {
                    return;
                }
                match self.connect().await {
                    Ok(connection) => {
                        number += 1;
                        self.state.send_if_modified(|state| {
                            let open = !matches!(state, State::Closed);
                            if open {
                                *state = State::Up { connection, number };
                            }
                            open
                        });
                        tracing::info!(address = self.target.address(), "connected to Redis again");
                        break;
                    }
                    Err(why) => {
                        self.state.send_if_modified(|state| {
                            let down = matches!(state, State::Down(_));
                            if down {
                                *state = State::Down(why);
                            }
                            down
                        });
                        // Nothing tells when a server is back: asking is all there is.
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(1));
                    }
                }
            }
        }
    }

    fn report(&self, number: u64, why: &str) {
        let changed = self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up { number: up, .. } if *up == number);
            if current {
                *state = State::Down(why.to_owned());
            }
            current
        });
        if changed {
            tracing::warn!(address = self.target.address(), why, "the connection to Redis is lost");
            self.broken.notify_one();
        }
    }

    /// Ends it for good.
    pub(super) fn close(&self) {
        self.state.send_replace(State::Closed);
        self.broken.notify_one();
    }

    /// The number of the connection, which grows with each; 0 while there is none.
    pub(super) fn number(&self) -> u64 {
        match &*self.state.borrow() {
            State::Up { number, .. } => *number,
            _ => 0,
        }
    }

    /// Waits for a connection with another number than `seen`; false once it is closed.
    pub(super) async fn reconnected(&self, seen: u64) -> bool {
        let mut states = self.state.subscribe();
        let waited = states
            .wait_for(|state| match state {
                State::Up { number, .. } => *number != seen,
                State::Down(_) => false,
                State::Closed => true,
            })
            .await;
        matches!(waited.as_deref(), Ok(State::Up { .. }))
    }

    async fn connection(&self, until: Instant) -> Result<(MultiplexedConnection, u64), Trouble> {
        let mut states = self.state.subscribe();
        let waited =
            tokio::time::timeout_at(until, states.wait_for(|state| !matches!(state, State::Down(_))));
        let found = match waited.await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => State::Closed,
            Err(_) => self.state.borrow().clone(),
        };
        match found {
            State::Up { connection, number } => Ok((connection, number)),
            State::Down(why) => Err(Trouble::Lost(why)),
            State::Closed => Err(Trouble::Closed),
        }
    }

    /// Sends the commands together and returns an answer for each, server errors included.
    pub(super) async fn send(&self, pipe: &Pipeline, until: Instant) -> Result<Vec<Value>, Trouble> {
        let (mut connection, number) = self.connection(until).await?;
        let mut fresh = false;
        loop {
            let asked = async {
                tokio::select! {
                    biased;
                    answers = connection.send_packed_commands(pipe, 0, pipe.len()) => answers,
                    // Others have found the connection dead and made a new one.
                    _ = self.reconnected(number) => Err(RedisError::from(std::io::Error::from(
                        std::io::ErrorKind::ConnectionReset,
                    ))),
                }
            };
            let answers = match tokio::time::timeout_at(until, asked).await {
                Ok(Ok(answers)) => answers,
                Ok(Err(error)) => {
                    self.report(number, &error.to_string());
                    return Err(Trouble::Lost(error.to_string()));
                }
                Err(_) => {
                    // What comes later on this connection answers somebody who is gone.
                    self.report(number, "no answer in time");
                    return Err(Trouble::Lost("Redis did not answer in time".into()));
                }
            };
            let mut unloaded = false;
            for answer in &answers {
                if let Value::ServerError(error) = answer {
                    match error.code() {
                        "NOSCRIPT" => unloaded = true,
                        "READONLY" | "MOVED" | "ASK" | "UNKILLABLE" => self.report(number, error.code()),
                        _ => {}
                    }
                }
            }
            if unloaded && !fresh {
                fresh = true;
                let load = self.scripts.load();
                if let Err(error) = load.query_async::<Vec<String>>(&mut connection).await {
                    self.report(number, &error.to_string());
                    return Err(Trouble::Lost(error.to_string()));
                }
                continue;
            }
            return Ok(answers);
        }
    }

    /// One command.
    pub(super) async fn one(&self, command: Cmd, until: Instant) -> Result<Value, Trouble> {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.add_command(command);
        let answer = self.send(&pipe, until).await?.into_iter().next().unwrap_or_default();
        sound(answer)
    }
}

/// The error of a script that was reached too late, by the server's clock; the time follows.
pub(super) const LATE: &str = "LATE";

/// What a server's error means for who asked.
pub(super) fn sound(answer: Value) -> Result<Value, Trouble> {
    let Value::ServerError(error) = answer else {
        return Ok(answer);
    };
    let text = match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    };
    Err(match error.code() {
        "READONLY" | "MOVED" | "ASK" | "TRYAGAIN" | "LOADING" | "BUSY" | "MASTERDOWN" | "NOSCRIPT" | LATE => {
            Trouble::Later(text)
        }
        "ERR" if !text.contains("max number of clients") => Trouble::Wrong(text),
        _ => Trouble::Refused(text),
    })
}
