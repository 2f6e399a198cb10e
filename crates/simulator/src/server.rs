//! Starts the devices, accepts their connections, stops them.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::server::Config as SshConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::device::{Access, ConnGuard, Cut, Device};
use crate::fault::Faults;
use crate::journal::{Journal, Kind};
use crate::persona::{Library, PersonaError};
use crate::plan::Plan;
use crate::ssh::{SshConn, methods};
use crate::telnet;
use crate::wire::Wire;

/// Why the simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A persona is unknown or wrong.
    #[error(transparent)]
    Persona(#[from] PersonaError),
    /// An address cannot be had.
    #[error("device {index} cannot listen on {address}: {source}")]
    Bind {
        /// Which device.
        index: u32,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The plan asks for more addresses or ports than there are.
    #[error("{0}")]
    Plan(String),
    /// The journal file cannot be written.
    #[error("journal {path}: {source}")]
    Journal {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Starts simulators.
#[derive(Debug)]
pub struct Simulator;

/// A running simulator; stops when dropped.
pub struct Running {
    devices: Vec<Arc<Device>>,
    journal: Arc<Journal>,
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("devices", &self.devices.len()).finish_non_exhaustive()
    }
}

impl Simulator {
    /// Binds every address and serves until [`Running::stop`]. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// The persona, address or file that cannot be had; nothing is left behind then.
    pub fn start(plan: Plan) -> Result<Running, StartError> {
        let library = match &plan.persona_dir {
            Some(folder) => Library::with_folder(folder)?,
            None => Library::embedded(),
        };
        if plan.personas.is_empty() {
            return Err(StartError::Plan("the plan names no persona; name at least one".into()));
        }
        if plan.ssh_port.is_none() && plan.telnet_port.is_none() {
            return Err(StartError::Plan(
                "the plan has neither an SSH nor a Telnet port; give one of them".into(),
            ));
        }
        let personas = plan.personas.iter().map(|p| library.get(p)).collect::<Result<Vec<_>, _>>()?;
        let journal = Journal::open(&plan.journal).map_err(|source| StartError::Journal {
            path: plan.journal.file.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            source,
        })?;
        let journal = Arc::new(journal);
        let access = Arc::new(Access {
            users: plan.users.clone(),
            enable: plan.enable.clone(),
            any_key: plan.any_key,
            keys: plan.keys.clone(),
            start: plan.start.clone(),
        });
        let keys = Arc::new(Keys::new(&plan));
        let mut devices = Vec::with_capacity(plan.devices as usize);
        let mut tasks = JoinSet::new();
        for index in 0..plan.devices {
            let persona = personas[index as usize % personas.len()].clone();
            let bind = |port: Option<u16>| -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
                let Some(port) = port else { return Ok(None) };
                let address = plan.address(index, port).ok_or_else(|| {
                    StartError::Plan(format!("device {index} would be past the last address or port"))
                })?;
                listen(address).map(Some).map_err(|source| StartError::Bind { index, address, source })
            };
            let (ssh, telnet) = (bind(plan.ssh_port)?, bind(plan.telnet_port)?);
            let device = Arc::new(Device::new(
                index,
                persona,
                ssh.as_ref().map(|s| s.1),
                telnet.as_ref().map(|t| t.1),
                access.clone(),
                journal.clone(),
                plan.faults.clone(),
            ));
            if let Some((listener, address)) = ssh {
                tasks.spawn(accept(device.clone(), listener, address, Some(keys.clone())));
            }
            if let Some((listener, address)) = telnet {
                tasks.spawn(accept(device.clone(), listener, address, None));
            }
            devices.push(device);
        }
        Ok(Running { devices, journal, tasks: Mutex::new(tasks) })
    }
}

/// Listens with a long queue: a thousand clients may come at once.
fn listen(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

impl Running {
    /// All devices in order.
    pub fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// One device.
    ///
    /// # Panics
    /// When there is no device with this index.
    pub fn device(&self, index: usize) -> &Arc<Device> {
        &self.devices[index]
    }

    /// What the devices received.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Puts faults in force on every device.
    pub fn set_faults(&self, faults: &Faults) {
        for device in &self.devices {
            device.set_faults(faults.clone());
        }
    }

    /// Writes a log message on every open session of one device; see [`Device::syslog`].
    pub async fn syslog(&self, index: usize, text: &str) {
        self.devices[index].syslog(text).await;
    }

    /// Stops listening and cuts every connection.
    pub fn stop(&self) {
        self.tasks.lock().abort_all();
        for device in &self.devices {
            device.drop_connections();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Host keys and the SSH configurations made of them.
struct Keys {
    own: bool,
    seed: u64,
    legacy: bool,
    made: Mutex<std::collections::HashMap<(String, u32, u32), Arc<SshConfig>>>,
}

impl Keys {
    fn new(plan: &Plan) -> Keys {
        let seed = plan.host_key_seed.unwrap_or_else(rand::random);
        Keys { own: plan.own_host_keys, seed, legacy: plan.legacy, made: Mutex::default() }
    }

    fn config(&self, device: &Device) -> Arc<SshConfig> {
        let generation = device.faults().host_key;
        let number = if self.own { device.index } else { u32::MAX };
        let persona = &device.persona.spec;
        let mut made = self.made.lock();
        made.entry((persona.name.clone(), number, generation))
            .or_insert_with(|| {
                let mut bytes = [0u8; 32];
                let mut rng = rand::rngs::StdRng::seed_from_u64(
                    self.seed ^ (u64::from(number) << 20) ^ (u64::from(generation) << 56),
                );
                rand::Rng::fill_bytes(&mut rng, &mut bytes);
                let key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&bytes)), "").ok();
                let mut preferred = russh::Preferred::default();
                if self.legacy {
                    preferred.kex = vec![russh::kex::DH_G14_SHA1, russh::kex::DH_G1_SHA1].into();
                    preferred.cipher = vec![russh::cipher::AES_128_CBC, russh::cipher::AES_256_CBC].into();
                    preferred.mac = vec![russh::mac::HMAC_SHA1].into();
                }
                let version = if persona.login.ssh_version.is_empty() {
                    "Simulator_1"
                } else {
                    persona.login.ssh_version.as_str()
                };
                Arc::new(SshConfig {
                    server_id: russh::SshId::Standard(format!("SSH-2.0-{version}").into()),
                    methods: methods(&persona.login.methods),
                    auth_rejection_time: Duration::ZERO,
                    auth_rejection_time_initial: Some(Duration::ZERO),
                    keys: key.into_iter().collect(),
                    inactivity_timeout: None,
                    nodelay: true,
                    preferred,
                    // Small windows keep a connection small; a device never receives much.
                    window_size: 64 * 1024,
                    channel_buffer_size: 4,
                    event_buffer_size: 4,
                    max_auth_attempts: 6,
                    ..SshConfig::default()
                })
            })
            .clone()
    }
}

/// Accepts on one address until the simulator stops; closes it while the device is down.
async fn accept(device: Arc<Device>, listener: TcpListener, address: SocketAddr, keys: Option<Arc<Keys>>) {
    let mut listener = Some(listener);
    let mut down = device.down.subscribe();
    loop {
        let Some(open) = listener.as_ref() else { return };
        tokio::select! {
            accepted = open.accept() => {
                let Ok((tcp, _)) = accepted else {
                    // Out of file descriptors: give others the time to close theirs.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                tokio::spawn(connection(device.clone(), tcp, keys.clone()));
            }
            changed = down.changed() => {
                if changed.is_err() {
                    return;
                }
                let time = *down.borrow_and_update();
                // Closed while it is down, so that clients are refused.
                drop(listener.take());
                tokio::time::sleep(time.unwrap_or_default()).await;
                listener = listen(address).map(|(l, _)| l).inspect_err(|error| tracing::error!(%error, %address, "a rebooted device cannot listen again")).ok();
            }
        }
    }
}

async fn connection(device: Arc<Device>, mut tcp: TcpStream, keys: Option<Arc<Keys>>) {
    // Without it every answer waits for the client's acknowledgement.
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let cut = Arc::new(Cut::default());
    let number = match device.admit(cut.clone()) {
        Ok(number) => number,
        Err(limit) => {
            device.journal.add(device.index, 0, Kind::Fault, &format!("vty_limit {limit}"), "", "");
            return;
        }
    };
    let guard =
        Arc::new(ConnGuard { device: device.clone(), number, cut: cut.clone(), partial: Mutex::default() });
    let how = if keys.is_some() { "ssh" } else { "telnet" };
    device.journal.add(device.index, number, Kind::Connect, how, "", "");
    let faults = device.faults();
    if faults.half_open || faults.garbage {
        if faults.garbage {
            let mut bytes = vec![0u8; 512];
            let mut rng = rand::rngs::StdRng::seed_from_u64(faults.seed ^ number);
            rand::Rng::fill_bytes(&mut rng, &mut bytes);
            if tcp.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let mut wire = Wire { tcp, cut };
        let mut sink = [0u8; 1024];
        while matches!(wire.read(&mut sink).await, Ok(n) if n > 0) {}
        drop(guard);
        return;
    }
    let wire = Wire { tcp, cut };
    match keys {
        Some(keys) => {
            let config = keys.config(&device);
            if let Ok(session) = russh::server::run_stream(config, wire, SshConn::new(guard)).await {
                // How a client ended its session is its own business; the journal has it.
                if let Err(error) = session.await {
                    tracing::debug!(%error, device = device.index, "ssh session ended");
                }
            }
        }
        None => telnet::serve(wire, guard).await,
    }
}
