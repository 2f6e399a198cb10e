//! One command on an SSH connection: streams apart, exit status, bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netpulse_model::ErrorCode;
use parking_lot::Mutex;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::SshConnection;
use crate::error::SessionError;
use crate::transport::Pty;

/// How long a command's streams may stay open, silent, after its exit status has come: a program
/// it left in the background holds them.
const LINGER: Duration = Duration::from_secs(3);

/// A command to run.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The command, for the user's login shell.
    pub command: String,
    /// A terminal for it; both streams are one then.
    pub pty: Option<Pty>,
    /// Variables that the SSH server is asked to set; most servers take only those they are
    /// configured for, so callers that need them write them into the command.
    pub environment: Vec<(String, String)>,
    /// Bytes kept of standard output and of standard error, each.
    pub limit: usize,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(u32),
    /// By a signal: its name without `SIG`.
    Signal(String),
    /// The channel closed and nothing was said.
    Unknown,
}

/// Which stream passed its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a command has said so far.
#[derive(Debug, Clone, Default)]
pub struct ExecOutput {
    /// Standard output; everything when there is a terminal.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// A stream that passed its bound; what came after was dropped.
    pub overflow: Option<Overflow>,
    /// How it ended, when it has.
    pub exit: Option<Exit>,
}

/// How far a command is. Counts up with every piece of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    pieces: u64,
    overflow: bool,
    done: bool,
}

/// A command that runs.
pub struct Exec {
    connection: SshConnection,
    write: ChannelWriteHalf<Msg>,
    output: Arc<Mutex<ExecOutput>>,
    progress: watch::Receiver<Progress>,
    has_terminal: bool,
}

/// A command that was not started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct NotStarted {
    /// Why.
    pub error: SessionError,
    /// Whether the request to start it was sent, so that it may run all the same.
    pub may_run: bool,
}

impl From<NotStarted> for SessionError {
    fn from(failed: NotStarted) -> Self {
        failed.error
    }
}

impl SshConnection {
    /// Starts a command.
    ///
    /// # Errors
    /// `HandshakeFailed`, when the server does not start it within `deadline`; `SessionLost`.
    pub async fn exec(&self, options: &ExecOptions, deadline: Duration) -> Result<Exec, NotStarted> {
        let end = Instant::now() + deadline;
        let channel = match self.open_channel(deadline).await {
            Ok(channel) => channel,
            Err(error) => return Err(NotStarted { error, may_run: false }),
        };
        let maybe = |error| NotStarted { error, may_run: true };
        let refused = |error| NotStarted { error, may_run: false };
        let (mut read, write) = channel.split();
        let mut output = ExecOutput::default();
        let starting = async {
            let lost = |error: russh::Error| maybe(self.lost(&self.why(&error.to_string())));
            for (name, value) in &options.environment {
                write.set_env(false, name.as_str(), value.as_str()).await.map_err(lost)?;
            }
            let mut waiting = 1;
            if let Some(pty) = &options.pty {
                waiting += 1;
                write
                    .request_pty(true, &pty.term, u32::from(pty.width), u32::from(pty.height), 0, 0, &[])
                    .await
                    .map_err(lost)?;
            }
            write.exec(true, options.command.as_str()).await.map_err(lost)?;
            while waiting > 0 {
                match read.wait().await {
                    Some(ChannelMsg::Success) => waiting -= 1,
                    Some(ChannelMsg::Failure) => {
                        let what = if waiting == 2 { "gives no terminal" } else { "runs no commands" };
                        return Err(refused(SessionError::new(
                            ErrorCode::HandshakeFailed,
                            format!("{} {what} for this user", self.place()),
                        )));
                    }
                    Some(ChannelMsg::Close) | None => {
                        let why = self.why("the device closed the channel before the command started");
                        return Err(maybe(self.lost(&why)));
                    }
                    Some(message) => {
                        let _ended = take(message, &mut output, options.limit);
                    }
                }
            }
            Ok(())
        };
        match timeout_at(end, starting).await {
            Ok(started) => started?,
            Err(_) => {
                return Err(maybe(SessionError::new(
                    ErrorCode::HandshakeFailed,
                    format!("{} started no command within {} s", self.place(), deadline.as_secs_f32()),
                )));
            }
        }
        let output = Arc::new(Mutex::new(output));
        let (tell, progress) = watch::channel(Progress::default());
        tokio::spawn(drain(read, Arc::clone(&output), tell, options.limit));
        Ok(Exec { connection: self.clone(), write, output, progress, has_terminal: options.pty.is_some() })
    }
}

/// Takes one message; true when nothing can follow.
fn take(message: ChannelMsg, output: &mut ExecOutput, limit: usize) -> bool {
    let (stream, data, which) = match message {
        ChannelMsg::Data { data } => (&mut output.stdout, data, Overflow::Stdout),
        ChannelMsg::ExtendedData { data, .. } => (&mut output.stderr, data, Overflow::Stderr),
        ChannelMsg::ExitStatus { exit_status } => {
            output.exit = Some(Exit::Status(exit_status));
            return false;
        }
        ChannelMsg::ExitSignal { signal_name, .. } => {
            let name = match signal_name {
                Sig::Custom(name) => name,
                known => format!("{known:?}"),
            };
            output.exit = Some(Exit::Signal(name));
            return false;
        }
        ChannelMsg::Close => return true,
        _ => return false,
    };
    let room = limit.saturating_sub(stream.len());
    stream.extend_from_slice(&data[..data.len().min(room)]);
    if data.len() > room {
        output.overflow.get_or_insert(which);
    }
    false
}

/// Takes all that the command says, always: what is over the bound is dropped, so that nothing
/// ever waits for a reader.
async fn drain(
    mut read: ChannelReadHalf,
    output: Arc<Mutex<ExecOutput>>,
    tell: watch::Sender<Progress>,
    limit: usize,
) {
    loop {
        let exited = output.lock().exit.is_some();
        let message =
            if exited { timeout(LINGER, read.wait()).await.unwrap_or_default() } else { read.wait().await };
        let done = match message {
            Some(ChannelMsg::Eof) => output.lock().exit.is_some(),
            Some(message) => take(message, &mut output.lock(), limit),
            None => true,
        };
        let overflow = output.lock().overflow.is_some();
        if done {
            output.lock().exit.get_or_insert(Exit::Unknown);
        }
        tell.send_modify(|progress| {
            progress.pieces += 1;
            progress.overflow = overflow;
            progress.done = done;
        });
        if done {
            return;
        }
    }
}

impl Exec {
    /// Writes to the command's standard input.
    ///
    /// # Errors
    /// `SessionLost`; `ReadTimeout` when the command does not read within `deadline`.
    pub async fn write(&self, data: &[u8], deadline: Duration) -> Result<(), SessionError> {
        match timeout(deadline, self.write.data_bytes(Bytes::copy_from_slice(data))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.connection.lost(&self.connection.why(&error.to_string()))),
            Err(_) => Err(SessionError::new(
                ErrorCode::ReadTimeout,
                format!(
                    "the command on {} read no input for {} s",
                    self.connection.place(),
                    deadline.as_secs_f32()
                ),
            )),
        }
    }

    /// Ends the command's standard input.
    ///
    /// # Errors
    /// `SessionLost`.
    pub async fn end_input(&self) -> Result<(), SessionError> {
        self.write.eof().await.map_err(|error| self.connection.lost(&self.connection.why(&error.to_string())))
    }

    /// Waits until the command has ended or a stream passed its bound; false when neither
    /// happened within `deadline`. Safe to drop.
    pub async fn ended(&mut self, deadline: Duration) -> bool {
        matches!(timeout(deadline, self.progress.wait_for(|p| p.done || p.overflow)).await, Ok(Ok(_)))
    }

    /// Waits for more output, or the end. Safe to drop.
    pub async fn more(&mut self) {
        let _ended = self.progress.changed().await.is_err();
    }

    /// What was said so far.
    pub fn peek<T>(&self, look: impl FnOnce(&ExecOutput) -> T) -> T {
        look(&self.output.lock())
    }

    /// Whether the command ended by itself, and all it said is here.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.progress.borrow().done
    }

    /// Why the connection under it ended, when it has.
    #[must_use]
    pub fn connection_lost(&self) -> Option<SessionError> {
        self.connection.end_reason().map(|why| self.connection.lost(&why))
    }

    /// Takes what was said.
    #[must_use]
    pub fn take_output(&self) -> ExecOutput {
        std::mem::take(&mut self.output.lock())
    }

    /// Asks the command to stop: by a signal, and by Ctrl-C where it has a terminal. Waits up to
    /// `patience` for its end; true when it has ended. OpenSSH does not pass signals on for root.
    pub async fn interrupt(&mut self, patience: Duration) -> bool {
        let told = async {
            let signalled = self.write.signal(Sig::TERM).await;
            if self.has_terminal {
                return self.write.data_bytes(Bytes::from_static(b"\x03")).await.and(signalled);
            }
            signalled
        };
        // A request that does not arrive shows in the command's not ending.
        let _unheard = timeout(Duration::from_secs(1), told).await.is_err();
        matches!(timeout(patience, self.progress.wait_for(|p| p.done)).await, Ok(Ok(_)))
    }

    /// Closes the channel: a command with a terminal is hung up, one that writes gets a broken pipe.
    pub async fn close(&mut self) {
        let _unheard = timeout(Duration::from_secs(1), self.write.close()).await.is_err();
    }
}
