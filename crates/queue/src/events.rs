//! What happened lately: a bounded ring of events that watchers read at their own pace.
//!
//! Writers never wait for watchers: a watcher that falls behind the ring is told of the gap.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use netpulse_model::event::{Event, EventId, What};
use netpulse_model::{Job, JobId, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

/// The longest `stdout` or `stderr` that an event carries, bytes. The job's result has it whole.
pub const LINE_LIMIT: usize = 64 * 1024;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct RingSize {
    /// Events at most.
    pub events: usize,
    /// Bytes of their texts at most.
    pub bytes: usize,
}

struct Ring {
    /// Id of the first event kept; ids in the ring have no holes.
    first: u64,
    events: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
    /// The ids of each job's events.
    trails: HashMap<JobId, VecDeque<u64>>,
    /// Who waits for one job's events.
    watched: HashMap<JobId, Weak<Notify>>,
}

/// The events of one engine.
pub(crate) struct Events {
    ring: Mutex<Ring>,
    size: RingSize,
    all: Notify,
}

/// What the ring has for a follower.
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// Events between the follower's place and the first of these are gone.
    pub(crate) gap: Option<EventId>,
    /// Where to go on.
    pub(crate) cursor: u64,
}

impl Events {
    /// The first event gets id `first`.
    pub(crate) fn new(first: u64, size: RingSize) -> Self {
        let ring = Ring {
            first,
            events: VecDeque::new(),
            bytes: 0,
            trails: HashMap::new(),
            watched: HashMap::new(),
        };
        Self { ring: Mutex::new(ring), size, all: Notify::new() }
    }

    /// Forgets everything and goes on with id `first`: what lay before is a gap for its watchers.
    pub(crate) fn restart(&self, first: u64) {
        let mut ring = self.ring.lock();
        ring.first = first;
        ring.events.clear();
        ring.bytes = 0;
        ring.trails.clear();
        drop(ring);
        self.all.notify_waiters();
    }

    pub(crate) fn push(&self, at: Timestamp, job: JobId, device: Option<String>, what: What) {
        let cost = cost(&what);
        let ended = matches!(what, What::Ended { .. });
        let mut ring = self.ring.lock();
        let id = ring.first + ring.events.len() as u64;
        ring.events.push_back((Arc::new(Event { id: EventId(id), at, job, device, what }), cost));
        ring.bytes += cost;
        ring.trails.entry(job).or_default().push_back(id);
        while ring.events.len() > self.size.events.max(1)
            || (ring.bytes > self.size.bytes && ring.events.len() > 1)
        {
            let Some((gone, cost)) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= cost;
            ring.first += 1;
            if let Some(trail) = ring.trails.get_mut(&gone.job) {
                trail.pop_front();
                if trail.is_empty() {
                    ring.trails.remove(&gone.job);
                }
            }
        }
        if let Some(watcher) = ring.watched.get(&job) {
            match watcher.upgrade() {
                Some(notify) => notify.notify_waiters(),
                None => {
                    ring.watched.remove(&job);
                }
            }
            if ended {
                ring.watched.remove(&job);
            }
        }
        drop(ring);
        self.all.notify_waiters();
    }

    /// Id of the first event kept, or the next one when none is.
    pub(crate) fn first(&self) -> u64 {
        self.ring.lock().first
    }

    /// Id of the latest event, or the one before the first.
    pub(crate) fn last(&self) -> u64 {
        let ring = self.ring.lock();
        (ring.first + ring.events.len() as u64).saturating_sub(1)
    }

    /// Everybody's events after `cursor`, at most 256; from the oldest kept when none.
    pub(crate) fn after(&self, cursor: Option<u64>) -> Batch {
        let ring = self.ring.lock();
        let next = ring.first + ring.events.len() as u64;
        let oldest = ring.first.saturating_sub(1);
        let from = cursor.unwrap_or(oldest).min(next.saturating_sub(1));
        let gap = (from < oldest).then_some(EventId(ring.first));
        let from = from.max(oldest);
        let skip = usize::try_from(from + 1 - ring.first).unwrap_or(usize::MAX);
        let events: Vec<_> =
            ring.events.iter().skip(skip).take(256).map(|(event, _)| event.clone()).collect();
        let cursor = from + events.len() as u64;
        Batch { events, gap, cursor }
    }

    /// All events of one job that are kept.
    pub(crate) fn of_job(&self, job: JobId) -> Vec<Arc<Event>> {
        self.of_job_after(job, 0)
    }

    /// One job's events after `cursor`.
    pub(crate) fn of_job_after(&self, job: JobId, cursor: u64) -> Vec<Arc<Event>> {
        let ring = self.ring.lock();
        let Some(trail) = ring.trails.get(&job) else {
            return Vec::new();
        };
        let new = trail.partition_point(|id| *id <= cursor);
        trail
            .range(new..)
            .filter_map(|id| ring.events.get(usize::try_from(id - ring.first).ok()?))
            .map(|(event, _)| event.clone())
            .collect()
    }

    /// Told of each new event of `job`, as long as the handle lives.
    pub(crate) fn watch(&self, job: JobId) -> Arc<Notify> {
        let mut ring = self.ring.lock();
        if let Some(notify) = ring.watched.get(&job).and_then(Weak::upgrade) {
            return notify;
        }
        let notify = Arc::new(Notify::new());
        ring.watched.insert(job, Arc::downgrade(&notify));
        notify
    }

    /// Forgets a job's watchers when the last one has gone.
    pub(crate) fn unwatch(&self, job: JobId) {
        let mut ring = self.ring.lock();
        if ring.watched.get(&job).is_some_and(|watcher| watcher.strong_count() == 0) {
            ring.watched.remove(&job);
        }
    }

    /// Told of each new event.
    pub(crate) fn any(&self) -> &Notify {
        &self.all
    }
}

/// Bytes that an event holds, roughly.
fn cost(what: &What) -> usize {
    const FIXED: usize = 200;
    FIXED
        + match what {
            What::Line { command, stdout, stderr, .. } => command.len() + value_len(stdout) + stderr.len(),
            What::Sending { command, .. } => command.len(),
            What::Retrying { reason, .. } => reason.len(),
            What::Undelivered { message } => message.len(),
            What::Ended { message, .. } => message.as_ref().map_or(0, String::len),
            What::Queued { queue } => queue.len(),
            What::Started { worker, .. } => worker.len(),
        }
}

fn value_len(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        other => other.to_string().len(),
    }
}

/// Cuts the texts of a line to [`LINE_LIMIT`].
pub(crate) fn cut(mut what: What) -> What {
    if let What::Line { stdout, stderr, .. } = &mut what {
        if stdout.is_array() || stdout.is_object() {
            let text = stdout.to_string();
            if text.len() > LINE_LIMIT {
                *stdout = Value::String(text);
            }
        }
        if let Value::String(text) = stdout {
            cut_text(text);
        }
        cut_text(stderr);
    }
    what
}

fn cut_text(text: &mut String) {
    if text.len() > LINE_LIMIT {
        text.truncate(text.floor_char_boundary(LINE_LIMIT));
        text.shrink_to_fit();
    }
}

/// A job's life as it tells it itself. All bear `last`, so that a follower resumes after it.
pub(crate) fn told(job: &Job, last: u64) -> Vec<Event> {
    let device = job.device.as_ref().map(ToString::to_string);
    let event = |at, what| Event { id: EventId(last), at, job: job.id, device: device.clone(), what };
    let mut events = vec![event(job.created_at, What::Queued { queue: job.queue.to_string() })];
    if let Some(at) = job.started_at {
        let worker = job.worker.clone().unwrap_or_default();
        events.push(event(at, What::Started { worker, attempt: job.attempt }));
    }
    let lines = job.result.iter().filter_map(|result| result.retval.as_ref()).flatten();
    let total = lines.clone().count();
    for (index, line) in lines.enumerate() {
        let what = What::Line {
            index,
            total,
            command: line.command.clone(),
            stdout: line.stdout.clone(),
            stderr: line.stderr.clone(),
            exit_status: line.exit_status,
        };
        events.push(event(job.ended_at.unwrap_or(job.created_at), cut(what)));
    }
    events.extend(ended(job, last));
    events
}

/// The end of a job as an event, when it has ended.
pub(crate) fn ended(job: &Job, last: u64) -> Option<Event> {
    let result = job.result.as_ref()?;
    Some(Event {
        id: EventId(last),
        at: job.ended_at.unwrap_or(job.created_at),
        job: job.id,
        device: job.device.as_ref().map(ToString::to_string),
        what: What::Ended {
            status: job.status,
            outcome: result.outcome,
            message: result.error.as_ref().map(|error| error.message.clone()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stdout: String) -> What {
        What::Line {
            index: 0,
            total: 1,
            command: "show run".into(),
            stdout: Value::String(stdout),
            stderr: String::new(),
            exit_status: 0,
        }
    }

    #[test]
    fn promise_10_the_ring_keeps_to_its_bytes_and_tells_the_gap() {
        let events = Events::new(1000, RingSize { events: 1000, bytes: 10_000 });
        let job = JobId::random();
        for _ in 0..100 {
            events.push(Timestamp(0), job, None, line("x".repeat(1000)));
        }
        let batch = events.after(Some(1000));
        let first = batch.events.first().unwrap().id;
        assert_eq!(batch.gap, Some(first));
        assert!(batch.events.len() < 10, "{}", batch.events.len());
        assert_eq!(batch.cursor, 1099);
        assert!(events.after(Some(batch.cursor)).events.is_empty());
        assert_eq!(events.of_job(job).first().unwrap().id, first, "its earlier events are gone");
    }

    #[test]
    fn lines_are_cut_on_a_character() {
        let What::Line { stdout: Value::String(text), .. } = cut(line("é".repeat(LINE_LIMIT))) else {
            panic!("another event")
        };
        assert_eq!(text.len(), LINE_LIMIT);
        let odd = format!("a{}", "é".repeat(LINE_LIMIT));
        let What::Line { stdout: Value::String(text), .. } = cut(line(odd)) else { panic!("another event") };
        assert_eq!(text.len(), LINE_LIMIT - 1);
    }

    #[test]
    fn a_job_follower_sees_only_its_own() {
        let events = Events::new(1, RingSize { events: 10, bytes: 1 << 20 });
        let (a, b) = (JobId::random(), JobId::random());
        events.push(Timestamp(0), a, None, line("1".into()));
        events.push(Timestamp(0), b, None, line("2".into()));
        events.push(Timestamp(0), a, None, line("3".into()));
        assert_eq!(events.of_job(a).iter().map(|e| e.id.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(events.of_job_after(a, 1).len(), 1);
    }
}
