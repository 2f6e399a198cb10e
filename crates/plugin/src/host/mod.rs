//! The host: runs external plugins below a guard, speaks to them, and keeps their faults theirs.

pub(crate) mod blame;
pub(crate) mod location;
pub(crate) mod logs;
pub(crate) mod program;
pub(crate) mod spawn;
pub(crate) mod start;
pub(crate) mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use spawn::{ENVIRONMENT, GuardProgram};
pub use wire::MAX_REQUEST;

/// What holds for every plugin.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// How a guard is run.
    pub guard: GuardProgram,
    /// Further environment variables that plugins see.
    pub environment: Vec<String>,
    /// Where the folders of starts are made: a short path, for sockets lie in it.
    pub runtime_dir: PathBuf,
    /// For a plugin to come up.
    pub start_timeout: Duration,
    /// How long a plugin lives without work; zero for ever.
    pub idle_timeout: Duration,
    /// For a plugin to end by itself, each of asking and SIGTERM.
    pub stop_timeout: Duration,
    /// For a call when nothing else bounds it.
    pub call_timeout: Duration,
    /// Bytes that an answer may have.
    pub max_answer: usize,
    /// Bytes of private memory that a plugin's process may have; 0 for any.
    pub max_memory: u64,
    /// Speak TCP on loopback instead of a Unix socket.
    pub tcp: bool,
}

impl HostSettings {
    /// The defaults, with this guard.
    #[must_use]
    pub fn new(guard: GuardProgram) -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        Self {
            guard,
            environment: Vec::new(),
            runtime_dir: runtime.unwrap_or_else(std::env::temp_dir),
            start_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(3600),
            stop_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(300),
            max_answer: 64 * 1024 * 1024,
            max_memory: 0,
            tcp: false,
        }
    }
}
