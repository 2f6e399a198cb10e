//! One device: what waits for it, what runs on it, who holds its lease.

use std::collections::{BTreeMap, BTreeSet};

use netpulse_model::{DeviceKey, JobId};

use super::{Core, Effect, Order, Way};
use crate::api::{Lease, Signal};

/// A device that somebody waits for, runs on or holds; others have no entry.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) lease: Option<Lease>,
    /// Waiting in its own queue.
    pub(super) host: BTreeMap<Order, JobId>,
    /// Waiting for it in `FifoQ`.
    pub(super) fifo: BTreeMap<Order, JobId>,
    /// The modifications among both.
    pub(super) modifications: BTreeSet<Order>,
    /// The job that its owner runs.
    pub(super) pinned: Option<JobId>,
    /// The jobs that slots of `FifoQ` run on it.
    pub(super) fifo_running: Vec<JobId>,
    /// The one modification among both.
    pub(super) writer: Option<JobId>,
    /// Jobs that wait for it, in any way, those being accepted too.
    pub(super) queued: usize,
    /// Its nodes know that a job waits and have not asked since.
    pub(super) signaled: bool,
    /// Its entry in [`Core::fifo_ready`].
    fifo_entry: Option<Order>,
}

impl Device {
    /// Promise 3: modifications start alone and in turn; queries of the two ways may overlap and
    /// overtake one another, but never a modification.
    fn may_start(&self, order: Order, way: Way) -> bool {
        if self.writer.is_some() || (way == Way::Pinned && self.pinned.is_some()) {
            return false;
        }
        if self.modifications.contains(&order) {
            let first = self.host.keys().next().into_iter().chain(self.fifo.keys().next()).min();
            return self.pinned.is_none() && self.fifo_running.is_empty() && first == Some(&order);
        }
        self.modifications.first().is_none_or(|modification| *modification > order)
    }

    /// The job of its own queue that may start now.
    pub(super) fn host_candidate(&self) -> Option<JobId> {
        let (order, id) = self.host.first_key_value()?;
        self.may_start(*order, Way::Pinned).then_some(*id)
    }

    fn fifo_candidate(&self) -> Option<(Order, JobId)> {
        let (order, id) = self.fifo.first_key_value()?;
        self.may_start(*order, Way::Fifo).then_some((*order, *id))
    }

    /// The job that keeps others waiting.
    pub(super) fn holder(&self) -> Option<JobId> {
        self.writer.or(self.pinned).or(self.fifo_running.first().copied())
    }

    pub(super) fn free(&mut self, id: JobId) {
        if self.pinned == Some(id) {
            self.pinned = None;
        }
        self.fifo_running.retain(|running| *running != id);
        if self.writer == Some(id) {
            self.writer = None;
        }
    }

    fn is_unused(&self) -> bool {
        self.lease.is_none()
            && self.queued == 0
            && self.pinned.is_none()
            && self.fifo_running.is_empty()
            && self.host.is_empty()
            && self.fifo.is_empty()
    }
}

impl Core {
    /// After any change of a device: says who may start now and tells the nodes.
    pub(super) fn refresh(&mut self, key: &DeviceKey) {
        let Some(device) = self.devices.get_mut(key) else {
            return;
        };
        let candidate = device.fifo_candidate();
        let entry = candidate.map(|(order, _)| order);
        let old = std::mem::replace(&mut device.fifo_entry, entry);
        let wants_owner = device.host_candidate().is_some();
        let unused = device.is_unused();
        if old != entry {
            if let Some(order) = old {
                self.fifo_ready.remove(&order);
            }
            if let Some((order, id)) = candidate {
                self.fifo_ready.insert(order, id);
            }
        }
        if candidate.is_some() {
            self.signal_fifo();
        }
        if wants_owner {
            if !self.ready.contains(key) {
                self.ready.insert(key.clone());
            }
            self.signal_device(key);
        } else {
            self.ready.remove(key);
        }
        if unused {
            self.devices.remove(key);
        }
    }

    /// Tells the owner, or everybody when nobody owns it, that a job waits; once until they ask.
    fn signal_device(&mut self, key: &DeviceKey) {
        let Some(device) = self.devices.get_mut(key) else {
            return;
        };
        if device.signaled {
            return;
        }
        match &device.lease {
            Some(lease) => {
                let signal = Signal::Device(key.clone());
                self.effects.push(Effect::Signal { node: lease.node.clone(), signal });
                device.signaled = true;
            }
            None => {
                for (node, state) in &self.nodes {
                    if state.alive && state.role.devices {
                        let signal = Signal::Device(key.clone());
                        self.effects.push(Effect::Signal { node: node.clone(), signal });
                        device.signaled = true;
                    }
                }
            }
        }
    }

    /// Tells every node that `FifoQ` has a job that may start; once until it asks.
    pub(super) fn signal_fifo(&mut self) {
        for (node, state) in &mut self.nodes {
            if state.alive && state.role.fifo && !state.fifo_signaled {
                state.fifo_signaled = true;
                self.effects.push(Effect::Signal { node: node.clone(), signal: Signal::Fifo });
            }
        }
    }
}
