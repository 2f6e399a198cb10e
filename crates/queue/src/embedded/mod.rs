//! The engine for one machine: a state machine in memory, SQLite as the durable truth below it.
//!
//! Everything is decided at once in [`crate::core`]; what has to survive goes to one writer thread,
//! which commits whatever waits as one transaction. A submit, a modification's start and its end
//! are answered after that commit. A query's start and end are written behind: a crash between
//! costs nothing but running the query again. Recent ends are read from memory, older ones from
//! SQLite by read-only connections on threads that may block.

mod cache;
mod engine;
mod follow;
mod outbox;
mod store;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use netpulse_model::worker::WorkerRecord;
use netpulse_model::{Job, JobId, JobStatus, Timestamp};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use crate::api::{JobCounts, NodeName, QueueError, Signal};
use crate::clock::{Clock, Moment};
use crate::core::{Core, Effect, Record, Rules, Sealed};
use crate::events::{Events, RingSize};
use crate::seal::{Keyring, SealError};
use cache::Cache;
use writer::{Condition, Done, Task, Work, Writer};

pub use writer::Faults;

/// Bounds, lifetimes and sizes of an embedded store.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a device lease lasts unrenewed.
    pub lease: Duration,
    /// Jobs waiting at a time, over all queues.
    pub max_queued: usize,
    /// Jobs waiting at a time for one device.
    pub max_queued_per_device: usize,
    /// Messages of the outbox at a time, and jobs that will make one.
    pub max_outbox: usize,
    /// Bytes of results kept in memory for fast reads.
    pub result_cache: usize,
    /// Bytes of sealed requests of waiting jobs kept in memory; more are read back from disk when
    /// their turn comes.
    pub payload_memory: usize,
    /// How many events are kept for watchers, and how many bytes of them.
    pub events: RingSize,
    /// How long the outcome of a modification is kept.
    pub audit_retention: Duration,
    /// How long a canceled job is kept.
    pub canceled_ttl: Duration,
    /// The longest wait for the disk before a call answers that the store is unavailable.
    pub deadline: Duration,
    /// The clock; tests push it forward.
    pub clock: Clock,
    /// Faults that tests put in the way.
    pub faults: Arc<Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            max_queued: 100_000,
            max_queued_per_device: 1_000,
            max_outbox: 100_000,
            result_cache: 32 << 20,
            payload_memory: 64 << 20,
            events: RingSize { events: 50_000, bytes: 16 << 20 },
            audit_retention: Duration::from_secs(30 * 24 * 3600),
            canceled_ttl: Duration::from_secs(1800),
            deadline: Duration::from_secs(30),
            clock: Clock::default(),
            faults: Arc::default(),
        }
    }
}

/// Why a store could not be opened. Each says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store in `{folder}` is in use by process {pid}: one store serves one server; stop that \
         process, or give this one a folder of its own"
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process, as it wrote itself down.
        pid: String,
    },
    /// The folder or a file in it cannot be made, read or locked.
    #[error("the store's `{path}` cannot be used: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The sealing key is missing or wrong.
    #[error("the store in `{folder}` cannot be opened: {source}")]
    Seal {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        source: SealError,
    },
    /// The database cannot be opened or read.
    #[error("the store `{path}` cannot be opened: {why}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// There is no async runtime.
    #[error("the store has to be opened from within a tokio runtime")]
    NoRuntime,
}

/// What one lock guards.
struct State {
    core: Core,
    cache: Cache,
    /// Who waits for a job's end.
    waiters: HashMap<JobId, Vec<oneshot::Sender<()>>>,
    signals: HashMap<NodeName, tokio::sync::mpsc::UnboundedSender<Signal>>,
    /// Ends that are kept.
    ended: JobCounts,
    /// When the next kept end is to be forgotten, in steady time.
    sweep_at: Option<i64>,
}

/// What calls, callbacks and the timer share.
struct Shared {
    me: Weak<Shared>,
    options: Options,
    keys: Keyring,
    state: Mutex<State>,
    events: Events,
    workers: Mutex<BTreeMap<String, WorkerRecord>>,
    inbox: mpsc::Sender<Task>,
    condition: Arc<Condition>,
    readers: Mutex<Vec<Connection>>,
    path: PathBuf,
    payload_bytes: Arc<AtomicUsize>,
    /// When the timer wakes next.
    armed: AtomicI64,
    rearmed: Arc<Notify>,
}

/// The embedded engine. Dropping it ends it without waiting for the disk; [`crate::Queue::close`]
/// waits.
pub struct Embedded {
    shared: Arc<Shared>,
    timer: tokio::task::JoinHandle<()>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.timer.abort();
        self.shared.send(Work::Stop, true, true, Box::new(|_, _| ()));
    }
}

impl Embedded {
    /// Opens the store in `folder`, making it when there is none, and settles what an earlier
    /// process left running (promise 6). Reads the whole of what waits: call it where blocking is
    /// allowed, within a tokio runtime.
    ///
    /// # Errors
    /// When another process has the store, or a file in it cannot be used; each error says which.
    pub fn open(folder: &Path, options: Options) -> Result<Arc<Self>, OpenError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let lock = lock(folder)?;
        options.faults.revive();
        let keys =
            Keyring::open(folder).map_err(|source| OpenError::Seal { folder: folder.into(), source })?;
        let path = folder.join("queue.sqlite");
        let bad = |why: String| OpenError::Database { path: path.clone(), why };
        let mut db = store::open_writer(&path).map_err(|error| bad(error.to_string()))?;
        let now = options.clock.now();
        let sql = |error: rusqlite::Error| bad(error.to_string());
        let boot = store::boot(&mut db, now.wall).map_err(sql)?;
        let left = store::left(&db).map_err(sql)?;
        let ended = store::ended_counts(&db).map_err(sql)?;
        let expiry = store::next_expiry(&db).map_err(sql)?;
        let posted = store::outbox(&db).map_err(sql)?;

        let rules = Rules {
            max_queued: options.max_queued,
            max_queued_per_device: options.max_queued_per_device,
            max_outbox: options.max_outbox,
            lease: options.lease,
            audit_retention: options.audit_retention,
            canceled_ttl: options.canceled_ttl,
        };
        // Epochs of one opening never meet those of another.
        let mut core = Core::new(rules, boot.number << 40, boot.seq, boot.last_created);
        for left in left {
            match left.live.job.status {
                JobStatus::Started => core.restore_started(left.live, left.node, now),
                _ => core.restore(left.live, now),
            }
        }
        // Whoever was delivering them is gone with the process: no hold lasts beyond it.
        for message in posted {
            core.post(message, now);
        }
        let (inbox, outbox) = mpsc::channel();
        let condition = Arc::<Condition>::default();
        let clock = options.clock.clone();
        let writer = Writer {
            db,
            inbox: outbox,
            condition: condition.clone(),
            faults: options.faults.clone(),
            now: Box::new(move || clock.now().wall),
            _lock: lock,
        };
        let writer = std::thread::Builder::new()
            .name("queue-writer".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let state = State {
            core,
            cache: Cache::new(options.result_cache),
            waiters: HashMap::new(),
            signals: HashMap::new(),
            ended,
            sweep_at: expiry.map(|at| now.steady.saturating_add(at.0.saturating_sub(now.wall.0))),
        };
        let shared = Arc::new_cyclic(|me| Shared {
            me: me.clone(),
            keys,
            state: Mutex::new(state),
            events: Events::new(boot.events, options.events),
            workers: Mutex::default(),
            inbox,
            condition,
            readers: Mutex::default(),
            path,
            payload_bytes: Arc::default(),
            armed: AtomicI64::new(i64::MAX),
            rearmed: Arc::default(),
            options,
        });
        shared.with(|_, _| ());
        let timer = runtime.spawn(run_timer(Arc::downgrade(&shared)));
        Ok(Arc::new(Self { shared, timer, writer: Mutex::new(Some(writer)) }))
    }

    /// Ends as a killed process does: what is not on disk is lost. For tests of promise 1.
    pub async fn crash(&self) {
        self.timer.abort();
        self.shared.options.faults.crash();
        self.join_writer().await;
    }

    async fn join_writer(&self) {
        self.shared.send(Work::Stop, true, true, Box::new(|_, _| ()));
        let Some(writer) = self.writer.lock().take() else {
            return;
        };
        let joined = tokio::task::spawn_blocking(move || writer.join());
        match tokio::time::timeout(self.shared.options.deadline, joined).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::error!("the store's writer thread ended by a panic"),
            Err(_) => tracing::error!(
                seconds = self.shared.options.deadline.as_secs(),
                "the disk did not answer in time: the store is left as it is"
            ),
        }
    }
}

impl Shared {
    /// Does what is due, then `work`, then what both brought about.
    fn with<R>(&self, work: impl FnOnce(&mut State, Moment) -> R) -> R {
        let mut state = self.state.lock();
        let answer = self.work(&mut state, work);
        let next = state.next_deadline();
        drop(state);
        // An earlier deadline than the one that the timer sleeps for wakes it.
        if next < self.armed.fetch_min(next, Ordering::SeqCst) {
            self.rearmed.notify_one();
        }
        answer
    }

    fn work<R>(&self, state: &mut State, work: impl FnOnce(&mut State, Moment) -> R) -> R {
        let now = self.options.clock.now();
        state.core.tick(now);
        let answer = work(state, now);
        self.perform(state, now);
        answer
    }

    /// What the timer does when it wakes; returns how long it may sleep.
    fn on_time(&self) -> Duration {
        let mut state = self.state.lock();
        self.work(&mut state, |_, _| ());
        let next = state.next_deadline();
        self.armed.store(next, Ordering::SeqCst);
        let wait = next.saturating_sub(self.options.clock.now().steady);
        Duration::from_micros(u64::try_from(wait).unwrap_or(0))
    }

    /// Publishes, signals and writes what the state machine decided, in its order.
    fn perform(&self, state: &mut State, now: Moment) {
        for effect in state.core.take_effects() {
            match effect {
                Effect::Event { at, job, device, what } => self.events.push(at, job, device, what),
                Effect::Signal { node, signal } => {
                    if let Some(channel) = state.signals.get(&node) {
                        // A node that went without a word learns nothing more; its leases run out.
                        drop(channel.send(signal));
                    }
                }
                Effect::Write(record) => self.write_behind(record),
                Effect::Ended(id, status) => {
                    match status {
                        JobStatus::Finished => state.ended.finished += 1,
                        JobStatus::Canceled | JobStatus::Stopped => state.ended.canceled += 1,
                        _ => state.ended.failed += 1,
                    }
                    for waiter in state.waiters.remove(&id).into_iter().flatten() {
                        // One who no longer waits needs no answer.
                        let _ = waiter.send(());
                    }
                }
                Effect::Gone(node) => self.workers.lock().retain(|_, record| record.hostname != node),
            }
        }
        if state.sweep_at.is_some_and(|at| at <= now.steady) {
            state.sweep_at = None;
            self.sweep();
        }
    }

    fn write_behind(&self, record: Record) {
        let end = match &record {
            Record::End { job, expires_at, .. } => Some((job.id, *expires_at)),
            _ => None,
        };
        let me = self.me.clone();
        let done: Done = Box::new(move |_, report| {
            let (Some((id, expires_at)), Some(shared)) = (end, me.upgrade()) else {
                return;
            };
            // What could not be written is not kept either: memory never says more than the disk.
            let (size, posted) = match report {
                Ok(report) => (report.sizes.iter().sum(), report.posted),
                Err(QueueError::Closed) => return,
                Err(_) => (usize::MAX, Vec::new()),
            };
            shared.with(|state, now| {
                if let Some(job) = state.core.written(id) {
                    state.keep(job, size, expires_at, now);
                }
                posted.into_iter().for_each(|message| state.core.post(message, now));
            });
        });
        self.send(Work::Record(vec![record]), false, true, done);
    }

    /// Forgets ends whose time has come.
    fn sweep(&self) {
        let me = self.me.clone();
        let done: Done = Box::new(move |_, report| {
            let Some(shared) = me.upgrade() else { return };
            shared.with(|state, now| match report {
                Ok(report) => {
                    state.ended.finished = state.ended.finished.saturating_sub(report.swept.finished);
                    state.ended.failed = state.ended.failed.saturating_sub(report.swept.failed);
                    state.ended.canceled = state.ended.canceled.saturating_sub(report.swept.canceled);
                    if let Some(at) = report.next_expiry {
                        state.sweep_by(at, now);
                    }
                }
                Err(_) => state.sweep_at = Some(now.after(Duration::from_secs(10))),
            });
        });
        self.send(Work::Sweep, false, false, done);
    }

    /// Hands work to the writer. When that has ended, the answer is that the store is closed.
    fn send(&self, work: Work, urgent: bool, hold: bool, done: Done) {
        if let Err(mpsc::SendError(task)) = self.inbox.send(Task { work, urgent, hold, done })
            && !matches!(task.work, Work::Stop)
        {
            // Answers take the state's lock, which the caller may hold: so not on this thread.
            std::thread::spawn(move || (task.done)(task.work, Err(QueueError::Closed)));
        }
    }

    /// Waits until everything before is on disk.
    async fn barrier(&self, work: Work) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        let done: Done = Box::new(move |_, report| drop(reply.send(report.map(|_| ()))));
        self.send(work, true, false, done);
        self.answer(answer).await
    }

    /// Waits for the writer's answer, no longer than the deadline.
    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, QueueError>>) -> Result<T, QueueError> {
        let deadline = self.options.deadline;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(QueueError::Closed),
            Err(_) => Err(QueueError::Unavailable(match self.condition.outage() {
                Some(why) => why,
                None => format!("the disk did not confirm within {} s", deadline.as_secs_f64()),
            })),
        }
    }

    /// Runs a query on a reading connection, on a thread that may block.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection, Timestamp) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let shared = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let kept = shared.readers.lock().pop();
            let db = match kept {
                Some(db) => db,
                None => store::open_reader(&shared.path)?,
            };
            let answer = query(&db, shared.options.clock.now().wall);
            let mut readers = shared.readers.lock();
            if readers.len() < 8 {
                readers.push(db);
            }
            answer
        });
        match tokio::time::timeout(self.options.deadline, work).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error @ rusqlite::Error::FromSqlConversionFailure(..)))) => {
                Err(QueueError::Corrupt(error.to_string()))
            }
            Ok(Ok(Err(error))) => Err(QueueError::Unavailable(error.to_string())),
            Ok(Err(_)) => Err(QueueError::Closed),
            Err(_) => Err(QueueError::Unavailable("the disk did not answer a read in time".into())),
        }
    }

    /// Keeps a sealed request in memory unless there are too many.
    fn sealed(&self, bytes: Vec<u8>) -> (Arc<Sealed>, bool) {
        let room = self.payload_bytes.load(Ordering::Relaxed) + bytes.len() <= self.options.payload_memory;
        (Arc::new(Sealed::new(bytes, &self.payload_bytes)), room)
    }
}

impl State {
    /// When something falls due next, in steady time.
    fn next_deadline(&self) -> i64 {
        self.core.next_deadline().into_iter().chain(self.sweep_at).min().unwrap_or(i64::MAX)
    }

    /// Keeps an end that is on disk for quick reads, until its time comes.
    fn keep(&mut self, job: Job, size: usize, expires_at: Timestamp, now: Moment) {
        self.cache.insert(job, size, expires_at);
        self.sweep_by(expires_at, now);
    }

    /// A sweep is due at `at`, but not more often than each second.
    fn sweep_by(&mut self, at: Timestamp, now: Moment) {
        let wait = at.0.saturating_sub(now.wall.0).max(1_000_000);
        let at = now.steady.saturating_add(wait);
        self.sweep_at = Some(self.sweep_at.map_or(at, |known| known.min(at)));
    }
}

/// Wakes when something falls due: one sleep for the whole engine.
async fn run_timer(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let wait = strong.on_time();
        let (moved, rearmed) = (strong.options.clock.moved.clone(), strong.rearmed.clone());
        drop(strong);
        tokio::select! {
            () = moved.notified() => {}
            () = rearmed.notified() => {}
            () = tokio::time::sleep(wait.min(Duration::from_secs(3600))) => {}
        }
    }
}

/// Makes the folder, readable by its owner only, and takes it for this process.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
    }
    let path = folder.join("lock");
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Who holds it is only for the message.
            let pid = match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => pid.trim().to_owned(),
                _ => "unknown".to_owned(),
            };
            return Err(OpenError::InUse { folder: folder.into(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io(&path)(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io(&path))?;
    Ok(file)
}
