//! The events of all processes, read by one blocking connection while anybody watches, into a ring
//! in memory that every watcher reads at its own pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use netpulse_model::Timestamp;
use netpulse_model::event::{Event, EventId};
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::watch;

use super::record::{items, number, text};
use super::{Shared, unavailable};
use crate::api::QueueError;
use crate::events::{Events, RingSize};

/// Events of one reading.
const PAGE: usize = 500;

pub(super) struct Tail {
    pub(super) events: Events,
    /// The last event when this process opened the store: the ring begins after it.
    opened: AtomicU64,
    /// The last event in the ring; none until the first reading is through.
    read: watch::Sender<Option<u64>>,
    started: AtomicBool,
    closed: Mutex<bool>,
}

impl Tail {
    pub(super) fn new(size: RingSize) -> Self {
        Self {
            events: Events::new(1, size),
            opened: AtomicU64::new(0),
            read: watch::Sender::new(None),
            started: AtomicBool::new(false),
            closed: Mutex::new(false),
        }
    }

    pub(super) fn close(&self) {
        *self.closed.lock() = true;
    }
}

impl Shared {
    /// Notes where events stand as the store is opened.
    pub(super) async fn open_tail(&self) -> Result<(), QueueError> {
        let mut call = redis::cmd("XREVRANGE");
        call.arg(self.key("events")).arg("+").arg("-").arg("COUNT").arg(1);
        let last = self.link.one(call, self.until()).await.map_err(unavailable)?;
        let last = items(&last).first().and_then(event_id).unwrap_or(0);
        self.tail.opened.store(last, Ordering::SeqCst);
        self.tail.events.restart(last + 1);
        Ok(())
    }

    /// Events of the store after `after` and before those in the ring, a page of them.
    pub(super) async fn older(&self, after: u64) -> Vec<Event> {
        let first = self.tail.events.first();
        if after + 1 >= first {
            return Vec::new();
        }
        let mut call = redis::cmd("XRANGE");
        call.arg(self.key("events")).arg(format!("0-{}", after + 1)).arg(format!("(0-{first}"));
        call.arg("COUNT").arg(PAGE);
        match self.link.one(call, self.until()).await {
            Ok(answer) => items(&answer).iter().filter_map(event).collect(),
            Err(trouble) => {
                tracing::warn!(%trouble, "older events cannot be read");
                Vec::new()
            }
        }
    }

    /// Starts to read events, and waits until everything that this process did is in the ring.
    pub(super) async fn caught_up(self: &Arc<Self>) {
        if !self.tail.started.swap(true, Ordering::SeqCst) && !*self.tail.closed.lock() {
            self.spawn(run(Arc::clone(self)));
        }
        self.lane.barrier(self.options.deadline).await;
        let last = self.last_event.load(Ordering::SeqCst);
        let mut read = self.tail.read.subscribe();
        let caught = read.wait_for(|read| read.is_some_and(|read| read >= last));
        if tokio::time::timeout(self.options.deadline, caught).await.is_err() {
            tracing::debug!("events are behind: Redis does not answer");
        }
    }
}

async fn run(shared: Arc<Shared>) {
    let mut pause = Duration::from_millis(20);
    loop {
        let began = tokio::time::Instant::now();
        if let Err(why) = read(&shared).await {
            tracing::debug!(why, "events cannot be read");
        }
        if began.elapsed() > Duration::from_secs(5) {
            pause = Duration::from_millis(20);
        }
        // Nothing tells when a server is back: asking is all there is.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn read(shared: &Shared) -> Result<(), String> {
    let deadline = shared.options.deadline;
    let made = tokio::time::timeout(deadline, shared.link.target.blocking());
    let mut connection = made.await.map_err(|_| "no answer in time".to_owned())??;
    let key = shared.key("events");
    let known = *shared.tail.read.borrow();
    let mut from = known.unwrap_or_else(|| shared.tail.opened.load(Ordering::SeqCst));
    let mut connection_number = shared.link.number();
    loop {
        // Once in a while it looks whether the commands go to another server now.
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(PAGE)
            .arg("BLOCK")
            .arg(5000)
            .arg("STREAMS")
            .arg(&key)
            .arg(format!("0-{from}"));
        let asked = command.query_async::<Value>(&mut connection);
        let answer = tokio::time::timeout(Duration::from_secs(5) + deadline, asked)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        for stream in items(&answer) {
            for entry in items(stream).get(1).map(items).unwrap_or_default() {
                from = take(shared, entry, from);
            }
        }
        shared.tail.read.send_replace(Some(from));
        let number = shared.link.number();
        if number != 0 && connection_number != 0 && number != connection_number {
            return Ok(());
        }
        connection_number = connection_number.max(number);
    }
}

fn event_id(entry: &Value) -> Option<u64> {
    text(items(entry).first()?)?.split('-').nth(1)?.parse().ok()
}

/// Reads one entry; none when it cannot be read.
fn event(entry: &Value) -> Option<Event> {
    let id = EventId(event_id(entry)?);
    let fields = items(entry).get(1).map(items).unwrap_or_default();
    let get = |name: &str| {
        fields
            .chunks_exact(2)
            .find(|pair| pair.first().and_then(text) == Some(name))
            .and_then(|pair| pair.get(1))
    };
    Some(Event {
        id,
        at: Timestamp(get("at").and_then(number)?),
        job: get("job").and_then(text)?.parse().ok()?,
        device: get("device").and_then(text).filter(|device| !device.is_empty()).map(str::to_owned),
        what: get("what").and_then(text).and_then(|json| serde_json::from_str(json).ok())?,
    })
}

/// Takes one entry into the ring; returns its id.
fn take(shared: &Shared, entry: &Value, last: u64) -> u64 {
    let Some(id) = event_id(entry) else {
        return last;
    };
    if id != last + 1 {
        // What lay between was cut off before it was read.
        shared.tail.events.restart(id);
    }
    match event(entry) {
        Some(event) => shared.tail.events.push(event.at, event.job, event.device, event.what),
        None => {
            tracing::warn!(id, "an event that cannot be read is left out");
            shared.tail.events.restart(id + 1);
        }
    }
    id
}
