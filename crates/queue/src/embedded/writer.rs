//! The one thread that writes: everything that waits for it becomes one transaction.
//!
//! A single `fsync` then serves all who wait at that moment. Work that nobody waits for is held
//! back a few milliseconds, so that it rides along with the next work that somebody does. When the
//! store cannot be written, work that may be refused is; the rest is held, in order, and written
//! once the store returns (promise 11).

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use netpulse_model::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::store::{self, Accept, Inserted, Wrote};
use crate::api::{JobCounts, QueueError};
use crate::core::{Mark, Posted, Record};

/// How long work that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(10);
/// Works in one transaction at most, so that a flood does not delay its first for ever.
const BATCH: usize = 4096;
/// Between tries while the store cannot be written.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Ends forgotten in one transaction at most.
const SWEEP: u32 = 2000;

/// Faults that tests put into the way of the disk.
#[derive(Debug, Default)]
pub struct Faults {
    refuse: AtomicBool,
    delay_micros: AtomicU64,
    crash: AtomicBool,
}

impl Faults {
    /// From now on every commit fails as on a full disk, until it is taken back.
    pub fn refuse_writes(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::SeqCst);
    }

    /// From now on every commit takes this much longer.
    pub fn slow_commits(&self, by: Duration) {
        self.delay_micros.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    pub(super) fn crash(&self) {
        self.crash.store(true, Ordering::SeqCst);
    }

    pub(super) fn revive(&self) {
        self.crash.store(false, Ordering::SeqCst);
    }

    fn crashed(&self) -> bool {
        self.crash.load(Ordering::SeqCst)
    }

    /// Stands where the disk would answer.
    fn before_commit(&self) -> rusqlite::Result<()> {
        let delay = self.delay_micros.load(Ordering::SeqCst);
        if delay > 0 {
            std::thread::park_timeout(Duration::from_micros(delay));
        }
        if self.refuse.load(Ordering::SeqCst) {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            return Err(rusqlite::Error::SqliteFailure(full, Some("database or disk is full".into())));
        }
        Ok(())
    }
}

/// What there is to write.
pub(super) enum Work {
    Accept(Vec<Accept>),
    Record(Vec<Record>),
    /// How messages of the outbox stand.
    Outbox(Vec<Mark>),
    Sweep,
    Touch,
    /// Nothing: answered when all before it is on disk.
    Barrier,
    /// The last one.
    Stop,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// For each [`Accept`].
    pub(super) inserted: Vec<Inserted>,
    /// Bytes of the results written, for each record.
    pub(super) sizes: Vec<usize>,
    /// Messages that the records put into the outbox.
    pub(super) posted: Vec<Posted>,
    /// Ends forgotten, and when the next one is due.
    pub(super) swept: JobCounts,
    pub(super) next_expiry: Option<Timestamp>,
}

pub(super) type Done = Box<dyn FnOnce(Work, Result<Report, QueueError>) + Send>;

/// One piece of work and who is told.
pub(super) struct Task {
    pub(super) work: Work,
    /// Somebody waits for it.
    pub(super) urgent: bool,
    /// It must be written, however long that takes; otherwise a store that cannot write refuses it.
    pub(super) hold: bool,
    pub(super) done: Done,
}

/// The state of the store as the writer last met it.
#[derive(Debug, Default)]
pub(super) struct Condition {
    outage: Mutex<Option<String>>,
}

impl Condition {
    pub(super) fn outage(&self) -> Option<String> {
        self.outage.lock().clone()
    }
}

pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) inbox: Receiver<Task>,
    pub(super) condition: Arc<Condition>,
    pub(super) faults: Arc<Faults>,
    pub(super) now: Box<dyn Fn() -> Timestamp + Send>,
    /// Held until the last byte is written.
    pub(super) _lock: File,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut batch: Vec<Task> = Vec::new();
        loop {
            let more = self.gather(&mut batch);
            if self.faults.crashed() {
                return;
            }
            if !batch.is_empty() {
                self.write(&mut batch);
            }
            if !more {
                if !batch.is_empty() {
                    tracing::error!(works = batch.len(), "the store closed while it could not be written");
                }
                // The log's content goes into the file itself, which is then whole by itself.
                if let Err(error) = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
                    tracing::debug!(%error, "the write-ahead log stays beside the store");
                }
                return;
            }
        }
    }

    /// Waits for work; `batch` may hold some that could not be written yet. False when this is
    /// the end.
    fn gather(&mut self, batch: &mut Vec<Task>) -> bool {
        let first = if batch.is_empty() {
            self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.inbox.recv_timeout(RETRY_AFTER)
        };
        let mut next = match first {
            Ok(task) => Some(task),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let until = Instant::now() + LINGER;
        let mut urgent = false;
        while let Some(task) = next.take() {
            urgent |= task.urgent;
            let stop = matches!(task.work, Work::Stop);
            batch.push(task);
            if stop {
                return false;
            }
            if batch.len() < BATCH {
                next = self.inbox.try_recv().ok();
                if next.is_none() && !urgent {
                    next = self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
                }
            }
        }
        true
    }

    /// Writes the batch in one transaction and tells everybody; what has to be held stays in it.
    fn write(&mut self, batch: &mut Vec<Task>) {
        match self.commit(batch) {
            Ok(reports) => {
                let wrote = batch.iter().any(|task| !matches!(task.work, Work::Barrier | Work::Stop));
                if wrote && self.condition.outage.lock().take().is_some() {
                    tracing::warn!("the store can be written again");
                }
                for (task, report) in batch.drain(..).zip(reports) {
                    (task.done)(task.work, Ok(report));
                }
            }
            Err(error) if is_outage(&error) => self.outage(batch, &error),
            // One work is at fault, not the store: find it, let the others pass.
            Err(error) if batch.len() == 1 => {
                tracing::error!(%error, "one change could not be written and is given up");
                for task in batch.drain(..) {
                    (task.done)(task.work, Err(QueueError::Corrupt(error.to_string())));
                }
            }
            Err(_) => {
                let mut held = Vec::new();
                for task in std::mem::take(batch) {
                    let mut one = vec![task];
                    if held.is_empty() {
                        self.write(&mut one);
                    }
                    held.append(&mut one);
                }
                *batch = held;
            }
        }
    }

    fn outage(&mut self, batch: &mut Vec<Task>, error: &rusqlite::Error) {
        let text = error.to_string();
        if self.condition.outage.lock().replace(text.clone()).is_none() {
            tracing::error!(%error, "the store cannot be written: submits are refused, results are held");
        }
        let (held, refused): (Vec<Task>, Vec<Task>) = batch.drain(..).partition(|task| task.hold);
        *batch = held;
        for task in refused {
            (task.done)(task.work, Err(QueueError::Unavailable(text.clone())));
        }
    }

    fn commit(&mut self, batch: &[Task]) -> rusqlite::Result<Vec<Report>> {
        let now = (self.now)();
        let ended = store::superseded(batch.iter().flat_map(|task| match &task.work {
            Work::Record(records) => records.as_slice(),
            _ => &[],
        }));
        let mut reports = Vec::with_capacity(batch.len());
        let empty = batch.iter().all(|task| matches!(task.work, Work::Barrier | Work::Stop));
        if empty {
            reports.resize_with(batch.len(), Report::default);
            return Ok(reports);
        }
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for task in batch {
            let mut report = Report::default();
            match &task.work {
                Work::Accept(accepts) => {
                    for accept in accepts {
                        report.inserted.push(store::insert(&tx, accept, now)?);
                    }
                }
                Work::Record(records) => {
                    for record in records {
                        let end = matches!(record, Record::End { .. });
                        let skip = !end && ended.contains(&record.seq());
                        let wrote = if skip { Wrote::default() } else { store::write(&tx, record)? };
                        report.sizes.push(wrote.size);
                        report.posted.extend(wrote.posted);
                    }
                }
                Work::Sweep => {
                    report.swept = store::sweep(&tx, now, SWEEP)?;
                    report.next_expiry = store::next_expiry(&tx)?;
                }
                Work::Outbox(marks) => store::mark(&tx, marks)?,
                Work::Touch => store::touch(&tx, now)?,
                Work::Barrier | Work::Stop => {}
            }
            reports.push(report);
        }
        self.faults.before_commit()?;
        tx.commit()?;
        Ok(reports)
    }
}

/// Whether it is the store that failed, not the one change.
fn is_outage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => !matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange
        ),
        _ => false,
    }
}
