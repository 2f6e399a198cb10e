//! The one ordered way of notes, ends and worker records to the store.
//!
//! Everything that waits goes as one pipeline, and the next one follows when it is answered: a group
//! commit. What cannot be delivered is kept and sent again in the same order; notes bear numbers and
//! ends a nonce, so that what had arrived after all counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::claims::Slot;
use super::link::{self, Trouble};
use super::record::text;
use super::scripts::Script;
use crate::api::{ClaimToken, QueueError, Verdict};

/// Items of one pipeline.
const BATCH: usize = 256;
/// Bytes after which a pipeline takes nothing more.
const BATCH_BYTES: usize = 4 << 20;
/// Notes of one script.
const NOTES: usize = 32;

/// A note as `note.lua` takes it.
pub(super) struct Note {
    pub(super) token: ClaimToken,
    pub(super) number: u64,
    pub(super) sort: &'static str,
    pub(super) line: usize,
    pub(super) command: String,
    pub(super) result: String,
    pub(super) what: String,
}

/// An end as `complete.lua` takes it.
pub(super) struct End {
    pub(super) token: ClaimToken,
    pub(super) nonce: String,
    pub(super) status: &'static str,
    pub(super) result: String,
    pub(super) what: String,
    pub(super) slot: Arc<Slot>,
}

pub(super) enum Item {
    Note(Note),
    End(End),
    /// Records of workers: they come again by themselves, so one that is refused is let go.
    Plain(Vec<Cmd>),
    /// Tells when everything before it has arrived.
    Barrier(oneshot::Sender<()>),
}

impl Item {
    /// Bytes on the wire, roughly.
    fn size(&self) -> usize {
        match self {
            Self::Note(note) => note.result.len() + note.what.len() + note.command.len(),
            Self::End(end) => end.result.len() + end.what.len(),
            Self::Plain(_) | Self::Barrier(_) => 0,
        }
    }
}

pub(super) struct Lane {
    inbox: mpsc::UnboundedSender<Item>,
    stalled: AtomicBool,
}

impl Lane {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Item>) {
        let (inbox, outbox) = mpsc::unbounded_channel();
        (Self { inbox, stalled: AtomicBool::new(false) }, outbox)
    }

    pub(super) fn push(&self, item: Item) {
        // After the end of the engine nothing is delivered, and nobody waits for it.
        drop(self.inbox.send(item));
    }

    /// Whether what is in it cannot be delivered at the moment.
    pub(super) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    /// Waits until everything before has arrived; false when that takes too long.
    pub(super) async fn barrier(&self, wait: Duration) -> bool {
        if self.stalled() {
            return false;
        }
        let (tell, told) = oneshot::channel();
        self.push(Item::Barrier(tell));
        matches!(tokio::time::timeout(wait, told).await, Ok(Ok(())))
    }
}

/// What waits for the answer to a command.
enum Expect {
    Notes(Vec<ClaimToken>),
    End(Arc<Slot>),
    Nothing,
}

pub(super) async fn run(shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Item>) {
    while let Some(first) = inbox.recv().await {
        let mut items = vec![first];
        let mut bytes = items.iter().map(Item::size).sum::<usize>();
        while items.len() < BATCH
            && bytes < BATCH_BYTES
            && let Ok(item) = inbox.try_recv()
        {
            bytes += item.size();
            items.push(item);
        }
        if !deliver(&shared, items).await {
            return;
        }
    }
}

/// Sends the items until all have arrived; false when the engine is closed.
async fn deliver(shared: &Shared, items: Vec<Item>) -> bool {
    let bytes = items.iter().map(Item::size).sum();
    let (mut commands, barriers) = commands(shared, items);
    let mut pause = Duration::from_millis(20);
    while !commands.is_empty() {
        let mut pipe = Pipeline::with_capacity(commands.len());
        for (command, _) in &commands {
            pipe.add_command(command.clone());
        }
        let left = match shared.link.send(&pipe, shared.until_for(bytes)).await {
            Ok(answers) => take(shared, commands, answers),
            Err(Trouble::Closed) => return false,
            Err(trouble) => {
                tracing::debug!(%trouble, "notes and ends wait for Redis");
                commands
            }
        };
        commands = left;
        if !commands.is_empty() {
            shared.lane.stalled.store(true, Ordering::SeqCst);
            // A refusal ends without anybody telling: asking again is all there is.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
    shared.lane.stalled.store(false, Ordering::SeqCst);
    for barrier in barriers {
        // One who no longer waits needs no answer.
        let _ = barrier.send(());
    }
    true
}

fn commands(shared: &Shared, items: Vec<Item>) -> (Vec<(Cmd, Expect)>, Vec<oneshot::Sender<()>>) {
    let ahead = shared.options.clock.ahead();
    let mut commands: Vec<(Cmd, Expect)> = Vec::with_capacity(items.len());
    let mut barriers = Vec::new();
    for item in items {
        match item {
            Item::Note(note) => {
                if !matches!(commands.last(), Some((_, Expect::Notes(tokens))) if tokens.len() < NOTES) {
                    commands.push((shared.scripts.call(Script::Note, ahead, 0), Expect::Notes(Vec::new())));
                }
                if let Some((command, Expect::Notes(tokens))) = commands.last_mut() {
                    command
                        .arg(note.token.job.to_string())
                        .arg(note.token.epoch)
                        .arg(&note.token.node)
                        .arg(note.number)
                        .arg(note.sort)
                        .arg(note.line)
                        .arg(&note.command)
                        .arg(&note.result)
                        .arg(&note.what);
                    tokens.push(note.token);
                }
            }
            Item::End(end) => {
                let mut command = shared.scripts.call(Script::Complete, ahead, 0);
                command
                    .arg(end.token.job.to_string())
                    .arg(end.token.epoch)
                    .arg(&end.token.node)
                    .arg(&end.nonce)
                    .arg(end.status)
                    .arg(&end.result)
                    .arg(&end.what);
                commands.push((command, Expect::End(end.slot)));
            }
            Item::Plain(plain) => {
                commands.extend(plain.into_iter().map(|command| (command, Expect::Nothing)));
            }
            Item::Barrier(tell) => barriers.push(tell),
        }
    }
    (commands, barriers)
}

/// Takes the answers; returns what has to be sent again: from the first that may yet succeed on, so
/// that the order holds.
fn take(shared: &Shared, commands: Vec<(Cmd, Expect)>, answers: Vec<Value>) -> Vec<(Cmd, Expect)> {
    let mut left = Vec::new();
    for ((command, expect), answer) in commands.into_iter().zip(answers) {
        if !left.is_empty() {
            left.push((command, expect));
            continue;
        }
        let heard = match &expect {
            Expect::Nothing => link::sound(answer).map(|_| None),
            _ => shared.hear(answer).map(Some),
        };
        match (heard, expect) {
            (Err(Trouble::Wrong(why)), expect) => {
                tracing::error!(why, "Redis calls a note or an end wrong; it is given up");
                if let Expect::End(slot) = expect {
                    slot.send_replace(Some(Err(QueueError::Corrupt(why))));
                }
            }
            // A worker's record comes again with its next sign of life; no end waits behind it. What
            // was listed is not known any more, so the next one lists its worker anew.
            (Err(Trouble::Refused(why)), Expect::Nothing) => {
                tracing::debug!(why, "Redis refuses a worker's record");
                shared.workers.lock().clear();
            }
            (Err(trouble), expect) => {
                tracing::debug!(%trouble, "notes and ends wait for Redis");
                left.push((command, expect));
            }
            (Ok(Some(reply)), Expect::End(slot)) => {
                let verdict = if reply.text(0) == "1" { Verdict::Taken } else { Verdict::Stale };
                slot.send_replace(Some(Ok(verdict)));
            }
            (Ok(Some(reply)), Expect::Notes(tokens)) => {
                for stale in reply.items(0).iter().filter_map(text) {
                    for token in tokens.iter().filter(|token| token.job.to_string() == stale) {
                        shared.claims.forget(token.job, token.epoch);
                    }
                }
            }
            (Ok(_), _) => {}
        }
    }
    left
}
