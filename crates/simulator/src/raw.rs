//! A raw russh client against the same devices: the figure that NetPulse's own are held against.
//!
//! Nothing but SSH is in it: no queue, no store, no platform, no parsing. It finds a prompt by its last character.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, Handle, Msg};
use russh::{Channel, ChannelMsg};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What went wrong, with the device's address.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// SSH said no.
    #[error("{address}: {source}")]
    Ssh {
        /// The device.
        address: SocketAddr,
        /// Why.
        source: russh::Error,
    },
    /// The device took too long or closed.
    #[error("{address}: {what}")]
    Device {
        /// The device.
        address: SocketAddr,
        /// What was waited for.
        what: &'static str,
    },
    /// Nothing to measure.
    #[error("{0}")]
    Options(&'static str),
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct RawOptions {
    /// The devices.
    pub targets: Vec<SocketAddr>,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: String,
    /// The command; its answer should fit on one page.
    pub command: String,
    /// Round trips on one warm session.
    pub warm: usize,
    /// Cold connects, one after another.
    pub cold: usize,
    /// Handshakes at the same time when all devices are met for the first time.
    pub parallel: usize,
    /// How many devices the command rate is taken on.
    pub rate_devices: usize,
    /// Commands on each of them.
    pub rate_commands: usize,
    /// Longest wait for anything.
    pub limit: Duration,
}

impl RawOptions {
    /// The figures of the field: 2,000 warm round trips, 50 cold ones, all devices once, 100 devices for the rate.
    pub fn new(targets: Vec<SocketAddr>) -> RawOptions {
        RawOptions {
            targets,
            user: "admin".into(),
            password: "admin".into(),
            command: "show clock".into(),
            warm: 2_000,
            cold: 50,
            parallel: 64,
            rate_devices: 100,
            rate_commands: 100,
            limit: Duration::from_secs(30),
        }
    }
}

/// What came out. Times in microseconds unless named otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct RawFigures {
    /// One command on an open session, median.
    pub warm_p50_us: u64,
    /// The same, 99 of 100.
    pub warm_p99_us: u64,
    /// Connect, authenticate, terminal, shell, first prompt, one command; median.
    pub cold_p50_us: u64,
    /// How many devices were met for the first time.
    pub new_devices: usize,
    /// One command on each of them, until the last answered; milliseconds.
    pub new_devices_ms: u64,
    /// Devices the rate was taken on.
    pub rate_devices: usize,
    /// Commands answered per second on open sessions, all devices together.
    pub commands_per_second: f64,
}

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        // Simulated devices on loopback; nothing secret is sent to them.
        Ok(true)
    }
}

/// One open terminal.
pub struct RawSession {
    address: SocketAddr,
    limit: Duration,
    channel: Channel<Msg>,
    _handle: Handle<Trusting>,
}

impl std::fmt::Debug for RawSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawSession").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RawSession {
    /// Connects, logs in, opens a terminal and reads the first prompt.
    ///
    /// # Errors
    /// SSH's, or that the device took longer than the limit.
    pub async fn open(address: SocketAddr, options: &RawOptions) -> Result<RawSession, RawError> {
        let ssh = |source| RawError::Ssh { address, source };
        let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
        let work = async {
            let mut handle = client::connect(config, address, Trusting).await.map_err(ssh)?;
            let mut good =
                handle.authenticate_password(&options.user, &options.password).await.map_err(ssh)?.success();
            if !good {
                // Devices that only ask interactively.
                let asked =
                    handle.authenticate_keyboard_interactive_start(&options.user, None).await.map_err(ssh)?;
                if matches!(asked, client::KeyboardInteractiveAuthResponse::InfoRequest { .. }) {
                    let answer = handle
                        .authenticate_keyboard_interactive_respond(vec![options.password.clone()])
                        .await
                        .map_err(ssh)?;
                    good = matches!(answer, client::KeyboardInteractiveAuthResponse::Success);
                }
            }
            if !good {
                return Err(RawError::Device { address, what: "refused the login" });
            }
            let channel = handle.channel_open_session().await.map_err(ssh)?;
            channel.request_pty(false, "vt100", 200, 100, 0, 0, &[]).await.map_err(ssh)?;
            channel.request_shell(false).await.map_err(ssh)?;
            Ok(RawSession { address, limit: options.limit, channel, _handle: handle })
        };
        let mut session = timeout(options.limit, work)
            .await
            .map_err(|_| RawError::Device { address, what: "no login in time" })??;
        session.prompt().await?;
        Ok(session)
    }

    /// Reads to the next prompt; how many bytes came.
    async fn prompt(&mut self) -> Result<usize, RawError> {
        let (address, limit) = (self.address, self.limit);
        let read = async {
            let mut count = 0;
            loop {
                match self.channel.wait().await {
                    Some(ChannelMsg::Data { data }) => {
                        count += data.len();
                        if data.trim_ascii_end().last().is_some_and(|b| b"#>$]".contains(b)) {
                            return Ok(count);
                        }
                    }
                    Some(_) => {}
                    None => return Err(RawError::Device { address, what: "closed before the prompt" }),
                }
            }
        };
        timeout(limit, read).await.map_err(|_| RawError::Device { address, what: "no prompt in time" })?
    }

    /// One command and its answer; how many bytes came.
    ///
    /// # Errors
    /// As [`RawSession::open`].
    pub async fn command(&mut self, command: &str) -> Result<usize, RawError> {
        let mut line = command.as_bytes().to_vec();
        line.push(b'\r');
        let address = self.address;
        self.channel.data_bytes(line).await.map_err(|source| RawError::Ssh { address, source })?;
        self.prompt().await
    }
}

fn at(sorted: &[Duration], of_hundred: usize) -> u64 {
    sorted
        .get((sorted.len() * of_hundred / 100).min(sorted.len().saturating_sub(1)))
        .map_or(0, |d| d.as_micros() as u64)
}

/// Takes all figures, one after the other.
///
/// # Errors
/// The first device that did not answer.
pub async fn measure(options: &RawOptions) -> Result<RawFigures, RawError> {
    let Some(first) = options.targets.first().copied() else {
        return Err(RawError::Options("there are no devices to measure"));
    };
    let mut cold = Vec::new();
    for _ in 0..options.cold.max(1) {
        let start = Instant::now();
        RawSession::open(first, options).await?.command(&options.command).await?;
        cold.push(start.elapsed());
    }
    cold.sort();
    let mut session = RawSession::open(first, options).await?;
    let mut warm = Vec::with_capacity(options.warm);
    for _ in 0..options.warm.max(1) {
        let start = Instant::now();
        session.command(&options.command).await?;
        warm.push(start.elapsed());
    }
    warm.sort();
    drop(session);

    let (new_devices_ms, kept) = meet(options).await?;
    let rate_devices = kept.len();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut session in kept {
        let (command, times) = (options.command.clone(), options.rate_commands);
        tasks.spawn(async move {
            for _ in 0..times {
                session.command(&command).await?;
            }
            Ok::<(), RawError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or(Err(RawError::Options("a measuring task was cancelled")))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(RawFigures {
        warm_p50_us: at(&warm, 50),
        warm_p99_us: at(&warm, 99),
        cold_p50_us: at(&cold, 50),
        new_devices: options.targets.len(),
        new_devices_ms,
        rate_devices,
        commands_per_second: (rate_devices * options.rate_commands) as f64 / seconds.max(1e-9),
    })
}

/// Meets every device once; the first `rate_devices` sessions stay open.
async fn meet(options: &RawOptions) -> Result<(u64, Vec<RawSession>), RawError> {
    let shared = Arc::new(options.clone());
    // Handshakes are bound by the processor; more at a time only makes each slower.
    let gate = Arc::new(Semaphore::new(options.parallel.max(1)));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, target) in options.targets.iter().copied().enumerate() {
        let (shared, gate) = (shared.clone(), gate.clone());
        tasks.spawn(async move {
            let _slot = gate.acquire_owned().await.map_err(|_| RawError::Options("the gate was closed"))?;
            let mut session = RawSession::open(target, &shared).await?;
            session.command(&shared.command).await?;
            Ok::<_, RawError>((index < shared.rate_devices).then_some(session))
        });
    }
    let mut kept = Vec::new();
    while let Some(done) = tasks.join_next().await {
        kept.extend(done.unwrap_or(Err(RawError::Options("a measuring task was cancelled")))?);
    }
    Ok((start.elapsed().as_millis() as u64, kept))
}
