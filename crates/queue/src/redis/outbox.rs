//! The outbox: messages of jobs that ended, in the hands of one courier at a time.

use std::sync::Arc;

use std::time::Duration;

use netpulse_model::JobId;
use netpulse_model::event::What;
use redis::Value;

use super::Shared;
use super::record::{self, items, number, text};
use super::scripts::{Script, lifetime};
use crate::api::{Delivered, Delivery, DeliveryId, Due, QueueError, Verdict};

impl Shared {
    pub(super) async fn deliveries(
        self: &Arc<Self>,
        limit: usize,
        hold: Duration,
    ) -> Result<Due, QueueError> {
        self.prepare().await;
        let nodes = self.local_nodes();
        let reply = self
            .ask(Script::Deliveries, |call| {
                call.arg(limit.min(1000)).arg(lifetime(hold));
                for (node, _) in &nodes {
                    call.arg(node);
                }
            })
            .await?;
        let mut deliveries = Vec::new();
        for entry in reply.items(0) {
            match self.delivery(items(entry)) {
                Ok(delivery) => deliveries.push(delivery),
                // It stays in the outbox and is due again; the others go on.
                Err(error) => tracing::error!(%error, "a message of the outbox cannot be read"),
            }
        }
        let next = record::number(reply.value(1)).and_then(|next| u64::try_from(next).ok());
        Ok(Due { deliveries, next: next.map(Duration::from_micros) })
    }

    fn delivery(&self, fields: &[Value]) -> Result<Delivery, QueueError> {
        let odd = || QueueError::Corrupt("a message of the outbox without its job".into());
        let id: JobId = fields.first().and_then(text).and_then(|id| id.parse().ok()).ok_or_else(odd)?;
        let get = |at: usize| fields.get(at).and_then(number);
        let Some(Value::BulkString(sealed)) = fields.get(3) else {
            return Err(odd());
        };
        let record = record::job(id, fields.get(4).map(items).unwrap_or_default())?.ok_or_else(odd)?;
        let notify = self
            .keys
            .open_sealed(id, sealed)
            .map_err(|error| QueueError::Corrupt(format!("the message of job {id}: {error}")))?;
        Ok(Delivery {
            id: id.0,
            job: record.job,
            notify,
            attempt: get(1).and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            epoch: get(2).and_then(|n| u64::try_from(n).ok()).ok_or_else(odd)?,
        })
    }

    pub(super) async fn settle(
        self: &Arc<Self>,
        delivery: DeliveryId,
        epoch: u64,
        how: Delivered,
    ) -> Result<Verdict, QueueError> {
        self.prepare().await;
        let (sort, delay, what) = match how {
            Delivered::Done(None) => ("D", Duration::ZERO, String::new()),
            Delivered::Done(Some(message)) => {
                let what = serde_json::to_string(&What::Undelivered { message })
                    .map_err(|error| QueueError::Corrupt(error.to_string()))?;
                ("D", Duration::ZERO, what)
            }
            Delivered::Again(delay) => ("A", delay, String::new()),
            Delivered::Later(delay) => ("L", delay, String::new()),
            Delivered::Held(hold) => ("H", hold, String::new()),
        };
        let reply = self
            .ask(Script::Settle, |call| {
                call.arg(delivery.to_string()).arg(epoch).arg(sort).arg(lifetime(delay)).arg(&what);
            })
            .await?;
        Ok(if reply.text(0) == "1" { Verdict::Taken } else { Verdict::Stale })
    }
}
