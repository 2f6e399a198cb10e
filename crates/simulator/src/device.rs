//! One simulated device: its configurations, its connections, its faults.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::fault::Faults;
use crate::journal::{Journal, Kind};
use crate::persona::{Candidate, Persona};
use crate::template;

/// Who may come in.
#[derive(Debug, Clone)]
pub struct Access {
    /// User names and passwords.
    pub users: HashMap<String, String>,
    /// The enable secret.
    pub enable: String,
    /// Any public key of a known user is good.
    pub any_key: bool,
    /// OpenSSH public keys (`ssh-ed25519 AAAA...`) that are good for every known user.
    pub keys: Vec<String>,
    /// The mode after login, where it is not the persona's own first (`privileged` for users of level 15).
    pub start: Option<String>,
}

/// Ends a connection from outside, at once.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) cut: AtomicBool,
    pub(crate) waker: AtomicWaker,
    pub(crate) writer: AtomicWaker,
}

impl Cut {
    pub(crate) fn now(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
        self.writer.wake();
    }

    pub(crate) fn done(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// How to reach a session from outside.
#[derive(Clone)]
pub(crate) enum Reach {
    None,
    Ssh(russh::server::Handle, russh::ChannelId),
    Telnet(mpsc::UnboundedSender<Vec<u8>>),
}

pub(crate) struct Conn {
    pub(crate) cut: Arc<Cut>,
    pub(crate) reach: Reach,
}

pub(crate) struct State {
    pub(crate) running: Arc<Config>,
    pub(crate) startup: Arc<Config>,
    pub(crate) candidate: Option<Arc<Config>>,
    pub(crate) hostname: String,
    pub(crate) pending: Option<(u64, Arc<Config>)>,
    pub(crate) previous: Vec<Arc<Config>>,
    pub(crate) commits: u64,
    pub(crate) drops: u32,
    pub(crate) started: Instant,
}

/// One simulated device. Cheap to share; everything may be read and changed while it serves.
pub struct Device {
    /// Counts from 0.
    pub index: u32,
    /// What it imitates.
    pub persona: Arc<Persona>,
    /// Where SSH listens, if it does.
    pub ssh: Option<SocketAddr>,
    /// Where Telnet listens, if it does.
    pub telnet: Option<SocketAddr>,
    pub(crate) access: Arc<Access>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) state: Mutex<State>,
    faults: RwLock<Arc<Faults>>,
    faulty: AtomicBool,
    pub(crate) conns: Mutex<HashMap<u64, Conn>>,
    next_conn: AtomicU64,
    reboots: AtomicU32,
    pub(crate) turn: Mutex<()>,
    pub(crate) down: watch::Sender<Option<Duration>>,
    default_name: String,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("index", &self.index)
            .field("persona", &self.persona.spec.name)
            .finish_non_exhaustive()
    }
}

impl Device {
    pub(crate) fn new(
        index: u32,
        persona: Arc<Persona>,
        ssh: Option<SocketAddr>,
        telnet: Option<SocketAddr>,
        access: Arc<Access>,
        journal: Arc<Journal>,
        faults: Faults,
    ) -> Device {
        let spec = &persona.spec;
        let number = index.to_string();
        let default_name = template::fill(&spec.hostname, &|n| (n == "index").then(|| number.clone().into()));
        let address = ssh.or(telnet).map(|a| a.ip().to_string()).unwrap_or_default();
        let initial = template::fill(&spec.config.initial, &|n| match n {
            "hostname" => Some(default_name.as_str().into()),
            "index" => Some(number.as_str().into()),
            "address" => Some(address.as_str().into()),
            _ => None,
        });
        let running = Arc::new(Config::parse(&spec.config.rules, &initial));
        let faulty = !faults.none();
        let device = Device {
            index,
            ssh,
            telnet,
            access,
            journal,
            state: Mutex::new(State {
                startup: running.clone(),
                running,
                candidate: None,
                hostname: default_name.clone(),
                pending: None,
                previous: Vec::new(),
                commits: 0,
                drops: 0,
                started: Instant::now(),
            }),
            faults: RwLock::new(Arc::new(faults)),
            faulty: AtomicBool::new(faulty),
            conns: Mutex::new(HashMap::new()),
            next_conn: AtomicU64::new(0),
            reboots: AtomicU32::new(0),
            turn: Mutex::new(()),
            down: watch::Sender::new(None),
            default_name,
            persona,
        };
        device.rename();
        device
    }

    /// The name in the running configuration, or the one it came with.
    fn rename(&self) {
        let spec = &self.persona.spec.config;
        let mut state = self.state.lock();
        let name =
            if spec.hostname.is_empty() { None } else { state.running.value(&spec.rules, &spec.hostname) };
        state.hostname = name.filter(|n| !n.is_empty()).unwrap_or_else(|| self.default_name.clone());
    }

    /// The user's name without login options.
    pub(crate) fn plain_user<'a>(&self, user: &'a str) -> &'a str {
        let mark = &self.persona.spec.login.user_options;
        if mark.is_empty() { user } else { user.split_once(mark.as_str()).map_or(user, |(name, _)| name) }
    }

    /// The hostname that prompts show now.
    pub fn hostname(&self) -> String {
        self.state.lock().hostname.clone()
    }

    /// The running configuration as the device prints it.
    pub fn running_config(&self) -> String {
        let running = self.state.lock().running.clone();
        running.render(&self.persona.spec.config.rules)
    }

    /// The startup configuration as the device prints it.
    pub fn startup_config(&self) -> String {
        let startup = self.state.lock().startup.clone();
        startup.render(&self.persona.spec.config.rules)
    }

    /// The shared candidate, when there is one.
    pub fn candidate_config(&self) -> Option<String> {
        let candidate = self.state.lock().candidate.clone();
        candidate.map(|c| c.render(&self.persona.spec.config.rules))
    }

    /// True when running differs from startup.
    pub fn unsaved(&self) -> bool {
        let state = self.state.lock();
        state.running != state.startup
    }

    /// Commits since the start.
    pub fn commits(&self) -> u64 {
        self.state.lock().commits
    }

    /// Reboots since the start.
    pub fn reboots(&self) -> u32 {
        self.reboots.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.conns.lock().len()
    }

    /// Connections ever accepted.
    pub fn connections_ever(&self) -> u64 {
        self.next_conn.load(Ordering::Relaxed)
    }

    /// The faults in force.
    pub fn faults(&self) -> Arc<Faults> {
        self.faults.read().clone()
    }

    /// Puts other faults in force, for open sessions too, from their next line on.
    pub fn set_faults(&self, faults: Faults) {
        let none = faults.none();
        self.state.lock().drops = 0;
        *self.faults.write() = Arc::new(faults);
        self.faulty.store(!none, Ordering::Release);
    }

    pub(crate) fn faulty(&self) -> bool {
        self.faulty.load(Ordering::Acquire)
    }

    /// Cuts every connection, without a word.
    pub fn drop_connections(&self) {
        for conn in self.conns.lock().values() {
            conn.cut.now();
        }
    }

    /// Goes down at once, refuses connections for `down`, comes back with the startup configuration.
    pub fn reboot(&self, down: Duration) {
        self.reboots.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            state.running = state.startup.clone();
            state.candidate = None;
            state.pending = None;
            state.started = Instant::now();
        }
        self.rename();
        self.journal.add(self.index, 0, Kind::Reboot, &format!("down for {} ms", down.as_millis()), "", "");
        self.down.send_replace(Some(down));
        self.drop_connections();
    }

    /// Writes a log message on every open session (`terminal monitor`); empty is the platform's own message.
    pub async fn syslog(&self, text: &str) {
        let text = if text.is_empty() { self.syslog_text() } else { text.to_owned() };
        let bytes = format!("\r\n{text}\r\n").into_bytes();
        let reaches: Vec<Reach> = self.conns.lock().values().map(|c| c.reach.clone()).collect();
        for reach in reaches {
            match reach {
                Reach::Ssh(handle, channel) => {
                    // A session that ended meanwhile needs no message.
                    let _ = handle.data(channel, bytes.clone()).await;
                }
                Reach::Telnet(tx) => {
                    let _ = tx.send(bytes.clone());
                }
                Reach::None => {}
            }
        }
    }

    pub(crate) fn syslog_text(&self) -> String {
        let text = &self.persona.spec.errors.syslog;
        let text = if text.is_empty() {
            "%SYS-5-CONFIG_I: Configured from console by admin on vty1 (10.0.0.9)"
        } else {
            text
        };
        template::fill(text, &|n| match n {
            "hostname" => Some(self.hostname().into()),
            "date" => Some(template::date().into()),
            _ => None,
        })
    }

    /// Takes a number for a new connection; none when the VTY limit is reached.
    pub(crate) fn admit(&self, cut: Arc<Cut>) -> Result<u64, usize> {
        let limit = if self.faulty() { self.faults().vty_limit } else { 0 };
        let mut conns = self.conns.lock();
        if limit > 0 && conns.len() >= limit {
            return Err(limit);
        }
        let number = self.next_conn.fetch_add(1, Ordering::Relaxed) + 1;
        conns.insert(number, Conn { cut, reach: Reach::None });
        Ok(number)
    }

    pub(crate) fn reach(&self, number: u64, reach: Reach) {
        if let Some(conn) = self.conns.lock().get_mut(&number) {
            conn.reach = reach;
        }
    }

    /// Counts one cut against `drop_times`; true when it is to happen.
    pub(crate) fn may_drop(&self, faults: &Faults) -> bool {
        let mut state = self.state.lock();
        if faults.drop_times > 0 && state.drops >= faults.drop_times {
            return false;
        }
        state.drops += 1;
        true
    }

    /// The configuration that lines of a session with this private candidate go to.
    pub(crate) fn edit<R>(
        &self,
        private: &mut Option<Arc<Config>>,
        candidate: bool,
        change: impl FnOnce(&mut Config) -> R,
    ) -> R {
        let mut state = self.state.lock();
        let kind = self.persona.spec.config.candidate;
        if candidate && kind != Candidate::None {
            let running = state.running.clone();
            let slot = if kind == Candidate::Shared { &mut state.candidate } else { private };
            return change(Arc::make_mut(slot.get_or_insert(running)));
        }
        let result = change(Arc::make_mut(&mut state.running));
        if self.persona.spec.config.saved_at_once {
            state.startup = state.running.clone();
        }
        drop(state);
        self.rename();
        result
    }

    pub(crate) fn candidate_or_running(&self, private: &Option<Arc<Config>>) -> Arc<Config> {
        let state = self.state.lock();
        let candidate = match self.persona.spec.config.candidate {
            Candidate::None => None,
            Candidate::Shared => state.candidate.clone(),
            Candidate::Private => private.clone(),
        };
        candidate.unwrap_or_else(|| state.running.clone())
    }

    pub(crate) fn discard(&self, private: &mut Option<Arc<Config>>) {
        *private = None;
        if self.persona.spec.config.candidate == Candidate::Shared {
            self.state.lock().candidate = None;
        }
    }

    /// Candidate becomes running. With `minutes`, it is taken back unless confirmed.
    pub(crate) fn commit(self: &Arc<Self>, private: &mut Option<Arc<Config>>, minutes: Option<f64>) {
        let next = self.candidate_or_running(private);
        self.discard(private);
        let id = {
            let mut state = self.state.lock();
            let old = std::mem::replace(&mut state.running, next);
            state.commits += 1;
            let id = state.commits;
            // A second commit confirms the first; its own undo goes back to before itself.
            state.pending = minutes.map(|_| (id, old.clone()));
            state.previous.push(old);
            let extra = state.previous.len().saturating_sub(10);
            state.previous.drain(..extra);
            if self.persona.spec.config.saved_at_once {
                state.startup = state.running.clone();
            }
            id
        };
        self.rename();
        if let Some(minutes) = minutes {
            let device = self.clone();
            let wait = Duration::from_secs_f64((minutes * 60.0).clamp(0.001, 864_000.0));
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                device.take_back(id);
            });
        }
    }

    /// Takes an unconfirmed commit back; `0` means whichever is pending.
    pub(crate) fn take_back(&self, id: u64) -> bool {
        {
            let mut state = self.state.lock();
            match state.pending.take() {
                Some((which, old)) if id == 0 || which == id => {
                    state.running = old;
                    if self.persona.spec.config.saved_at_once {
                        state.startup = state.running.clone();
                    }
                }
                other => {
                    state.pending = other;
                    return false;
                }
            }
        }
        self.rename();
        self.journal.add(self.index, 0, Kind::Rollback, "commit was not confirmed", "", "");
        true
    }
}

/// A connection's place in the device's books; its end is journalled when the last holder lets go.
pub(crate) struct ConnGuard {
    pub(crate) device: Arc<Device>,
    pub(crate) number: u64,
    pub(crate) cut: Arc<Cut>,
    pub(crate) partial: Mutex<String>,
}

impl Drop for ConnGuard {
    fn drop(&mut self) {
        self.device.conns.lock().remove(&self.number);
        let partial = std::mem::take(&mut *self.partial.lock());
        self.device.journal.add(self.device.index, self.number, Kind::Close, &partial, "", "");
    }
}
