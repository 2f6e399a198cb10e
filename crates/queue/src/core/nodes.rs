//! Nodes and their leases.

use std::collections::HashSet;

use netpulse_model::{DeviceKey, JobId, Timestamp};

use super::ends::Lost;
use super::{Core, Effect, Timer};
use crate::api::{Lease, NodeStatus, Role, Signal};
use crate::clock::Moment;

/// A node that has joined. One that fell silent stays known until it renews or leaves, so that it
/// learns what it lost.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) alive: bool,
    /// What it takes.
    pub(super) role: Role,
    joined_at: Timestamp,
    renewed_at: Timestamp,
    pub(super) running: HashSet<JobId>,
    pub(super) leases: HashSet<DeviceKey>,
    /// Taken from it since it last renewed.
    pub(super) lost: Vec<Lease>,
    /// It knows that `FifoQ` has a job and has not asked since.
    pub(super) fifo_signaled: bool,
    /// Its leases end then, unless it renews.
    until: i64,
}

impl Core {
    /// Makes a node known. What an earlier life of that name held is settled first.
    pub(crate) fn join(&mut self, name: &str, role: Role, now: Moment) {
        self.leave(name, now);
        let until = now.after(self.rules.lease);
        let node = Node {
            alive: true,
            role,
            joined_at: now.wall,
            renewed_at: now.wall,
            running: HashSet::new(),
            leases: HashSet::new(),
            lost: Vec::new(),
            fifo_signaled: false,
            until,
        };
        self.nodes.insert(name.to_owned(), node);
        self.timers.insert((until, Timer::Silent(name.to_owned())));
        let waiting: Vec<DeviceKey> = self.ready.iter().cloned().collect();
        for key in waiting {
            if role.devices && self.devices.get_mut(&key).is_some_and(|device| device.lease.is_none()) {
                let signal = Signal::Device(key);
                self.effects.push(Effect::Signal { node: name.to_owned(), signal });
            }
        }
        if !self.fifo_ready.is_empty() {
            self.signal_fifo();
        }
        self.tell_of_outbox(name, now);
    }

    /// A node takes nothing new. Devices that were offered to it alone are offered to others.
    pub(crate) fn suspend(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.role.devices = false;
        node.role.fifo = false;
        node.fifo_signaled = false;
        let waiting: Vec<DeviceKey> = self.ready.iter().cloned().collect();
        for key in waiting {
            if let Some(device) = self.devices.get_mut(&key).filter(|device| device.lease.is_none()) {
                device.signaled = false;
            }
            self.refresh(&key);
        }
        if !self.fifo_ready.is_empty() {
            self.signal_fifo();
        }
    }

    /// A node goes: its leases end at once and what it still ran is settled.
    pub(crate) fn leave(&mut self, name: &str, now: Moment) {
        if let Some(node) = self.nodes.get(name) {
            self.timers.remove(&(node.until, Timer::Silent(name.to_owned())));
            self.take_all(name, Lost::Worker, now);
            self.nodes.remove(name);
        }
    }

    /// A node has not renewed in time.
    pub(super) fn silent(&mut self, name: &str, now: Moment) {
        self.take_all(name, Lost::Worker, now);
    }

    /// Ends a node's leases and settles its jobs.
    fn take_all(&mut self, name: &str, why: Lost, now: Moment) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.alive = false;
        let running: Vec<JobId> = node.running.drain().collect();
        let devices: Vec<DeviceKey> = node.leases.drain().collect();
        for key in &devices {
            let lease = self.devices.get_mut(key).and_then(|device| {
                device.signaled = false;
                device.lease.take()
            });
            if let Some(lease) = lease {
                let signal = Signal::LeaseLost(lease.clone());
                self.effects.push(Effect::Signal { node: name.to_owned(), signal });
                if let Some(node) = self.nodes.get_mut(name) {
                    node.lost.push(lease);
                }
            }
        }
        for id in running {
            self.settle(id, why, now);
        }
        for key in &devices {
            self.refresh(key);
        }
        self.effects.push(Effect::Gone(name.to_owned()));
    }

    /// Prolongs a node's leases. None when it never joined or has left.
    pub(crate) fn renew(&mut self, name: &str, now: Moment) -> Option<Vec<Lease>> {
        let until = now.after(self.rules.lease);
        let node = self.nodes.get_mut(name)?;
        node.renewed_at = now.wall;
        let lost = std::mem::take(&mut node.lost);
        let woken = !std::mem::replace(&mut node.alive, true);
        let old = std::mem::replace(&mut node.until, until);
        if woken {
            node.fifo_signaled = false;
        }
        self.timers.remove(&(old, Timer::Silent(name.to_owned())));
        self.timers.insert((until, Timer::Silent(name.to_owned())));
        if woken {
            let waiting: Vec<DeviceKey> = self.ready.iter().cloned().collect();
            for key in waiting {
                self.refresh(&key);
            }
            if !self.fifo_ready.is_empty() {
                self.signal_fifo();
            }
            self.tell_of_outbox(name, now);
        }
        Some(lost)
    }

    /// Every node known.
    pub(crate) fn node_statuses(&self) -> Vec<NodeStatus> {
        let mut statuses: Vec<_> = self
            .nodes
            .iter()
            .map(|(name, node)| NodeStatus {
                name: name.clone(),
                role: node.role,
                devices: node.leases.len(),
                running: node.running.len(),
                alive: node.alive,
                joined_at: node.joined_at,
                renewed_at: node.renewed_at,
            })
            .collect();
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        statuses
    }

    /// Takes a device for a node, unless another holds it, or a modification of `FifoQ` runs on it.
    pub(crate) fn acquire(&mut self, name: &str, key: &DeviceKey) -> Option<Lease> {
        let node = self.nodes.get_mut(name).filter(|node| node.alive)?;
        let device = self.devices.entry(key.clone()).or_default();
        match &device.lease {
            Some(lease) if lease.node == name => return Some(lease.clone()),
            Some(_) => return None,
            None => device.signaled = false,
        }
        // One that does not own devices, or no longer, because it drains.
        if !node.role.devices {
            self.refresh(key);
            return None;
        }
        if device.writer.is_some() || node.leases.len() >= node.role.capacity {
            self.refresh(key);
            return None;
        }
        self.epoch += 1;
        let lease = Lease { device: key.clone(), node: name.to_owned(), epoch: self.epoch };
        device.lease = Some(lease.clone());
        node.leases.insert(key.clone());
        Some(lease)
    }

    /// Gives a device back. A job that still runs under the lease is settled as lost.
    pub(crate) fn release(&mut self, lease: &Lease, now: Moment) {
        let Some(device) = self.devices.get_mut(&lease.device) else {
            return;
        };
        if device.lease.as_ref() != Some(lease) {
            return;
        }
        device.lease = None;
        device.signaled = false;
        let running = device.pinned;
        if let Some(node) = self.nodes.get_mut(&lease.node) {
            node.leases.remove(&lease.device);
        }
        if let Some(id) = running {
            self.settle(id, Lost::Worker, now);
        }
        self.refresh(&lease.device);
    }
}
