//! The claims of this process: what lets `progress` answer at once.

use std::collections::HashMap;
use std::sync::Arc;

use netpulse_model::{DeviceKey, JobId};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::api::{ClaimToken, QueueError, Verdict};

/// A claim in the hands of a worker of this process.
pub(super) struct Held {
    pub(super) node: String,
    pub(super) life: String,
    pub(super) epoch: u64,
    pub(super) device: Option<DeviceKey>,
    pub(super) change: bool,
    /// Taken by the owner of the device, under its lease.
    pub(super) pinned: bool,
    /// Notes made so far.
    pub(super) notes: u64,
}

/// How a completion stands: none until there is a verdict.
pub(super) type Slot = watch::Sender<Option<Result<Verdict, QueueError>>>;

#[derive(Default)]
pub(super) struct Claims {
    pub(super) held: Mutex<HashMap<JobId, Held>>,
    /// Completions on their way, or decided while nobody waited.
    pub(super) ending: Mutex<HashMap<ClaimToken, Arc<Slot>>>,
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
