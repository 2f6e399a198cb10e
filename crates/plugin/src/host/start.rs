//! One start of a plugin: its process, its socket, its end.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use netpulse_model::plugin::{CONTRACT, Capabilities, Health, StartConfig, StartForm};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::BufReader;
use tokio::process::ChildStdout;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::HostSettings;
use super::blame::{Ledger, Suspects};
use super::location::{self, Place};
use super::logs::{self, Voice};
use super::spawn::{Ended, Leash, Running};
use super::wire::{Answer, CallError, Location, Returning, Wire};

/// For a plugin that has said where it listens to answer there.
const HEALTH: Duration = Duration::from_secs(5);
/// How long only a location line counts, before the given place is tried.
const LINE_FIRST: Duration = Duration::from_millis(200);
/// For the end of a process whose connection broke, so that the error can say how it ended.
const AFTERMATH: Duration = Duration::from_millis(300);
/// For a plugin that let a call hang to show that it lives.
const PROBE: Duration = Duration::from_secs(2);

/// Why a start failed.
#[derive(Debug, Clone)]
pub(crate) struct StartError {
    /// A sentence without a subject.
    pub(crate) text: String,
    /// It ended at once, as a program does that does not know its arguments.
    pub(crate) refused: bool,
}

impl StartError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), refused: false }
    }
}

/// A plugin's process that runs, or ran.
pub(crate) struct Start {
    /// The start's id.
    pub(crate) id: String,
    pub(crate) voice: Arc<Voice>,
    /// Whether it said where it listens.
    pub(crate) said_where: bool,
    /// Where it listens.
    pub(crate) location: Location,
    wire: Wire,
    fate: Arc<Fate>,
    leash: tokio::sync::Mutex<Leash>,
    /// The calls that are to blame if it crashes now.
    pub(crate) suspects: Arc<Suspects>,
    /// It is to be killed: nobody is to begin anything with it.
    condemned: AtomicBool,
    stop_timeout: Duration,
    _folder: TempDir,
}

/// Whether and how a process has ended.
#[derive(Default)]
pub(crate) struct Fate {
    ended: CancellationToken,
    how: Mutex<Option<Ended>>,
}

impl Fate {
    /// Resolves when it has ended, with how.
    pub(crate) async fn ended(&self) -> Option<Ended> {
        self.ended.cancelled().await;
        self.how()
    }

    fn how(&self) -> Option<Ended> {
        *self.how.lock()
    }
}

/// What is started.
pub(crate) struct Plan<'a> {
    pub(crate) path: &'a Path,
    pub(crate) capabilities: &'a Capabilities,
    pub(crate) form: StartForm,
    /// The plugin's settings for `/configure`.
    pub(crate) settings: Option<&'a Value>,
    /// Where it is noted who brought it down.
    pub(crate) ledger: &'a Arc<Ledger>,
}

impl Start {
    /// Runs the plugin and brings it to where it takes calls.
    ///
    /// # Errors
    /// It did not come up; whatever of it ran is killed.
    pub(crate) async fn begin(plan: Plan<'_>, host: &HostSettings) -> Result<Arc<Self>, StartError> {
        let deadline = Instant::now() + host.start_timeout;
        let id = uuid::Uuid::now_v7().to_string();
        let folder = folder(&host.runtime_dir)?;
        let name = plan.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (given, token) = if host.tcp {
            (Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), Some(token(folder.path())?))
        } else {
            (Place::Unix(folder.path().join("plugin.sock")), None)
        };
        let config = StartConfig {
            id: name,
            start: id.clone(),
            kind: if host.tcp { "tcp" } else { "unix" }.to_owned(),
            location: match &given {
                Place::Unix(path) => path.display().to_string(),
                Place::Tcp(address) => address.to_string(),
            },
            token_file: token.as_ref().map(|_| folder.path().join("token").display().to_string()),
            idle_timeout: (!host.idle_timeout.is_zero())
                .then(|| Value::from(format!("{}ms", host.idle_timeout.as_millis()))),
            config: json!({}),
        };
        let config = serde_json::to_string(&config).map_err(|e| StartError::new(e.to_string()))?;
        let (running, stdout, stderr) = Running::spawn(
            &host.guard,
            Some(folder.path()),
            host.max_memory,
            plan.path,
            &plan.form.arguments(&config),
            &host.environment,
        )
        .map_err(|e| StartError::new(format!("cannot be run: {e}")))?;
        let (waiting, leash) = running.split();
        let voice = Voice::new(&plan.capabilities.id);
        let fate = Arc::new(Fate::default());
        let logs = tokio::spawn(logs::drain_stderr(BufReader::new(stderr), Arc::clone(&voice)));
        let (tell, mut told) = oneshot::channel();
        tokio::spawn(drain_stdout(stdout, given.clone(), tell, Arc::clone(&voice)));
        let suspects = Arc::new(Suspects::default());
        {
            let (fate, suspects, ledger) =
                (Arc::clone(&fate), Arc::clone(&suspects), Arc::clone(plan.ledger));
            tokio::spawn(async move {
                let how = waiting.ended().await;
                // Before anybody hears of it: whoever tries again at once is to find it noted.
                if !how.clean() {
                    suspects.blame(&ledger);
                }
                // Its last words are worth a moment; a descendant may hold the pipe for ever.
                let _ = tokio::time::timeout(logs::LAST_LINES, logs).await;
                *fate.how.lock() = Some(how);
                fate.ended.cancel();
            });
        }
        // From here on a failure drops the leash, and the guard ends everything.
        let died = |fate: &Fate| {
            let how = fate.how().map_or_else(|| "ended".to_owned(), |how| how.to_string());
            StartError {
                text: format!("{how} before it was ready{}", voice.last_words()),
                refused: !fate.how().is_some_and(Ended::clean),
            }
        };
        let late = || {
            let seconds = host.start_timeout.as_secs_f64();
            StartError::new(format!(
                "did not come up within {seconds} s (`plugin.start_timeout`): no location line, and nothing answers on \
                 the given location{}",
                voice.last_words()
            ))
        };
        let located = |place: &Place| match (place, &token) {
            (Place::Unix(path), _) => Location::Unix(path.clone()),
            (Place::Tcp(address), token) => Location::Tcp(*address, token.clone().unwrap_or_default()),
        };
        let wire = |location: &Location| Wire::new(location.clone(), id.clone(), host.max_answer);
        let given_wire = wire(&located(&given));
        let (location, said_where) = tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline.into()) => return Err(late()),
            line = &mut told => match line {
                Ok(Ok(place)) => (located(&place), true),
                Ok(Err(why)) => return Err(StartError::new(why)),
                // stdout closed without a line: only its own socket, or its end, can come now.
                Err(_closed) => tokio::select! {
                    biased;
                    () = fate.ended.cancelled() => return Err(died(&fate)),
                    () = tokio::time::sleep_until(deadline.into()) => return Err(late()),
                    () = answers(&given_wire, &given) => (located(&given), false),
                },
            },
            () = fate.ended.cancelled() => return Err(died(&fate)),
            () = answers(&given_wire, &given) => (located(&given), false),
        };
        let wire = wire(&location);
        let start = Arc::new(Self {
            id,
            said_where,
            location,
            voice: Arc::clone(&voice),
            wire,
            fate: Arc::clone(&fate),
            leash: tokio::sync::Mutex::new(leash),
            suspects,
            condemned: AtomicBool::new(false),
            stop_timeout: host.stop_timeout,
            _folder: folder,
        });
        start.greet(plan, deadline.min(Instant::now() + HEALTH)).await?;
        if token.is_some()
            && let Err(error) = std::fs::remove_file(start._folder.path().join("token"))
        {
            tracing::debug!(plugin = voice.id, %error, "the token's file was gone");
        }
        Ok(start)
    }

    /// Health, identity, settings.
    async fn greet(&self, plan: Plan<'_>, deadline: Instant) -> Result<(), StartError> {
        let mut pause = Duration::from_millis(5);
        let health = loop {
            match self.exchange(Method::GET, "/healthz", Vec::new(), deadline).await {
                Ok(health) => break health,
                // It says where it listens before it does.
                Err(CallError::NotSent(_)) if Instant::now() + pause < deadline && !self.has_ended() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                Err(error) => {
                    return Err(StartError::new(format!(
                        "is not healthy: {}{}",
                        error.reason(),
                        self.aftermath().await
                    )));
                }
            }
        };
        let capabilities = plan.capabilities;
        let health: Health = serde_json::from_slice(&health)
            .map_err(|e| StartError::new(format!("answered /healthz with something else than JSON: {e}")))?;
        contract(&health.contract).map_err(StartError::new)?;
        if (&health.id, &health.version) != (&capabilities.id, &capabilities.version) {
            return Err(StartError::new(format!(
                "says that it is `{}` {}, and its capabilities said `{}` {}: it was stopped",
                health.id, health.version, capabilities.id, capabilities.version
            )));
        }
        let takes = capabilities.features.iter().any(|f| f == "configure");
        match (plan.settings, takes) {
            (Some(_), false) => Err(StartError::new(
                "has settings (`plugin.config`) but takes none: it lacks the feature `configure`",
            )),
            (None, false) => Ok(()),
            (settings, true) => {
                let settings = settings.cloned().unwrap_or_else(|| json!({}));
                // A setting may be a secret whatever it is called.
                self.voice.secrets.add(texts(&settings));
                let body = serde_json::to_vec(&json!({"config": settings})).unwrap_or_default();
                self.exchange(Method::POST, "/configure", body, deadline).await.map(|_| ()).map_err(|error| {
                    StartError::new(format!(
                        "refuses its settings: {}",
                        self.voice.secrets.clean(&error.reason())
                    ))
                })
            }
        }
    }

    /// One request and its whole answer.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let (mut answer, returning) = self.open(method, path, body, deadline, false).await?;
        let bytes = self.whole(&mut answer).await?;
        self.wire.keep(returning);
        Ok(bytes)
    }

    /// One request and the head of its answer.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        deadline: Instant,
        stream: bool,
    ) -> Result<(Answer, Returning), CallError> {
        if self.has_ended() {
            return Err(CallError::NotSent(self.end_text()));
        }
        match self.unless_ended(self.wire.send(method, path, body, deadline, stream)).await {
            Ok(open) => Ok(open),
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// What `work` gives, or that the process ended under it.
    async fn unless_ended<T>(
        &self,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.fate.ended.cancelled() => Err(CallError::Lost(self.end_text())),
        }
    }

    /// The rest of an answer.
    pub(crate) async fn whole(&self, answer: &mut Answer) -> Result<Bytes, CallError> {
        match self.unless_ended(answer.whole()).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// The next line of a streamed answer.
    pub(crate) async fn line(&self, answer: &mut Answer) -> Result<Option<Bytes>, CallError> {
        match self.unless_ended(answer.line()).await {
            Ok(line) => Ok(line),
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// Gives a connection back whose answer was read to its end.
    pub(crate) fn keep(&self, returning: Returning) {
        self.wire.keep(returning);
    }

    /// The error, with how the process ended if it did, and without secrets.
    async fn explained(&self, error: CallError) -> CallError {
        let clean = |text: String| self.voice.secrets.clean(&text);
        match error {
            CallError::Lost(text) if !text.contains("ended") => {
                CallError::Lost(clean(format!("{text}{}", self.aftermath().await)))
            }
            CallError::NotSent(text) if !self.has_ended() => {
                CallError::NotSent(clean(format!("{text}{}", self.aftermath().await)))
            }
            CallError::Refused { status, code, text } => {
                CallError::Refused { status, code, text: clean(text) }
            }
            other => other,
        }
    }

    /// How the process ended, if it does so within a moment.
    async fn aftermath(&self) -> String {
        let _ = tokio::time::timeout(AFTERMATH, self.fate.ended.cancelled()).await;
        match self.fate.how() {
            Some(how) => format!("; it {how}{}", self.voice.last_words()),
            None => String::new(),
        }
    }

    fn end_text(&self) -> String {
        let how = self.fate.how().map_or_else(|| "ended".to_owned(), |how| how.to_string());
        format!("{how}{}", self.voice.last_words())
    }

    /// Whether the process is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.fate.ended.is_cancelled()
    }

    /// Resolves when the process is gone.
    pub(crate) async fn ended(&self) {
        self.fate.ended.cancelled().await;
    }

    /// Its end, to be waited for without keeping it alive.
    pub(crate) fn fate(&self) -> Arc<Fate> {
        Arc::clone(&self.fate)
    }

    /// How it ended.
    pub(crate) fn how(&self) -> Option<Ended> {
        self.fate.how()
    }

    /// SIGTERM.
    pub(crate) async fn terminate(&self) {
        self.leash.lock().await.terminate().await;
    }

    /// From now on nobody begins anything with it: it is about to be killed.
    pub(crate) fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
    }

    /// Whether calls may begin: it runs, and is not about to be killed.
    pub(crate) fn serves(&self) -> bool {
        !self.has_ended() && !self.condemned.load(Ordering::Acquire)
    }

    /// Kills it, and everything below it.
    pub(crate) async fn kill(&self) {
        self.condemn();
        self.leash.lock().await.kill();
    }

    /// Asks a plugin that let a call hang whether it lives; kills it when it does not answer.
    pub(crate) async fn probe(&self) {
        let answer = self.exchange(Method::GET, "/healthz", Vec::new(), Instant::now() + PROBE).await;
        if let (Err(error), false) = (answer, self.has_ended()) {
            tracing::warn!(target: "plugin", plugin = self.voice.id, "hangs and is killed: {}", error.reason());
            self.kill().await;
        }
    }

    /// Ends it: asks, then SIGTERM, then SIGKILL; at most three times the stop timeout.
    pub(crate) async fn stop(&self) {
        if self.has_ended() {
            return;
        }
        let asked = Instant::now() + self.stop_timeout;
        let refused = self.exchange(Method::POST, "/shutdown", b"{}".to_vec(), asked).await.err();
        if refused.is_none() && tokio::time::timeout_at(asked.into(), self.ended()).await.is_ok() {
            return;
        }
        if !self.has_ended() {
            tracing::debug!(plugin = self.voice.id, "did not end when asked; SIGTERM");
            self.leash.lock().await.terminate().await;
            if tokio::time::timeout(self.stop_timeout, self.ended()).await.is_err() {
                tracing::warn!(target: "plugin", plugin = self.voice.id, "did not end on SIGTERM and is killed");
                self.kill().await;
                if tokio::time::timeout(self.stop_timeout, self.ended()).await.is_err() {
                    tracing::error!(target: "plugin", plugin = self.voice.id, "cannot be killed");
                }
            }
        }
    }
}

/// Whether `contract` is one that we speak.
///
/// # Errors
/// A sentence that names both.
pub(crate) fn contract(contract: &str) -> Result<(), String> {
    let same =
        contract == CONTRACT || contract.strip_prefix(CONTRACT).is_some_and(|rest| rest.starts_with('.'));
    if same {
        return Ok(());
    }
    if contract.is_empty() {
        return Err(format!("names no contract; NetPulse speaks `{CONTRACT}`"));
    }
    Err(format!("speaks the contract `{contract}`, and this NetPulse speaks `{CONTRACT}`"))
}

/// Every text in a value.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.len() >= 4 => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn folder(below: &Path) -> Result<TempDir, StartError> {
    tempfile::Builder::new()
        .prefix("np-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(below)
        .map_err(|e| StartError::new(format!("cannot be started: no folder below {}: {e}", below.display())))
}

fn token(folder: &Path) -> Result<Zeroizing<String>, StartError> {
    let wrong =
        |e: std::io::Error| StartError::new(format!("cannot be started: its token cannot be written: {e}"));
    let token = Zeroizing::new(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join("token"))
        .map_err(wrong)?;
    writeln!(file, "{}", token.as_str()).map_err(wrong)?;
    Ok(token)
}

/// Resolves when the given place answers; never for one that only the plugin knows.
async fn answers(wire: &Wire, given: &Place) {
    if matches!(given, Place::Tcp(_)) {
        return std::future::pending().await;
    }
    let mut pause = LINE_FIRST;
    loop {
        // No file tells when a socket is bound without its plugin saying so.
        tokio::time::sleep(pause).await;
        let tried = wire.send(Method::GET, "/healthz", Vec::new(), Instant::now() + PROBE, false).await;
        if !matches!(tried, Err(CallError::NotSent(_) | CallError::Late(_))) {
            return;
        }
        pause = Duration::from_millis(50);
    }
}

/// Reads stdout for the plugin's whole life: the first location line is told, all else dropped.
async fn drain_stdout(
    stdout: ChildStdout,
    given: Place,
    tell: oneshot::Sender<Result<Place, String>>,
    voice: Arc<Voice>,
) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut tell = Some(tell);
    loop {
        match logs::next_line(&mut reader, &mut line).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(plugin = voice.id, %error, "stdout ended");
                break;
            }
        }
        if tell.is_none() {
            continue;
        }
        if let Some(place) = location::read(&String::from_utf8_lossy(&line), &given)
            && let Some(tell) = tell.take()
        {
            // A start that has failed meanwhile does not listen.
            let _ = tell.send(place);
        }
    }
}
