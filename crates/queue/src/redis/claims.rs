//! The claims of this process: what lets `progress` answer at once, and how ends are waited for.

use std::collections::HashMap;
use std::sync::Arc;

use netpulse_model::{DeviceKey, JobId};
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::watch;

use super::record::{items, number, text};
use crate::api::{ClaimToken, QueueError, Verdict};

/// A claim in the hands of a worker of this process.
pub(super) struct Held {
    pub(super) node: String,
    pub(super) life: String,
    pub(super) epoch: u64,
    /// By which it is given back.
    pub(super) ticket: String,
    pub(super) device: Option<DeviceKey>,
    pub(super) change: bool,
    /// Taken by the owner of the device, under its lease.
    pub(super) pinned: bool,
    /// Notes made so far.
    pub(super) notes: u64,
}

/// A claim as the scripts answer it.
pub(super) struct Taken {
    pub(super) ticket: String,
    pub(super) epoch: u64,
    pub(super) job: JobId,
    /// The request, sealed.
    pub(super) request: Vec<u8>,
    /// The first of the job's fields.
    pub(super) record: Vec<Value>,
}

impl Taken {
    /// Reads the answer of a script; none when nothing was taken.
    pub(super) fn read(values: &[Value], ticket: &str) -> Option<Self> {
        let epoch = values.first().and_then(number).and_then(|epoch| u64::try_from(epoch).ok())?;
        let request = match values.get(2) {
            Some(Value::BulkString(bytes)) => bytes.clone(),
            _ => Vec::new(),
        };
        Some(Self {
            ticket: ticket.to_owned(),
            epoch,
            job: values.get(1).and_then(text)?.parse().ok()?,
            request,
            record: values.get(3).map(items).unwrap_or_default().to_vec(),
        })
    }
}

/// The claim that an end may bring with it.
pub(super) enum Brought {
    /// Somebody waits for it.
    Awaited,
    /// Whoever asked has gone.
    Unwanted,
    /// Nothing waited that may start.
    Nothing,
    Here(Taken),
}

/// A completion on its way, or decided while nobody waited.
pub(super) struct Ending {
    /// None until there is a verdict.
    verdict: watch::Sender<Option<Result<Verdict, QueueError>>>,
    brought: Mutex<Brought>,
}

impl Ending {
    pub(super) fn new() -> Self {
        Self { verdict: watch::Sender::new(None), brought: Mutex::new(Brought::Awaited) }
    }

    pub(super) fn decide(&self, verdict: Result<Verdict, QueueError>) {
        self.verdict.send_replace(Some(verdict));
    }

    /// Waits for the verdict.
    pub(super) async fn decided(&self) -> Result<Verdict, QueueError> {
        let mut verdict = self.verdict.subscribe();
        match verdict.wait_for(Option::is_some).await {
            Ok(decided) => decided.clone().unwrap_or(Err(QueueError::Closed)),
            Err(_) => Err(QueueError::Closed),
        }
    }

    /// Puts the next claim down for whoever waits; returns it when nobody does.
    pub(super) fn bring(&self, taken: Option<Taken>) -> Option<Taken> {
        let mut brought = self.brought.lock();
        if matches!(*brought, Brought::Unwanted) {
            return taken;
        }
        *brought = taken.map_or(Brought::Nothing, Brought::Here);
        None
    }

    /// Somebody waits (again).
    pub(super) fn await_next(&self) {
        let mut brought = self.brought.lock();
        if matches!(*brought, Brought::Unwanted) {
            *brought = Brought::Awaited;
        }
    }

    /// Takes what the end brought; from now on nobody waits for it.
    pub(super) fn leave(&self) -> Brought {
        std::mem::replace(&mut *self.brought.lock(), Brought::Unwanted)
    }
}

#[derive(Default)]
pub(super) struct Claims {
    pub(super) held: Mutex<HashMap<JobId, Held>>,
    pub(super) ending: Mutex<HashMap<ClaimToken, Arc<Ending>>>,
}

impl Claims {
    /// The claim is over, if it is still this one.
    pub(super) fn forget(&self, job: JobId, epoch: u64) {
        let mut held = self.held.lock();
        if held.get(&job).is_some_and(|claim| claim.epoch == epoch) {
            held.remove(&job);
        }
    }

    /// Everything that a node holds is lost.
    pub(super) fn lose_node(&self, node: &str) {
        self.held.lock().retain(|_, claim| claim.node != node);
    }

    /// What a node held of one device by its lease is lost.
    pub(super) fn lose_device(&self, node: &str, device: &DeviceKey) {
        self.held.lock().retain(|_, claim| {
            !(claim.pinned && claim.node == node && claim.device.as_ref() == Some(device))
        });
    }
}
