//! One plugin file: started at first use, once for all its capabilities, started again after an
//! idle exit or a crash, within limits.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;
use netpulse_model::plugin::{Capabilities, StartForm};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::HostSettings;
use super::blame::{Errand, Ledger, Suspects};
use super::start::{Plan, Start, StartError};
use super::wire::CallError;

/// In which [`STARTS`] may be.
const WINDOW: Duration = Duration::from_secs(60);
/// Starts after a crash, in any window.
const STARTS: usize = 3;
/// Before the second start after a crash in one window.
const PAUSE: Duration = Duration::from_secs(1);

/// Remembers which start form worked.
pub(crate) type Learned = Arc<dyn Fn(&std::path::Path, StartForm) + Send + Sync>;

/// Finds the secrets in an answer.
pub(crate) type SecretsOf<T> = dyn Fn(&T) -> Vec<String> + Sync;

/// How a program is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Condition {
    /// Not started, or ended idle.
    #[default]
    Declared,
    /// Runs.
    Started,
    /// Its last start failed, or it crashed.
    Failed,
}

/// A plugin file and its process.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) capabilities: Arc<Capabilities>,
    settings: Option<Value>,
    host: Arc<HostSettings>,
    form: Mutex<Option<StartForm>>,
    learned: Option<Learned>,
    current: RwLock<Option<Arc<Start>>>,
    slot: Arc<tokio::sync::Mutex<Slot>>,
    failure: Mutex<Option<String>>,
    users: TaskTracker,
    starts: AtomicU64,
    ledger: Arc<Ledger>,
}

/// What is known of earlier starts.
#[derive(Default)]
struct Slot {
    /// Begins of the starts of the last [`WINDOW`] that were not after an idle exit.
    recent: VecDeque<Instant>,
    /// When the last one failed, and why: whoever waited for it gets the same answer.
    failed: Option<(Instant, String)>,
    stopped: bool,
}

impl Program {
    pub(crate) fn new(
        path: PathBuf,
        capabilities: Arc<Capabilities>,
        form: Option<StartForm>,
        settings: Option<Value>,
        host: Arc<HostSettings>,
        learned: Option<Learned>,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            form: Mutex::new(capabilities.start.or(form)),
            capabilities,
            settings,
            host,
            learned,
            current: RwLock::default(),
            slot: Arc::default(),
            failure: Mutex::default(),
            users: TaskTracker::new(),
            starts: AtomicU64::new(0),
            ledger: Arc::default(),
        })
    }

    /// The settings of the host.
    pub(crate) fn host(&self) -> &HostSettings {
        &self.host
    }

    /// The plugin's settings.
    pub(crate) fn settings(&self) -> Option<&Value> {
        self.settings.as_ref()
    }

    /// How it is doing, and why its last start failed.
    pub(crate) fn condition(&self) -> (Condition, Option<String>) {
        let failure = self.failure.lock().clone();
        if let Some(start) = &*self.current.read() {
            match start.how() {
                None => return (Condition::Started, failure),
                Some(how) if !how.clean() => {
                    return (Condition::Failed, failure.or_else(|| Some(format!("it {how}"))));
                }
                Some(_) => {}
            }
        }
        (if failure.is_some() { Condition::Failed } else { Condition::Declared }, failure)
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Who brought it down.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keeps a program that left the registry running until its last user is gone.
    pub(crate) fn user(&self) -> TaskTrackerToken {
        self.users.token()
    }

    /// The process, started if need be. Callers at the same time share one start and its failure.
    pub(crate) async fn running(self: &Arc<Self>) -> Result<Arc<Start>, CallError> {
        if let Some(start) = self.alive() {
            return Ok(start);
        }
        let this = Arc::clone(self);
        let asked = Instant::now();
        // The start goes on when this caller gives up: the next one finds it done.
        let started = tokio::spawn(async move { this.start(asked).await });
        match started.await {
            Ok(answer) => answer.map_err(CallError::NotSent),
            Err(error) => Err(CallError::NotSent(format!("could not be started: {error}"))),
        }
    }

    fn alive(&self) -> Option<Arc<Start>> {
        self.current.read().as_ref().filter(|start| start.serves()).cloned()
    }

    async fn start(self: &Arc<Self>, asked: Instant) -> Result<Arc<Start>, String> {
        let mut slot = self.slot.lock().await;
        if let Some(start) = self.alive() {
            return Ok(start);
        }
        if slot.stopped {
            return Err("is not started any more: NetPulse is stopping".to_owned());
        }
        if let Some((at, why)) = &slot.failed
            && *at >= asked
        {
            return Err(why.clone());
        }
        let condemned = self.current.read().clone().filter(|start| !start.has_ended());
        if let Some(old) = condemned {
            // Never two at a time: the one that was found out is gone before the next begins.
            old.kill().await;
            let _ = tokio::time::timeout(self.host.stop_timeout, old.ended()).await;
        }
        let idle = self.current.read().as_ref().and_then(|start| start.how()).is_some_and(|how| how.clean());
        if !idle {
            self.hold_back(&mut slot).await?;
        }
        match self.try_forms().await {
            Ok(start) => {
                slot.failed = None;
                *self.failure.lock() = None;
                *self.current.write() = Some(Arc::clone(&start));
                self.starts.fetch_add(1, Ordering::Relaxed);
                tracing::info!(target: "plugin", plugin = self.capabilities.id, file = %self.path.display(), "started");
                self.watch(&start);
                Ok(start)
            }
            Err(error) => {
                tracing::warn!(target: "plugin", plugin = self.capabilities.id, file = %self.path.display(), "{}", error.text);
                slot.failed = Some((Instant::now(), error.text.clone()));
                *self.failure.lock() = Some(error.text.clone());
                Err(error.text)
            }
        }
    }

    /// Says in the log how the start ended. Holds nothing that keeps the process alive.
    fn watch(self: &Arc<Self>, start: &Arc<Start>) {
        let (id, weak) = (self.capabilities.id.clone(), Arc::downgrade(self));
        let (fate, voice) = (start.fate(), Arc::clone(&start.voice));
        tokio::spawn(async move {
            match fate.ended().await {
                Some(how) if how.clean() => {
                    tracing::info!(target: "plugin", plugin = id, "ended; the next call starts it again");
                }
                Some(how) => {
                    let text = format!("{how}{}", voice.last_words());
                    tracing::warn!(target: "plugin", plugin = id, "{text}; the next call starts it again");
                    if let Some(program) = weak.upgrade() {
                        *program.failure.lock() = Some(text);
                    }
                }
                None => {}
            }
        });
    }

    /// Waits, or refuses, so that a plugin that crashes is not started over and over.
    async fn hold_back(&self, slot: &mut Slot) -> Result<(), String> {
        let now = Instant::now();
        while slot.recent.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            slot.recent.pop_front();
        }
        if let (true, Some(first)) = (slot.recent.len() >= STARTS, slot.recent.front()) {
            let left = WINDOW.saturating_sub(now.duration_since(*first)).as_secs() + 1;
            let why = self.failure.lock().clone().map(|why| format!(" (it {why})")).unwrap_or_default();
            return Err(format!(
                "was started {STARTS} times within {} s and failed each time{why}; it is started again in {left} s at the earliest",
                WINDOW.as_secs()
            ));
        }
        if slot.recent.len() == STARTS - 1
            && let Some(last) = slot.recent.back()
        {
            tokio::time::sleep_until((*last + PAUSE).into()).await;
        }
        slot.recent.push_back(Instant::now());
        Ok(())
    }

    async fn try_forms(&self) -> Result<Arc<Start>, StartError> {
        let known = *self.form.lock();
        let forms: Vec<StartForm> = known.map_or_else(|| StartForm::ALL.to_vec(), |form| vec![form]);
        let mut last = StartError { text: "has no start form".to_owned(), refused: false };
        for form in forms {
            let plan = Plan {
                path: &self.path,
                capabilities: &self.capabilities,
                form,
                settings: self.settings.as_ref(),
                ledger: &self.ledger,
            };
            match Start::begin(plan, &self.host).await {
                Ok(start) => {
                    if known.is_none() {
                        *self.form.lock() = Some(form);
                        if let Some(learned) = &self.learned {
                            learned(&self.path, form);
                        }
                    }
                    return Ok(start);
                }
                Err(error) => {
                    let go_on = error.refused && known.is_none();
                    last = error;
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Whether it may be asked this: not what brought it down a moment ago.
    pub(crate) fn admit(&self, errand: &Errand) -> Result<(), CallError> {
        self.ledger.admit(errand, Instant::now()).map_err(CallError::NotSent)
    }

    /// One call on whatever start runs: started if need be, and once more when the plugin had
    /// left without ever seeing the request.
    pub(crate) async fn call<T: DeserializeOwned>(
        self: &Arc<Self>,
        path: &str,
        body: &impl Serialize,
        deadline: Instant,
        secrets: Vec<String>,
        errand: &Errand,
    ) -> Result<T, CallError> {
        self.call_for(path, body, deadline, secrets, errand, None).await
    }

    /// As [`Program::call`]; `found` says what of the answer is secret. Until that is known, nothing
    /// of the plugin's log is passed on.
    pub(crate) async fn call_for<T: DeserializeOwned>(
        self: &Arc<Self>,
        path: &str,
        body: &impl Serialize,
        deadline: Instant,
        secrets: Vec<String>,
        errand: &Errand,
        found: Option<&SecretsOf<T>>,
    ) -> Result<T, CallError> {
        self.admit(errand)?;
        let _user = self.user();
        let mut again = true;
        loop {
            let start = tokio::time::timeout_at(deadline.into(), self.running())
                .await
                .map_err(|_| CallError::NotSent("was not ready in time".to_owned()))??;
            let hush = found.map(|_| start.voice.hush());
            let answer = self.call_on(&start, path, body, deadline, secrets.clone(), errand).await;
            if let (Some(found), Ok(answer)) = (found, &answer) {
                start.voice.secrets.add(found(answer));
            }
            drop(hush);
            match answer {
                Err(CallError::NotSent(_)) if again && start.has_ended() => again = false,
                other => return other,
            }
        }
    }

    /// One call on this very start.
    pub(crate) async fn call_on<T: DeserializeOwned>(
        self: &Arc<Self>,
        start: &Arc<Start>,
        path: &str,
        body: &impl Serialize,
        deadline: Instant,
        secrets: Vec<String>,
        errand: &Errand,
    ) -> Result<T, CallError> {
        self.admit(errand)?;
        start.voice.secrets.add(secrets);
        let body = serde_json::to_vec(body)
            .map_err(|e| CallError::NotSent(format!("cannot be asked: the request is no JSON: {e}")))?;
        let unanswered = Unanswered::new(start, &self.ledger, errand);
        let answer = start.exchange(Method::POST, path, body, deadline).await;
        unanswered.settle(&answer);
        let bytes = answer?;
        serde_json::from_slice(&bytes).map_err(|e| {
            CallError::Nonsense(format!("answered {path} with something else than the contract says: {e}"))
        })
    }

    /// Ends its process for good.
    pub(crate) async fn stop(&self) {
        self.slot.lock().await.stopped = true;
        let start = self.current.write().take();
        if let Some(start) = start {
            start.stop().await;
        }
    }

    /// Ends its process when nobody uses it any more.
    pub(crate) async fn retire(&self) {
        self.users.close();
        self.users.wait().await;
        self.stop().await;
    }
}

/// A call on its way. One that is given up, or too late, makes us look whether the plugin lives;
/// one whose answer is a lie ends it. If it crashes meanwhile, the call is suspected.
pub(crate) struct Unanswered<'a> {
    start: Option<&'a Arc<Start>>,
    suspects: &'a Suspects,
    ledger: &'a Ledger,
    number: u64,
}

impl<'a> Unanswered<'a> {
    pub(crate) fn new(start: &'a Arc<Start>, ledger: &'a Ledger, errand: &Errand) -> Self {
        let suspects = &*start.suspects;
        Self { start: Some(start), suspects, ledger, number: suspects.begin(errand.clone()) }
    }

    /// The call came to an end.
    pub(crate) fn settle<T>(mut self, answer: &Result<T, CallError>) {
        match answer {
            Ok(_) | Err(CallError::Refused { .. } | CallError::NotSent(_)) => {
                if let (Some(errand), false) =
                    (self.suspects.answered(self.number), matches!(answer, Err(CallError::NotSent(_))))
                {
                    self.ledger.clear(&errand);
                }
                self.start = None;
            }
            Err(CallError::Late(_)) => {}
            Err(CallError::Nonsense(why))
                if why.starts_with("answered for") || why.starts_with("answered request") =>
            {
                if let Some(start) = self.start.take().cloned() {
                    tracing::warn!(target: "plugin", plugin = start.voice.id, "{why}; it is killed");
                    start.condemn();
                    tokio::spawn(async move { start.kill().await });
                }
            }
            // It lived to answer, whatever it said.
            Err(CallError::Nonsense(_)) => {
                self.suspects.answered(self.number);
                self.start = None;
            }
            Err(CallError::Lost(_)) => self.start = None,
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        // Of one that was answered nothing is left to note.
        self.suspects.left(self.number);
        if let (Some(start), Ok(runtime)) =
            (self.start.take().cloned(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move { start.probe().await });
        }
    }
}
