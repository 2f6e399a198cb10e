//! The outbox: who is to be told of jobs that ended, when, and who is at it.
//!
//! Only places and times are kept here; the messages themselves lie on disk until they are claimed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::{JobId, Timestamp};

use super::{Core, Effect, Timer};
use crate::api::{Delivered, DeliveryId, Signal};
use crate::clock::{Moment, micros};

/// A message as it lies on disk, without its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Posted {
    /// Its place in the order of ends.
    pub(crate) place: u64,
    pub(crate) id: DeliveryId,
    pub(crate) job: JobId,
    /// Attempts made or lost so far.
    pub(crate) attempt: u32,
    /// Not before this.
    pub(crate) due: Timestamp,
}

/// What has to be on disk about a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// An attempt begins: a courier that is lost from here on counts as one.
    Attempt { place: u64, attempt: u32 },
    /// It waits for its next attempt.
    Due { place: u64, attempt: u32, due: Timestamp },
    /// It is done with.
    Gone { place: u64 },
}

#[derive(Debug)]
struct Message {
    place: u64,
    job: JobId,
    attempt: u32,
    /// In steady time: when it may be claimed; for one in hands, when its hold ends.
    due: i64,
    /// The claim, while one holds or until another follows.
    epoch: Option<u64>,
}

/// A message in the hands of a courier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) place: u64,
    pub(crate) id: DeliveryId,
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) epoch: u64,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: HashMap<DeliveryId, Message>,
    /// Everything in `messages`, oldest first among those due at the same time.
    due: BTreeSet<(i64, u64, DeliveryId)>,
    /// Jobs that have not ended and will make a message.
    promised: usize,
    /// The nodes know that messages are due and none has asked since.
    signaled: bool,
    timer: Option<i64>,
}

impl Core {
    /// Keeps room for the message of a job that is being accepted.
    pub(super) fn reserve_message(&mut self) -> Result<(), String> {
        let outbox = &mut self.outbox;
        let taken = outbox.promised + outbox.messages.len();
        if taken >= self.rules.max_outbox {
            return Err(format!(
                "{} webhooks are undelivered and {} more will follow already (store.max_outbox)",
                outbox.messages.len(),
                outbox.promised
            ));
        }
        outbox.promised += 1;
        Ok(())
    }

    /// A job that was to make a message has made it, or never will.
    pub(super) fn unreserve_message(&mut self) {
        self.outbox.promised = self.outbox.promised.saturating_sub(1);
    }

    /// A job read back from disk will make a message.
    pub(super) fn promise_message(&mut self) {
        self.outbox.promised += 1;
    }

    /// A message is on disk: it may be claimed once it is due.
    pub(crate) fn post(&mut self, posted: Posted, now: Moment) {
        let wait = posted.due.0.saturating_sub(now.wall.0).max(0);
        let due = now.steady.saturating_add(wait);
        let Posted { place, id, job, attempt, .. } = posted;
        self.outbox.messages.insert(id, Message { place, job, attempt, due, epoch: None });
        self.outbox.due.insert((due, place, id));
        self.outbox_changed(now);
    }

    /// Up to `limit` messages that are due, for `hold`; and when the next one is due.
    pub(crate) fn take_messages(
        &mut self,
        limit: usize,
        hold: Duration,
        now: Moment,
    ) -> (Vec<Taken>, Option<Duration>) {
        self.outbox.signaled = false;
        let ready: Vec<_> =
            self.outbox.due.iter().take_while(|(due, ..)| *due <= now.steady).take(limit).copied().collect();
        let until = now.after(hold);
        let mut taken = Vec::with_capacity(ready.len());
        for key in ready {
            let (_, place, id) = key;
            let Some(message) = self.outbox.messages.get_mut(&id) else { continue };
            self.epoch += 1;
            message.epoch = Some(self.epoch);
            message.attempt += 1;
            message.due = until;
            self.outbox.due.remove(&key);
            self.outbox.due.insert((until, place, id));
            taken.push(Taken { place, id, job: message.job, attempt: message.attempt, epoch: self.epoch });
        }
        let next = self
            .outbox
            .due
            .first()
            .map(|(due, ..)| Duration::from_micros(due.saturating_sub(now.steady).max(0).unsigned_abs()));
        // Whoever was told of the next one by this answer comes back by itself.
        self.outbox.signaled = next == Some(Duration::ZERO);
        self.rearm_outbox(now);
        (taken, next)
    }

    /// How an attempt went, or that it was none. None when the claim is no longer this one.
    pub(crate) fn settle_message(
        &mut self,
        id: DeliveryId,
        epoch: u64,
        how: &Delivered,
        now: Moment,
    ) -> Option<Option<Mark>> {
        let message = self.outbox.messages.get_mut(&id).filter(|message| message.epoch == Some(epoch))?;
        let place = message.place;
        self.outbox.due.remove(&(message.due, place, id));
        let mark = match how {
            Delivered::Done(why) => {
                let job = message.job;
                self.outbox.messages.remove(&id);
                if let Some(message) = why {
                    let what = What::Undelivered { message: message.clone() };
                    self.effects.push(Effect::Event { at: now.wall, job, device: None, what });
                }
                Some(Mark::Gone { place })
            }
            Delivered::Again(delay) | Delivered::Later(delay) => {
                if matches!(how, Delivered::Later(_)) {
                    message.attempt = message.attempt.saturating_sub(1);
                }
                message.epoch = None;
                message.due = now.after(*delay);
                self.outbox.due.insert((message.due, place, id));
                let due = Timestamp(now.wall.0.saturating_add(micros(*delay)));
                Some(Mark::Due { place, attempt: message.attempt, due })
            }
            Delivered::Held(hold) => {
                message.due = now.after(*hold);
                self.outbox.due.insert((message.due, place, id));
                None
            }
        };
        self.outbox_changed(now);
        Some(mark)
    }

    /// Messages whose time has come, or whose hold has ended.
    pub(super) fn outbox_due(&mut self, now: Moment) {
        self.outbox.timer = None;
        self.outbox_changed(now);
    }

    /// Tells the nodes when a message is due, once until one of them asks, and sets the timer for
    /// the next one.
    pub(super) fn outbox_changed(&mut self, now: Moment) {
        let ready = self.outbox.due.first().is_some_and(|(due, ..)| *due <= now.steady);
        if ready && !self.outbox.signaled {
            for (node, state) in &self.nodes {
                if state.alive {
                    self.outbox.signaled = true;
                    self.effects.push(Effect::Signal { node: node.clone(), signal: Signal::Outbox });
                }
            }
        }
        self.rearm_outbox(now);
    }

    /// A node has come, or come back: it is told of messages that are due.
    pub(super) fn tell_of_outbox(&mut self, node: &str, now: Moment) {
        if self.outbox.due.first().is_some_and(|(due, ..)| *due <= now.steady) {
            self.outbox.signaled = true;
            self.effects.push(Effect::Signal { node: node.to_owned(), signal: Signal::Outbox });
        }
    }

    fn rearm_outbox(&mut self, now: Moment) {
        // Those due already need no timer: they have been signaled.
        let from = (now.steady.saturating_add(1), 0, DeliveryId::nil());
        let next = self.outbox.due.range(from..).next().map(|(due, ..)| *due);
        if next == self.outbox.timer {
            return;
        }
        if let Some(at) = self.outbox.timer.take() {
            self.timers.remove(&(at, Timer::Outbox));
        }
        if let Some(at) = next {
            self.timers.insert((at, Timer::Outbox));
            self.outbox.timer = Some(at);
        }
    }
}
