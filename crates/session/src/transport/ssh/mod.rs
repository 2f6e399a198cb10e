//! SSH: one connection to a device, directly or through a jump host, and shells and commands on it.
//!
//! Every connection has its own TCP stream, and a jumped one its own connection to the jump host:
//! a device that stalls stops nobody else. Whatever a channel brings is drained by a task of its
//! own, because russh delivers nothing to any channel while one of them is full.

mod algorithms;
mod auth;
mod exec;
mod pem;
mod shell;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::ErrorCode;
use parking_lot::Mutex;
use russh::client::{self, DisconnectReason, GexParams, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelOpenFailure, Disconnect};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::hostkeys::{HostKeyPolicy, HostKeys};
use super::tcp;
use crate::error::SessionError;
use wire::{CutOnDrop, Greeting, Wire};

pub use algorithms::{Disabled, LegacyDevices, Profile};
pub use exec::{Exec, ExecOptions, ExecOutput, Exit, NotStarted, Overflow};

/// Where to go and who to be there. Prints without secrets.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// What to prove it with.
    pub credentials: Credentials,
    /// The host to go through.
    pub jump: Option<Box<SshTarget>>,
}

/// Means to log in, tried in this order: keys, agent, password.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Private keys.
    pub keys: Vec<KeySource>,
    /// Whether to ask the agent at `SSH_AUTH_SOCK`.
    pub agent: bool,
    /// Password, for the `password` and `keyboard-interactive` methods.
    pub password: Option<SecretString>,
}

/// A private key.
#[derive(Debug, Clone)]
pub struct KeySource {
    /// Where it comes from.
    pub place: KeyPlace,
    /// What opens it.
    pub passphrase: Option<SecretString>,
}

/// Where a private key comes from.
#[derive(Debug, Clone)]
pub enum KeyPlace {
    /// The key itself, in any form that `ssh-keygen`, OpenSSL or PuTTY writes.
    Text(SecretString),
    /// A file on this machine.
    File(PathBuf),
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// Algorithms.
    pub profile: Profile,
    /// Algorithms left out.
    pub disabled: Disabled,
    /// Ask for compression.
    pub compress: bool,
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// For the device's first line, from the TCP connection on.
    pub banner_timeout: Duration,
    /// For the key exchange, from the first line on.
    pub handshake_timeout: Duration,
    /// For the login.
    pub auth_timeout: Duration,
    /// Silence after which a sign of life is asked for; three unanswered end the connection.
    pub keepalive: Option<Duration>,
    /// What to do with an unknown host key.
    pub host_keys: HostKeyPolicy,
    /// Bounds the handshakes at a time: they are work for the processor.
    pub handshakes: Option<Arc<Semaphore>>,
    /// Who needed old algorithms before.
    pub legacy_devices: LegacyDevices,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            profile: Profile::Auto,
            disabled: Disabled::default(),
            compress: false,
            connect_timeout: Duration::from_secs(10),
            banner_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(20),
            auth_timeout: Duration::from_secs(20),
            keepalive: Some(Duration::from_secs(60)),
            host_keys: HostKeyPolicy::AcceptNew,
            handshakes: None,
            legacy_devices: LegacyDevices::default(),
        }
    }
}

/// What the connection's own task and its users both know.
#[derive(Default)]
struct Peer {
    banner: Mutex<String>,
    end: Mutex<Option<String>>,
    ended: CancellationToken,
}

impl Peer {
    fn ended(&self, why: impl Into<String>) {
        self.end.lock().get_or_insert_with(|| why.into());
        self.ended.cancel();
    }
}

/// A connection, logged in. Cheap to clone; the TCP stream closes with the last clone.
#[derive(Clone)]
pub struct SshConnection {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for SshConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshConnection").field("place", &self.inner.place).finish_non_exhaustive()
    }
}

struct Inner {
    handle: Handle<Client>,
    peer: Arc<Peer>,
    place: String,
    remote_version: String,
    legacy: bool,
    cut: CutOnDrop,
    /// Carries us; its stream must outlive ours.
    jump: Option<SshConnection>,
    /// To the agreement on keys.
    connecting: Duration,
    /// From there to the end of the login.
    logging_in: Duration,
}

/// Connects and logs in.
///
/// # Errors
/// `ConnectFailed`, `HandshakeFailed`, `HostKeyChanged`, `HostKeyUnknown` or
/// `AuthenticationFailed`, each saying where and what to do.
pub async fn connect(
    target: &SshTarget,
    options: &SshOptions,
    host_keys: &HostKeys,
) -> Result<SshConnection, SessionError> {
    let place = tcp::place(&target.host, target.port);
    let keys = auth::read_keys(&target.credentials.keys, &place).await?;
    let began = Instant::now();
    let tries: &[bool] = match options.profile {
        Profile::Modern => &[false],
        Profile::Legacy => &[true],
        Profile::Auto if options.legacy_devices.has(&place) => &[true, false],
        Profile::Auto => &[false, true],
    };
    let mut refused = None;
    for &legacy in tries {
        match handshake(target, options, host_keys, legacy, &place).await {
            Ok(shaken) => {
                if options.profile == Profile::Auto {
                    if legacy {
                        options.legacy_devices.remember(&place);
                    } else {
                        options.legacy_devices.forget(&place);
                    }
                }
                return login(shaken, target, options, &keys, legacy, place, began.elapsed()).await;
            }
            Err(Failure::NoCommonAlgorithm(error)) => refused = Some(error),
            Err(Failure::Other(error)) => return Err(error),
        }
    }
    // Two tries at least one of which ran: the last refusal names the widest offer.
    Err(refused.unwrap_or_else(|| SessionError::new(ErrorCode::Internal, "no SSH profile to try")))
}

/// A connection that has agreed on keys and not yet logged in.
struct Shaken {
    handle: Handle<Client>,
    peer: Arc<Peer>,
    cut: CutOnDrop,
    remote_version: String,
    jump: Option<SshConnection>,
}

enum Failure {
    NoCommonAlgorithm(SessionError),
    Other(SessionError),
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Other(error)
    }
}

async fn handshake(
    target: &SshTarget,
    options: &SshOptions,
    host_keys: &HostKeys,
    legacy: bool,
    place: &str,
) -> Result<Shaken, Failure> {
    let config = Arc::new(config(target, options, host_keys, legacy)?);
    let (stream, jump): (Box<dyn wire::Stream>, _) = match &target.jump {
        None => {
            let stream = tcp::connect(&target.host, target.port, options.connect_timeout).await?;
            if options.handshakes.is_some() {
                // A device that takes its time to speak must not hold a place that others could
                // use; one that waits for us to speak first gets it after a moment.
                let patience = options.banner_timeout.min(Duration::from_secs(1));
                let _silent = timeout(patience, stream.readable()).await.is_err();
            }
            (Box::new(stream), None)
        }
        Some(jump) => {
            let (stream, connection) = open_through(jump, target, options, host_keys).await?;
            (stream, Some(connection))
        }
    };
    let (wire, cut, greeting) = Wire::new(stream);
    let peer = Arc::new(Peer::default());
    let client = Client {
        host: target.host.clone(),
        port: target.port,
        policy: options.host_keys,
        store: host_keys.clone(),
        peer: Arc::clone(&peer),
    };
    let permit = match &options.handshakes {
        Some(places) => places.acquire().await.ok(),
        None => None,
    };
    let shaking = client::connect_stream(config, wire, client);
    tokio::pin!(shaking);
    // The device's time runs from here: while we waited for a place, the delay was ours.
    let mut end = Instant::now() + options.banner_timeout;
    let mut greeted = false;
    let handle = loop {
        tokio::select! {
            done = &mut shaking => break done.map_err(|fault| explain(fault, place, &greeting))?,
            () = greeting.version_seen(), if !greeted => {
                greeted = true;
                end = Instant::now() + options.handshake_timeout;
            }
            () = sleep_until(end) => return Err(Failure::Other(too_slow(place, options, &greeting))),
        }
    };
    drop(permit);
    Ok(Shaken { handle, peer, cut, remote_version: greeting.version().unwrap_or_default(), jump })
}

/// Connects to the jump host and has it connect on.
async fn open_through(
    jump: &SshTarget,
    target: &SshTarget,
    options: &SshOptions,
    host_keys: &HostKeys,
) -> Result<(Box<dyn wire::Stream>, SshConnection), SessionError> {
    let jump_place = tcp::place(&jump.host, jump.port);
    // A future cannot hold itself: a chain of jumps is as deep as it is.
    let connection = Box::pin(connect(jump, options, host_keys))
        .await
        .map_err(|error| SessionError::new(error.kind, format!("jump host: {}", error.message)))?;
    let place = tcp::place(&target.host, target.port);
    let opening = connection.inner.handle.channel_open_direct_tcpip(
        target.host.clone(),
        u32::from(target.port),
        "127.0.0.1",
        0,
    );
    let refused = |why: String| {
        SessionError::new(
            ErrorCode::ConnectFailed,
            format!("jump host {jump_place} did not reach {place}: {why}"),
        )
    };
    match timeout(options.connect_timeout, opening).await {
        Ok(Ok(channel)) => Ok((Box::new(channel.into_stream()), connection)),
        Ok(Err(russh::Error::ChannelOpenFailure(failure))) => Err(refused(match failure {
            ChannelOpenFailure::AdministrativelyProhibited => {
                "it does not allow forwarding (`AllowTcpForwarding`), or not to this address".to_owned()
            }
            ChannelOpenFailure::ConnectFailed => {
                "the device refused the connection, or there is no route from there".to_owned()
            }
            ChannelOpenFailure::Other { reason, .. } => reason,
            other => format!("{other:?}"),
        })),
        Ok(Err(error)) => Err(refused(connection.why(&error.to_string()))),
        Err(_) => Err(refused(format!("no answer within {} s", options.connect_timeout.as_secs_f32()))),
    }
}

fn config(
    target: &SshTarget,
    options: &SshOptions,
    host_keys: &HostKeys,
    legacy: bool,
) -> Result<client::Config, SessionError> {
    // Larger groups cost fifty times the time, and many devices refuse a larger minimum.
    let gex = GexParams::new(2048, 2048, 8192)
        .map_err(|error| SessionError::new(ErrorCode::Internal, format!("group-exchange bounds: {error}")))?;
    let known = match options.host_keys {
        HostKeyPolicy::Off => Vec::new(),
        _ => host_keys.algorithms(&target.host, target.port),
    };
    Ok(client::Config {
        client_id: russh::SshId::Standard(concat!("SSH-2.0-NetPulse_", env!("CARGO_PKG_VERSION")).into()),
        preferred: algorithms::offer(legacy, &options.disabled, &known, options.compress),
        gex,
        // New keys by volume, as RFC 4253 wants them, and never by the clock: an idle terminal
        // needs none, and some old devices end the session when asked.
        limits: russh::Limits::new(1 << 30, 1 << 30, Duration::from_secs(365 * 86_400)),
        nodelay: true,
        keepalive_interval: options.keepalive.filter(|d| !d.is_zero()),
        keepalive_max: 3,
        ..client::Config::default()
    })
}

async fn login(
    shaken: Shaken,
    target: &SshTarget,
    options: &SshOptions,
    keys: &[Arc<russh::keys::PrivateKey>],
    legacy: bool,
    place: String,
    connecting: Duration,
) -> Result<SshConnection, SessionError> {
    let Shaken { mut handle, peer, cut, remote_version, jump } = shaken;
    let began = Instant::now();
    let end = began + options.auth_timeout;
    let attempt = auth::Attempt {
        place: &place,
        target,
        keys,
        legacy,
        disabled: &options.disabled.pubkeys,
        peer: &peer,
    };
    let logged_in = timeout_at(end, attempt.run(&mut handle)).await;
    let logging_in = began.elapsed();
    let inner = Inner { handle, peer, place, remote_version, legacy, cut, jump, connecting, logging_in };
    match logged_in {
        Ok(Ok(())) => Ok(SshConnection { inner: Arc::new(inner) }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(SessionError::new(
            ErrorCode::HandshakeFailed,
            format!(
                "{} did not answer the login within {} s: its authentication server may be down; raise `auth_timeout` if it is slow",
                inner.place,
                options.auth_timeout.as_secs_f32()
            ),
        )),
    }
}

fn too_slow(place: &str, options: &SshOptions, greeting: &Greeting) -> SessionError {
    let text = match (greeting.version(), greeting.excerpt()) {
        (Some(version), _) => format!(
            "{place} ({version}) did not finish the SSH key exchange within {} s: the device is overloaded, or something between drops large packets",
            options.handshake_timeout.as_secs_f32()
        ),
        (None, Some(seen)) => format!(
            "{place} sent `{seen}` and no SSH version within {} s: is this the SSH port?",
            options.banner_timeout.as_secs_f32()
        ),
        (None, None) => format!(
            "{place} took the connection and sent nothing for {} s: its SSH service hangs or has no free session; raise `banner_timeout` if it is slow",
            options.banner_timeout.as_secs_f32()
        ),
    };
    SessionError::new(ErrorCode::HandshakeFailed, text)
}

fn explain(fault: Fault, place: &str, greeting: &Greeting) -> Failure {
    let broken = |text: String| Failure::Other(SessionError::new(ErrorCode::HandshakeFailed, text));
    match fault {
        Fault::Refused(error) => Failure::Other(error),
        Fault::Ssh(russh::Error::NoCommonAlgo { kind, ours, theirs }) => {
            Failure::NoCommonAlgorithm(SessionError::new(
                ErrorCode::HandshakeFailed,
                format!(
                    "no common SSH {} with {place}: it offers {}; we offer {}. With `ssh_profile: auto` or `legacy` \
                     old algorithms are offered too",
                    match kind {
                        russh::AlgorithmKind::Kex => "key exchange",
                        russh::AlgorithmKind::Key => "host-key type",
                        russh::AlgorithmKind::Cipher => "cipher",
                        russh::AlgorithmKind::Compression => "compression",
                        russh::AlgorithmKind::Mac => "message authentication code",
                    },
                    theirs.join(", "),
                    ours.join(", ")
                ),
            ))
        }
        Fault::Ssh(error) => match (greeting.version(), greeting.excerpt()) {
            (Some(version), _) => {
                broken(format!("the SSH handshake with {place} ({version}) broke off: {error}"))
            }
            (None, Some(seen)) => {
                broken(format!("{place} answered `{seen}`, which is not SSH: is this the SSH port?"))
            }
            (None, None) => broken(format!(
                "{place} took the connection and closed it before the SSH handshake ({error}): an access list, or no free session"
            )),
        },
    }
}

impl SshConnection {
    /// The device's first line: `SSH-2.0-OpenSSH_9.6`.
    #[must_use]
    pub fn remote_version(&self) -> &str {
        &self.inner.remote_version
    }

    /// The text that the device showed before the login; empty when none.
    #[must_use]
    pub fn banner(&self) -> String {
        self.inner.peer.banner.lock().clone()
    }

    /// `host:port`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.inner.place
    }

    /// How long it took to agree on keys, TCP included, and then to log in.
    #[must_use]
    pub fn opening(&self) -> (Duration, Duration) {
        (self.inner.connecting, self.inner.logging_in)
    }

    /// Whether the device needed old algorithms.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.inner.legacy
    }

    /// Why the connection ended, when it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<String> {
        if self.inner.peer.ended.is_cancelled() || self.inner.handle.is_closed() {
            Some(self.why("the connection was closed"))
        } else {
            None
        }
    }

    /// Resolves when the connection has ended. Safe to drop.
    pub async fn closed(&self) {
        self.inner.peer.ended.cancelled().await;
    }

    /// Asks the device for a sign of life and waits for it.
    ///
    /// # Errors
    /// `SessionLost`, when it does not come in time or the connection has ended.
    pub async fn probe(&self, deadline: Duration) -> Result<(), SessionError> {
        let answered = timeout(deadline, self.inner.handle.send_ping()).await;
        if let Some(why) = self.end_reason() {
            return Err(self.lost(&why));
        }
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(&self.why(&error.to_string()))),
            Err(_) => Err(self.lost(&format!("no sign of life within {} s", deadline.as_secs_f32()))),
        }
    }

    /// Says goodbye and closes, within a second.
    pub async fn close(&self) {
        let goodbye = self.inner.handle.disconnect(Disconnect::ByApplication, "", "en");
        // A peer that takes nothing loses its goodbye.
        if let Ok(Ok(())) = timeout(Duration::from_secs(1), goodbye).await {
            let _took_too_long = timeout(Duration::from_secs(1), self.closed()).await.is_err();
        }
        self.cut();
    }

    /// Closes at once, saying nothing.
    pub fn cut(&self) {
        self.inner.peer.ended("closed by NetPulse");
        self.inner.cut.now();
        if let Some(jump) = &self.inner.jump {
            jump.cut();
        }
    }

    /// What is known of the end, else `otherwise`.
    fn why(&self, otherwise: &str) -> String {
        self.inner.peer.end.lock().clone().unwrap_or_else(|| otherwise.to_owned())
    }

    fn lost(&self, why: &str) -> SessionError {
        SessionError::new(ErrorCode::SessionLost, format!("SSH session to {} ended: {why}", self.inner.place))
    }

    /// Opens a session channel.
    async fn open_channel(&self, deadline: Duration) -> Result<russh::Channel<client::Msg>, SessionError> {
        match timeout(deadline, self.inner.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(failure))) => Err(SessionError::new(
                ErrorCode::HandshakeFailed,
                format!("{} opened no session ({failure:?}): it may have no free line", self.inner.place),
            )),
            Ok(Err(error)) => Err(self.lost(&self.why(&error.to_string()))),
            Err(_) => Err(SessionError::new(
                ErrorCode::HandshakeFailed,
                format!("{} opened no session within {} s", self.inner.place, deadline.as_secs_f32()),
            )),
        }
    }
}

/// russh's side of a connection: judges the host key, notes what the device says of itself.
struct Client {
    host: String,
    port: u16,
    policy: HostKeyPolicy,
    store: HostKeys,
    peer: Arc<Peer>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // The connection's task is over, however it ended.
        self.peer.ended.cancel();
    }
}

/// What ends a connection's task.
#[derive(Debug)]
enum Fault {
    /// SSH itself.
    Ssh(russh::Error),
    /// We refused the device.
    Refused(SessionError),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// Characters of a login banner that are kept.
const MAX_BANNER: usize = 16 * 1024;

impl client::Handler for Client {
    type Error = Fault;

    async fn auth_banner(&mut self, banner: &str, _session: &mut client::Session) -> Result<(), Fault> {
        let mut kept = self.peer.banner.lock();
        let room = MAX_BANNER.saturating_sub(kept.len());
        kept.extend(banner.chars().take(room));
        Ok(())
    }

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => certificate.public_key().clone().into(),
        };
        match self.store.check(&self.host, self.port, &key, self.policy).await {
            Ok(()) => Ok(true),
            Err(refusal) => Err(Fault::Refused(refusal)),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let text: String = info.message.chars().filter(|c| !c.is_control()).take(200).collect();
                self.peer.ended(format!(
                    "the device said goodbye ({:?}{}{text})",
                    info.reason_code,
                    if text.is_empty() { "" } else { ": " }
                ));
            }
            DisconnectReason::Error(fault) => {
                let why = match &fault {
                    Fault::Ssh(russh::Error::HUP | russh::Error::Disconnect) => {
                        "the device closed the connection".to_owned()
                    }
                    Fault::Ssh(russh::Error::KeepaliveTimeout) => {
                        "the device gives no sign of life".to_owned()
                    }
                    Fault::Ssh(russh::Error::IO(error))
                        if error.kind() == std::io::ErrorKind::UnexpectedEof =>
                    {
                        "the device closed the connection".to_owned()
                    }
                    Fault::Ssh(error) => error.to_string(),
                    Fault::Refused(error) => error.message.clone(),
                };
                self.peer.ended(why);
            }
        }
        Ok(())
    }
}
