//! The one ordered way of notes, ends and worker records to the store.
//!
//! Everything that waits goes as one pipeline, and the next one follows when it is answered: a group
//! commit. What cannot be delivered is kept and sent again in the same order; notes and the batches
//! that they travel in bear numbers and ends a nonce, so that what had arrived after all counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::Shared;
use super::claims::{Ending, Taken};
use super::link::{self, Trouble};
use super::record::{items, text};
use super::scripts::Script;
use crate::api::{ClaimToken, QueueError, Verdict};

/// Items of one pipeline.
const BATCH: usize = 256;
/// Bytes after which a pipeline takes nothing more.
const BATCH_BYTES: usize = 4 << 20;
/// Notes and ends of one script.
const WORK: usize = 32;

/// A note as `work.lua` takes it.
pub(super) struct Note {
    pub(super) token: ClaimToken,
    pub(super) number: u64,
    pub(super) sort: &'static str,
    pub(super) line: usize,
    pub(super) command: String,
    pub(super) result: String,
    pub(super) what: String,
}

/// An end as `work.lua` takes it.
pub(super) struct End {
    pub(super) token: ClaimToken,
    pub(super) nonce: String,
    pub(super) status: &'static str,
    pub(super) result: String,
    pub(super) what: String,
    /// The device's lease, when its next job is to be taken in the same step.
    pub(super) lease: Option<u64>,
    pub(super) ending: Arc<Ending>,
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

/// What one command carries.
enum Load {
    /// Notes and ends, and the number by which the store knows them when they come again.
    Work(u64, Vec<Done>),
    Plain(Cmd),
}

/// What a worker did.
enum Done {
    Note(Note),
    End(End),
}

impl Done {
    fn arguments(&self, call: &mut Cmd) {
        match self {
            Self::Note(note) => {
                call.arg(note.sort)
                    .arg(note.token.job.to_string())
                    .arg(note.token.epoch)
                    .arg(&note.token.node)
                    .arg(note.number)
                    .arg(note.line)
                    .arg(&note.command)
                    .arg(&note.result)
                    .arg(&note.what);
            }
            Self::End(end) => {
                call.arg("E")
                    .arg(end.token.job.to_string())
                    .arg(end.token.epoch)
                    .arg(&end.token.node)
                    .arg(&end.nonce)
                    .arg(end.status)
                    .arg(&end.result)
                    .arg(&end.what);
                match end.lease {
                    Some(epoch) => call.arg(epoch),
                    None => call.arg(""),
                };
                // The nonce is the ticket too: whoever knows it made both.
                call.arg(&end.nonce);
            }
        }
    }
}

/// The lane's own end: what it sends under, and how many batches it has made.
struct Sender {
    process: String,
    batches: u64,
}

pub(super) async fn run(shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Item>) {
    let mut sender = Sender { process: Uuid::new_v4().simple().to_string(), batches: 0 };
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
        if !sender.deliver(&shared, items, bytes).await {
            return;
        }
    }
}

impl Sender {
    /// Sends the items until all have arrived; false when the engine is closed.
    async fn deliver(&mut self, shared: &Arc<Shared>, items: Vec<Item>, bytes: usize) -> bool {
        let (mut loads, barriers) = self.loads(items);
        let mut pause = Duration::from_millis(20);
        while !loads.is_empty() {
            let pipe = self.pipeline(shared, &loads);
            let left = match shared.link.send(&pipe, shared.until_for(bytes)).await {
                Ok(answers) => self.take(shared, loads, answers),
                Err(Trouble::Closed) => return false,
                Err(trouble) => {
                    tracing::debug!(%trouble, "notes and ends wait for Redis");
                    loads
                }
            };
            loads = left;
            if !loads.is_empty() {
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

    fn batch(&mut self, done: Vec<Done>) -> Load {
        self.batches += 1;
        Load::Work(self.batches, done)
    }

    /// Puts what workers did together; their records follow, as nothing waits for those.
    fn loads(&mut self, items: Vec<Item>) -> (Vec<Load>, Vec<oneshot::Sender<()>>) {
        let (mut loads, mut plain, mut barriers) = (Vec::new(), Vec::new(), Vec::new());
        let mut open = Vec::new();
        for item in items {
            match item {
                Item::Note(note) => open.push(Done::Note(note)),
                Item::End(end) => open.push(Done::End(end)),
                Item::Plain(commands) => plain.extend(commands.into_iter().map(Load::Plain)),
                Item::Barrier(tell) => barriers.push(tell),
            }
            if open.len() == WORK {
                loads.push(self.batch(std::mem::take(&mut open)));
            }
        }
        if !open.is_empty() {
            loads.push(self.batch(open));
        }
        loads.extend(plain);
        (loads, barriers)
    }

    fn pipeline(&self, shared: &Shared, loads: &[Load]) -> Pipeline {
        let ahead = shared.options.clock.ahead();
        let mut pipe = Pipeline::with_capacity(loads.len());
        for load in loads {
            pipe.add_command(match load {
                Load::Plain(command) => command.clone(),
                Load::Work(number, done) => {
                    let mut call = shared.scripts.call(Script::Work, ahead, 0);
                    call.arg(&self.process).arg(*number);
                    for one in done {
                        one.arguments(&mut call);
                    }
                    call
                }
            });
        }
        pipe
    }

    /// Takes the answers; returns what has to be sent again: from the first that may yet succeed on,
    /// so that the order holds.
    fn take(&mut self, shared: &Arc<Shared>, loads: Vec<Load>, answers: Vec<Value>) -> Vec<Load> {
        let mut left = Vec::new();
        for (load, answer) in loads.into_iter().zip(answers) {
            if !left.is_empty() {
                left.push(load);
                continue;
            }
            match load {
                Load::Plain(command) => match link::sound(answer) {
                    Ok(_) => {}
                    // A worker's record comes again with its next sign of life; no end waits behind
                    // it. What was listed is not known any more, so the next one lists its worker anew.
                    Err(Trouble::Refused(why) | Trouble::Wrong(why)) => {
                        tracing::debug!(why, "Redis refuses a worker's record");
                        shared.workers.lock().clear();
                    }
                    Err(trouble) => {
                        tracing::debug!(%trouble, "notes and ends wait for Redis");
                        left.push(Load::Plain(command));
                    }
                },
                Load::Work(number, done) => match shared.hear(answer) {
                    Ok(reply) => {
                        for (one, met) in done.into_iter().zip(reply.items(0)) {
                            take_one(shared, one, met);
                        }
                    }
                    // One of them is at fault; the others need not suffer for it.
                    Err(Trouble::Wrong(_)) if done.len() > 1 => {
                        left.extend(done.into_iter().map(|one| self.batch(vec![one])));
                    }
                    Err(Trouble::Wrong(why)) => {
                        tracing::error!(why, "Redis calls a note or an end wrong; it is given up");
                        for one in done {
                            if let Done::End(end) = one {
                                end.ending.decide(Err(QueueError::Corrupt(why.clone())));
                            }
                        }
                    }
                    Err(trouble) => {
                        tracing::debug!(%trouble, "notes and ends wait for Redis");
                        left.push(Load::Work(number, done));
                    }
                },
            }
        }
        left
    }
}

fn take_one(shared: &Arc<Shared>, one: Done, met: &Value) {
    match one {
        Done::Note(note) => {
            if text(met) == Some("0") {
                shared.claims.forget(note.token.job, note.token.epoch);
            }
        }
        Done::End(end) => {
            let verdict = if text(met) == Some("0") { Verdict::Stale } else { Verdict::Taken };
            if end.lease.is_some()
                && verdict == Verdict::Taken
                && let Some(taken) = end.ending.bring(Taken::read(items(met), &end.nonce))
            {
                shared.give_back(end.token.node, taken.ticket, taken.job);
            }
            end.ending.decide(Ok(verdict));
        }
    }
}
