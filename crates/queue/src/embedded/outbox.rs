//! The outbox: claims are decided in memory, counted on disk before anything is sent, and read
//! from there.

use std::sync::Arc;
use std::time::Duration;

use netpulse_model::Job;
use tokio::sync::oneshot;

use super::writer::{Done, Work};
use super::{Shared, store};
use crate::api::{Delivered, Delivery, DeliveryId, Due, QueueError, Verdict};
use crate::core::{Mark, Taken};

/// Gives messages back when the call that took them could not hand them over.
struct Untake<'a> {
    shared: &'a Shared,
    taken: Vec<Taken>,
}

impl Drop for Untake<'_> {
    fn drop(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let marks = self.shared.with(|state, now| {
            let later = Delivered::Later(Duration::ZERO);
            let settle =
                |taken: &Taken| state.core.settle_message(taken.id, taken.epoch, &later, now).flatten();
            self.taken.iter().filter_map(settle).collect()
        });
        // Only the count of attempts: not worth being held during an outage.
        self.shared.send(Work::Outbox(marks), false, false, Box::new(|_, _| ()));
    }
}

impl Shared {
    pub(super) async fn deliveries(
        self: &Arc<Self>,
        limit: usize,
        hold: Duration,
    ) -> Result<Due, QueueError> {
        let (taken, next) = self.with(|state, now| state.core.take_messages(limit, hold, now));
        if taken.is_empty() {
            return Ok(Due { deliveries: Vec::new(), next });
        }
        let mut guard = Untake { shared: self, taken };
        let marks = guard.taken.iter().map(|t| Mark::Attempt { place: t.place, attempt: t.attempt });
        self.barrier(Work::Outbox(marks.collect())).await?;
        let places: Vec<u64> = guard.taken.iter().map(|taken| taken.place).collect();
        let contents = self
            .read(move |db, _| {
                let read = |place| store::message(db, place);
                Ok(places.into_iter().map(read).collect::<Vec<_>>())
            })
            .await?;
        let mut deliveries = Vec::with_capacity(contents.len());
        let mut unreadable = Vec::new();
        for (taken, content) in std::mem::take(&mut guard.taken).into_iter().zip(contents) {
            match self.open(&taken, content) {
                Ok((job, notify)) => deliveries.push(Delivery {
                    id: taken.id,
                    job,
                    notify,
                    attempt: taken.attempt,
                    epoch: taken.epoch,
                }),
                Err(why) => unreadable.push((taken, why)),
            }
        }
        for (taken, why) in unreadable {
            tracing::error!(job = %taken.job, delivery = %taken.id, why, "a stored webhook cannot be read and is given up");
            self.settle(taken.id, taken.epoch, &Delivered::Done(Some(why))).await?;
        }
        Ok(Due { deliveries, next })
    }

    fn open(
        &self,
        taken: &Taken,
        content: rusqlite::Result<Option<(Job, Vec<u8>)>>,
    ) -> Result<(Job, Vec<u8>), String> {
        let (job, sealed) = content
            .map_err(|error| format!("the stored message cannot be read: {error}"))?
            .ok_or("the stored message is missing")?;
        let notify = self
            .keys
            .open_sealed(taken.job, &sealed)
            .map_err(|error| format!("the stored webhook cannot be opened: {error}"))?;
        Ok((job, notify))
    }

    pub(super) async fn settle(
        &self,
        id: DeliveryId,
        epoch: u64,
        how: &Delivered,
    ) -> Result<Verdict, QueueError> {
        let Some(mark) = self.with(|state, now| state.core.settle_message(id, epoch, how, now)) else {
            return Ok(Verdict::Stale);
        };
        match mark {
            None => {}
            Some(mark @ Mark::Gone { .. }) => {
                let (reply, answer) = oneshot::channel();
                let done: Done = Box::new(move |_, report| drop(reply.send(report.map(|_| ()))));
                // Written however long that takes: what has arrived is not to be sent again.
                self.send(Work::Outbox(vec![mark]), true, true, done);
                self.answer(answer).await?;
            }
            // Should this not reach the disk, the message is due earlier: it is sent in any case.
            Some(mark) => self.send(Work::Outbox(vec![mark]), false, true, Box::new(|_, _| ())),
        }
        Ok(Verdict::Taken)
    }
}
