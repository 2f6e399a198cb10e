//! The connection that is told things: signals for this process's nodes, ends that somebody waits
//! for. Nothing depends on a message alone: after every new connection, and
//! with every renewal, what was said is read again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use netpulse_model::JobId;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, Pipeline};
use tokio::sync::watch;

use super::Shared;
use super::record::{items, text};

#[derive(Default)]
struct Channels {
    wanted: BTreeSet<String>,
    sink: Option<PubSubSink>,
}

pub(super) struct Listener {
    channels: tokio::sync::Mutex<Channels>,
    /// Whether it hears at the moment.
    hears: watch::Sender<bool>,
}

impl Default for Listener {
    fn default() -> Self {
        Self { channels: tokio::sync::Mutex::default(), hears: watch::Sender::new(false) }
    }
}

impl Listener {
    /// Adds a channel; a connection that is being made takes it up by itself.
    pub(super) async fn subscribe(&self, channel: String) {
        let mut channels = self.channels.lock().await;
        channels.wanted.insert(channel.clone());
        if let Some(sink) = &mut channels.sink
            && let Err(error) = sink.subscribe(channel).await
        {
            tracing::debug!(%error, "a channel cannot be subscribed now");
        }
    }

    /// Removes a channel.
    pub(super) async fn unsubscribe(&self, channel: &str) {
        let mut channels = self.channels.lock().await;
        channels.wanted.remove(channel);
        if let Some(sink) = &mut channels.sink
            && let Err(error) = sink.unsubscribe(channel).await
        {
            tracing::debug!(%error, "a channel cannot be given up now");
        }
    }

    /// Waits until it hears; false when that takes too long.
    pub(super) async fn hears(&self, wait: Duration) -> bool {
        let mut hears = self.hears.subscribe();
        matches!(tokio::time::timeout(wait, hears.wait_for(|hears| *hears)).await, Ok(Ok(_)))
    }
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = Duration::from_millis(20);
    loop {
        let seen = shared.link.number();
        let began = tokio::time::Instant::now();
        match connect(&shared).await {
            Ok(stream) => {
                shared.listener.hears.send_replace(true);
                recheck(&shared).await;
                listen(&shared, stream, seen).await;
                shared.listener.hears.send_replace(false);
            }
            Err(why) => tracing::debug!(why, "cannot listen to Redis"),
        }
        shared.listener.channels.lock().await.sink = None;
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
        let mut channels = shared.listener.channels.lock().await;
        let ended = shared.key("ended");
        let wanted: Vec<&String> = std::iter::once(&ended).chain(&channels.wanted).collect();
        sink.subscribe(wanted).await.map_err(|error| error.to_string())?;
        channels.sink = Some(sink);
        Ok(stream)
    };
    tokio::time::timeout(shared.options.deadline, made).await.map_err(|_| "no answer in time".to_owned())?
}

async fn listen(shared: &Shared, mut stream: PubSubStream, seen: u64) {
    let renewed = shared.link.reconnected(seen);
    tokio::pin!(renewed);
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => hear(shared, &message),
                None => return,
            },
            // The commands go elsewhere now: perhaps another server is the master.
            _ = &mut renewed => return,
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
    } else if channel == "ended"
        && let Ok(id) = words.parse::<JobId>()
    {
        for waiter in shared.waiters.lock().remove(&id).into_iter().flatten() {
            // One who no longer waits needs no answer.
            let _ = waiter.send(id);
        }
    }
}

/// What was said while nobody listened.
async fn recheck(shared: &Shared) {
    for (id, waiters) in shared.waiters.lock().drain() {
        for waiter in waiters {
            // They look, and wait again if there was nothing.
            let _ = waiter.send(id);
        }
    }
    for (node, heard) in shared.local_nodes() {
        let mut pipe = Pipeline::with_capacity(2);
        pipe.cmd("SMEMBERS").arg(shared.key(&format!("wake:{node}")));
        pipe.cmd("ZRANGEBYSCORE")
            .arg(shared.key(&format!("lost:{node}")))
            .arg(format!("({heard}"))
            .arg("+inf");
        match shared.link.send(&pipe, shared.until()).await {
            Ok(answers) => {
                for words in answers.first().map(items).unwrap_or_default().iter().filter_map(text) {
                    shared.tell(&node, words);
                }
                for lease in answers.get(1).map(items).unwrap_or_default().iter().filter_map(text) {
                    shared.tell(&node, &format!("l:{lease}"));
                }
            }
            Err(trouble) => tracing::debug!(%trouble, "signals cannot be read again now"),
        }
    }
}
