//! Running a plugin's file below a guard.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How a guard is run: NetPulse's own program with one argument, or a program of its own.
#[derive(Debug, Clone)]
pub struct GuardProgram {
    /// The program.
    pub program: PathBuf,
    /// The arguments that make it a guard.
    pub arguments: Vec<OsString>,
}

/// What of our environment a plugin sees. Everything else may hold secrets.
pub const ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// A plugin's process below its guard. Dropping it kills everything.
pub(crate) struct Running {
    child: Child,
    leash: Leash,
}

/// The host's end of the guard's pipe.
pub(crate) struct Leash {
    pipe: Option<ChildStdin>,
    group: Option<Pid>,
}

impl Leash {
    /// SIGTERM to the plugin.
    pub(crate) async fn terminate(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            // A guard that does not listen has ended, and the plugin with it.
            let _ = pipe.write_all(b"T").await;
            let _ = pipe.flush().await;
        }
    }

    /// SIGKILL to the plugin and everything below it.
    pub(crate) fn kill(&mut self) {
        self.pipe = None;
    }
}

impl Running {
    /// Runs `program` below a guard, in a process group of its own.
    ///
    /// # Errors
    /// The guard could not be run.
    pub(crate) fn spawn(
        guard: &GuardProgram,
        folder: Option<&Path>,
        memory: u64,
        program: &Path,
        arguments: &[String],
        environment: &[String],
    ) -> std::io::Result<(Self, ChildStdout, ChildStderr)> {
        let mut command = Command::new(&guard.program);
        command.args(&guard.arguments);
        match folder {
            Some(folder) => command.arg(folder),
            None => command.arg("-"),
        };
        command.arg(memory.to_string()).arg(program).args(arguments).env_clear();
        let allowed = ENVIRONMENT.iter().copied().chain(environment.iter().map(String::as_str));
        for name in allowed {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let leash = Leash { pipe: child.stdin.take(), group };
        Ok((Self { child, leash }, stdout, stderr))
    }

    /// Takes it apart: whoever holds the leash holds its life, the other waits.
    pub(crate) fn split(self) -> (Waiting, Leash) {
        let group = self.leash.group;
        (Waiting { child: self.child, group }, self.leash)
    }
}

/// The end of a process, to be waited for.
pub(crate) struct Waiting {
    child: Child,
    group: Option<Pid>,
}

impl Waiting {
    /// Waits for guard and plugin to end; says how the plugin did.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = self.child.wait().await;
        // A guard that was killed could not do its work: its group is what we know.
        if status.as_ref().map_or(true, |status| status.code().is_none())
            && let Some(group) = self.group
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        Ended::of(status.ok())
    }
}

/// How a plugin's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// Its guard was killed, or is gone.
    Lost,
}

impl Ended {
    fn of(status: Option<ExitStatus>) -> Self {
        match status.and_then(|status| status.code()) {
            Some(code) if code > 128 && code < 128 + 65 => Self::Signal(code - 128),
            Some(code) => Self::Exit(code),
            None => Self::Lost,
        }
    }

    /// Whether it meant to end.
    pub(crate) fn clean(self) -> bool {
        self == Self::Exit(0)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "ended with exit status {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Lost => f.write_str("was lost with its guard"),
        }
    }
}
