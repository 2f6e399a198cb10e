//! The connection that is told things: signals for this process's nodes, ends that somebody waits
//! for, messages of the outbox. Nothing depends on a message alone: after every new connection, and
//! with every renewal, what was said is read again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use netpulse_model::JobId;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, Value};

use super::Shared;
use super::record::{items, text};
use crate::api::Signal;

#[derive(Default)]
pub(super) struct Listener {
    sink: tokio::sync::Mutex<Option<PubSubSink>>,
    ready: tokio::sync::Notify,
}

impl Listener {
    /// Adds a channel; a connection that is being made takes it up by itself.
    pub(super) async fn subscribe(&self, channel: String) {
        if let Some(sink) = &mut *self.sink.lock().await
            && let Err(error) = sink.subscribe(channel).await
        {
            tracing::debug!(%error, "a channel cannot be subscribed now");
        }
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = Duration::from_millis(20);
    loop {
        let seen = shared.link.number();
        let began = tokio::time::Instant::now();
        match connect(&shared).await {
            Ok(stream) => {
                recheck(&shared).await;
                listen(&shared, stream, seen).await;
            }
            Err(why) => tracing::debug!(why, "cannot listen to Redis"),
        }
        *shared.listener.sink.lock().await = None;
        if began.elapsed() > Duration::from_secs(5) {
            pause = Duration::from_millis(20);
        }
        // Nothing tells when a server is back: asking is all there is.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn connect(shared: &Shared) -> Result<PubSubStream, String> {
    let made = async {
        let client = shared.link.target.find().await?;
        let (mut sink, stream) = client.get_async_pubsub().await.map_err(|error| error.to_string())?.split();
        let mut guard = shared.listener.sink.lock().await;
        let nodes: Vec<String> = shared.nodes.lock().keys().map(|node| format!("signal:{node}")).collect();
        for name in nodes.iter().map(String::as_str).chain(["ended", "outbox"]) {
            sink.subscribe(shared.key(name)).await.map_err(|error| error.to_string())?;
        }
        *guard = Some(sink);
        Ok(stream)
    };
    tokio::time::timeout(shared.options.deadline, made).await.map_err(|_| "no answer in time".to_owned())?
}

async fn listen(shared: &Shared, mut stream: PubSubStream, seen: u64) {
    shared.listener.ready.notify_waiters();
    let renewed = shared.link.reconnected(seen);
    tokio::pin!(renewed);
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => hear(shared, &message),
                None => return,
            },
            // The commands go elsewhere now: perhaps another server is the master.
            _ = &mut renewed, if seen != 0 => return,
        }
    }
}

fn hear(shared: &Shared, message: &Msg) {
    let Some(channel) = message.get_channel_name().strip_prefix(shared.options.prefix.as_str()) else {
        return;
    };
    let words = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
    if let Some(node) = channel.strip_prefix("signal:") {
        shared.tell(node, &words);
    } else if channel == "ended" {
        if let Ok(id) = words.parse::<JobId>() {
            for waiter in shared.waiters.lock().remove(&id).into_iter().flatten() {
                // One who no longer waits needs no answer.
                let _ = waiter.send(());
            }
        }
    } else if channel == "outbox" {
        shared.outbox_due();
    }
}

/// What was said while nobody listened.
async fn recheck(shared: &Shared) {
    for (_, waiters) in shared.waiters.lock().drain() {
        for waiter in waiters {
            // They look, and wait again if there was nothing.
            let _ = waiter.send(());
        }
    }
    let nodes: Vec<String> = shared.nodes.lock().keys().cloned().collect();
    for node in nodes {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(shared.key(&format!("wake:{node}")));
        match shared.link.one(command, shared.until()).await {
            Ok(members @ (Value::Array(_) | Value::Set(_))) => {
                for words in items(&members).iter().filter_map(text) {
                    shared.tell(&node, words);
                }
            }
            Ok(_) => {}
            Err(trouble) => tracing::debug!(%trouble, "signals cannot be read again now"),
        }
    }
    shared.outbox_due();
}

impl Shared {
    /// Tells every node of this process that messages are due.
    pub(super) fn outbox_due(&self) {
        for local in self.nodes.lock().values() {
            // A node that went without a word learns nothing more.
            drop(local.signals.send(Signal::Outbox));
        }
    }
}
