//! The events of all processes, read by one blocking connection while anybody watches, into a ring
//! in memory that every watcher reads at its own pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::{JobId, Timestamp};
use parking_lot::Mutex;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use super::Shared;
use super::record::{items, number, text};
use crate::events::{Events, RingSize};

/// Events of one reading.
const PAGE: usize = 500;

pub(super) struct Tail {
    pub(super) events: Events,
    /// The last event in the ring; none until the first reading is through.
    read: watch::Sender<Option<u64>>,
    started: AtomicBool,
    closed: Mutex<bool>,
}

impl Tail {
    pub(super) fn new(size: RingSize) -> Self {
        Self {
            events: Events::new(1, size),
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
    let mut from = match known {
        Some(last) => last,
        None => begin(shared, &mut connection).await?,
    };
    let mut connection_number = shared.link.number();
    loop {
        // Once in a while it looks whether the commands go to another server now.
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE).arg("BLOCK").arg(5000).arg("STREAMS").arg(&key).arg(format!("{from}-0"));
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

/// Where the events that are kept begin.
async fn begin(shared: &Shared, connection: &mut MultiplexedConnection) -> Result<u64, String> {
    let first = redis::cmd("XRANGE")
        .arg(shared.key("events"))
        .arg("-")
        .arg("+")
        .arg("COUNT")
        .arg(1)
        .query_async::<Value>(connection)
        .await
        .map_err(|error| error.to_string())?;
    let from = match items(&first).first().and_then(event_id) {
        Some(id) => id.saturating_sub(1),
        None => {
            let last = redis::cmd("GET").arg(shared.key("event")).query_async::<Option<u64>>(connection).await;
            last.map_err(|error| error.to_string())?.unwrap_or(0)
        }
    };
    shared.tail.events.restart(from + 1);
    Ok(from)
}

fn event_id(entry: &Value) -> Option<u64> {
    text(items(entry).first()?)?.split('-').next()?.parse().ok()
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
    let fields = items(entry).get(1).map(items).unwrap_or_default();
    let get = |name: &str| {
        fields.chunks_exact(2).find(|pair| pair.first().and_then(text) == Some(name)).and_then(|pair| pair.get(1))
    };
    let at = get("at").and_then(number).unwrap_or(0);
    let job = get("job").and_then(text).and_then(|id| id.parse::<JobId>().ok());
    let what = get("what").and_then(text).and_then(|json| serde_json::from_str::<What>(json).ok());
    match (job, what) {
        (Some(job), Some(what)) => {
            let device = get("device").and_then(text).filter(|device| !device.is_empty()).map(str::to_owned);
            shared.tail.events.push(Timestamp(at), job, device, what);
        }
        _ => {
            tracing::warn!(id, "an event that cannot be read is left out");
            shared.tail.events.restart(id + 1);
        }
    }
    id
}
