//! One conversation with one device: login, modes, commands, configuration.
//!
//! ```no_run
//! # async fn example(transport: Box<dyn netpulse_session::transport::Transport>) -> Result<(), netpulse_session::SessionError> {
//! use netpulse_session::cli::{CommandOptions, Login, Session};
//! use netpulse_session::platform::Registry;
//!
//! let found = Registry::builtin().and_then(|r| r.find("cisco_ios"))
//!     .map_err(|e| netpulse_session::SessionError::new(netpulse_model::ErrorCode::UnknownPlatform, e.to_string()))?;
//! let login = Login { label: "192.0.2.1:22".into(), username: "ops".into(), ..Login::default() };
//! let mut session = Session::open(transport, found.platform, login).await?;
//! let output = session.command("show version", &CommandOptions::default()).await?;
//! println!("{}", output.into_text());
//! session.close().await;
//! # Ok(()) }
//! ```
//!
//! What it promises: a prompt counts only at the very end of what the device has sent, on a row
//! of its own, with the name that was learnt by asking twice. Cost is linear in the output. Every
//! wait has a deadline. Silence decides nothing where a text can; where it must (an unknown
//! question, a changed name), it is measured in round trips of this session.
//!
//! What it does not know: jobs, requests, how the bytes travel.

mod command;
mod config;
mod open;
mod prompt;
mod stream;
mod terminal;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::ErrorCode;
use tokio::time::Instant;

pub use command::{CommandOptions, Output};
pub use config::{ConfigOptions, ConfigReport, LineReport, LineState, Progress, Silent, config_lines};
pub use stream::Control;

use crate::SessionError;
use crate::platform::{Mode, Platform, Registry};
use stream::{Fill, Stream, Want};

/// Who logs in, and how much time each step may take.
#[derive(Clone)]
pub struct Login {
    /// `host:port`, for messages.
    pub label: String,
    /// The user name, where login is text.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The secret of the privileged mode; none: the password is not tried instead.
    pub secret: Option<String>,
    /// From connected to the first prompt.
    pub login_timeout: Duration,
    /// For each of the preparing commands and mode changes.
    pub step_timeout: Duration,
    /// Bytes of one answer.
    pub max_output: usize,
    /// Replaces the platform's line end.
    pub terminator: Option<String>,
    /// The platforms that this device may turn out to be; the built-in ones when none.
    pub registry: Option<Arc<Registry>>,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            label: String::new(),
            username: String::new(),
            password: String::new(),
            secret: None,
            login_timeout: Duration::from_secs(60),
            step_timeout: Duration::from_secs(15),
            max_output: 100 << 20,
            terminator: None,
            registry: None,
        }
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("label", &self.label)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// An open conversation, standing at a prompt between calls.
pub struct Session {
    stream: Stream,
    login: Login,
    mode: Mode,
    base: Mode,
    /// Why the session can serve nobody any more.
    broken: Option<String>,
    /// What the first answers said, for telling platforms apart.
    greeting: Vec<u8>,
    /// Output of a command that failed.
    partial: Vec<u8>,
}

impl Session {
    /// Which level the device is at.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Which level it was at after login.
    #[must_use]
    pub fn base_mode(&self) -> Mode {
        self.base
    }

    /// The last prompt, as text.
    #[must_use]
    pub fn prompt(&self) -> String {
        String::from_utf8_lossy(&self.stream.learnt.row).into_owned()
    }

    /// The platform, which may be another than the one opened with (a variant seen by its prompt).
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        &self.stream.platform
    }

    /// What the device said before its first prompt, at most 16 KiB.
    #[must_use]
    pub fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// What the carrier knows of the peer.
    pub fn remote_version(&mut self) -> String {
        self.stream.transport().remote_version().to_owned()
    }

    /// Who may stop what runs from now on.
    pub fn set_control(&mut self, control: Control) {
        self.stream.control = control;
    }

    /// Whether another command can be sent.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.broken.is_none() && !self.stream.has_ended()
    }

    /// What a failed command had printed until then. Taken once.
    pub fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Whether the device has closed the session meanwhile. Looks only at what has arrived.
    pub fn has_closed(&mut self) -> bool {
        self.stream.drop_stale();
        self.broken.is_some() || self.stream.has_ended()
    }

    /// Goes on as another platform, whose preparing commands are run: what was opened as an
    /// unknown device was recognised.
    ///
    /// # Errors
    /// `PromptNotFound` when its prompts look otherwise; `SessionLost`.
    pub async fn become_platform(&mut self, platform: Arc<Platform>) -> Result<(), SessionError> {
        self.check()?;
        self.stream.platform = platform;
        self.stream.learnt = prompt::Learnt::default();
        self.stream.echoes = None;
        // Prompts may have more lines than were looked at so far: they are learnt anew.
        let terminator = self.terminator();
        self.stream.drop_stale();
        self.stream.send(terminator.as_bytes()).await?;
        self.reach_prompt().await?;
        self.prepare().await
    }

    /// Closes at once, saying nothing more to the device.
    pub async fn abandon(&mut self) {
        self.broken.get_or_insert_with(|| "the session was closed".to_owned());
        self.stream.transport().close().await;
        self.stream.term.take();
    }

    /// Gives a sign of life (which also keeps the device's own idle timer from closing the
    /// line) and waits for the prompt to come back.
    ///
    /// # Errors
    /// `SessionLost` or `ReadTimeout`: the session is dead.
    pub async fn keepalive(&mut self) -> Result<(), SessionError> {
        self.check()?;
        let limit = Duration::from_secs(10);
        let alive = async {
            self.stream.drop_stale();
            self.stream.transport().probe(limit).await?;
            let terminator = self.terminator();
            self.stream.send_line("", &terminator).await?;
            self.stream.wait(&Want { cancel: false, ..Want::prompt(limit) }).await.map(|_| ())
        }
        .await;
        self.stream.term.take();
        if let Err(error) = &alive {
            self.broken = Some(error.message.clone());
        }
        alive
    }

    /// Resolves when the device closes the idle session. What it prints meanwhile is dropped.
    pub async fn closed(&mut self) {
        while self.stream.transport().recv().await.is_some() {}
        self.broken = Some(self.stream.lost().message);
    }

    /// Leaves politely, within two seconds, and closes.
    pub async fn close(&mut self) {
        let logout = self.stream.platform.logout().to_owned();
        if self.usable() && !logout.is_empty() && !self.stream.control.fence.is_cancelled() {
            let terminator = self.terminator();
            let until = Instant::now() + Duration::from_secs(2);
            self.stream.control = Control::default();
            if self.stream.send_line(&logout, &terminator).await.is_ok() {
                let mut again = true;
                while let Ok(Fill::Data { .. }) = self.stream.fill(until, false).await {
                    if Instant::now() >= until {
                        break;
                    }
                    // "Do you want to log out?"
                    match self.stream.answer(&[]).await {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err(_) => break,
                    }
                    // One level of several was left: once more.
                    if again && self.stream.prompt_hit().is_some() {
                        again = false;
                        if self.stream.send_line(&logout, &terminator).await.is_err() {
                            break;
                        }
                    }
                }
            }
        }
        self.broken.get_or_insert_with(|| "the session was closed".to_owned());
        self.stream.transport().close().await;
        self.stream.term.take();
    }

    fn terminator(&self) -> String {
        self.stream.terminator()
    }

    fn check(&self) -> Result<(), SessionError> {
        match &self.broken {
            Some(why) => Err(SessionError::new(
                ErrorCode::SessionLost,
                format!("{}: the session cannot be used any more: {why}", self.stream.label),
            )),
            None => Ok(()),
        }
    }
}
