//! The nodes of this process: their lives, their leases by its own clock, their signals.

use std::sync::Arc;

use netpulse_model::DeviceKey;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Shared;
use super::record::{device, items, number, text};
use super::scripts::Script;
use crate::api::{Lease, NodeStatus, QueueError, Role, Signal};
use crate::clock::micros;
use netpulse_model::Timestamp;

/// A node that joined through this process.
pub(super) struct LocalNode {
    /// Tells one joining from the next under the same name.
    pub(super) life: String,
    /// When its leases end unless it renews, in steady time; never later than the store has it.
    pub(super) until: i64,
    /// Up to where it has heard of lost leases.
    heard: String,
    pub(super) signals: mpsc::UnboundedSender<Signal>,
}

/// A signal as it travels.
pub(super) fn signal(node: &str, words: &str) -> Option<Signal> {
    if words == "fifo" {
        return Some(Signal::Fifo);
    }
    if words == "outbox" {
        return Some(Signal::Outbox);
    }
    let (sort, name) = words.split_once(':')?;
    match sort {
        "d" => Some(Signal::Device(device(name).ok()?)),
        "h" => Some(Signal::HandOver(device(name).ok()?)),
        "c" => Some(Signal::Cancel(name.parse().ok()?)),
        "s" => Some(Signal::StopWorker(name.to_owned())),
        "l" => Some(Signal::LeaseLost(lost(node, name)?)),
        _ => None,
    }
}

/// A lease as the scripts write it down: `epoch device`.
fn lost(node: &str, words: &str) -> Option<Lease> {
    let (epoch, key) = words.split_once(' ')?;
    Some(Lease { device: device(key).ok()?, node: node.to_owned(), epoch: epoch.parse().ok()? })
}

impl Shared {
    /// The life of a node of this process, when its leases have not run out by our own clock.
    pub(super) fn living(&self, node: &str) -> Option<String> {
        let now = self.steady();
        self.nodes.lock().get(node).filter(|local| now < local.until).map(|local| local.life.clone())
    }

    /// Lives whose leases have run out by our own clock: they send nothing any more.
    pub(super) fn expired_lives(&self) -> Vec<String> {
        let now = self.steady();
        self.nodes
            .lock()
            .values()
            .filter(|local| now >= local.until)
            .map(|local| local.life.clone())
            .collect()
    }

    /// The nodes of this process, and up to where each has heard of lost leases.
    pub(super) fn local_nodes(&self) -> Vec<(String, String)> {
        self.nodes.lock().iter().map(|(name, local)| (name.clone(), local.heard.clone())).collect()
    }

    /// Tells a node of this process something.
    pub(super) fn tell(&self, node: &str, words: &str) {
        let Some(signal) = signal(node, words) else {
            tracing::warn!(node, words, "a signal that is not understood");
            return;
        };
        if let Signal::LeaseLost(lease) = &signal {
            self.claims.lose_device(node, &lease.device);
        }
        if let Some(local) = self.nodes.lock().get(node) {
            // A node that went without a word learns nothing more; its leases run out.
            drop(local.signals.send(signal));
        }
    }

    /// Ends what nodes of an earlier process of this instance held.
    pub(super) async fn take_over(&self) -> Result<(), QueueError> {
        let reply = self.ask(Script::Nodes, |_| ()).await?;
        for entry in reply.items(0) {
            let fields = items(entry);
            let (Some(node), Some(instance)) = (fields.first().and_then(text), fields.get(10).and_then(text))
            else {
                continue;
            };
            if instance == self.options.instance {
                self.drop_node(node, "", false, true).await?;
            }
        }
        Ok(())
    }

    async fn drop_node(&self, node: &str, life: &str, vouched: bool, remove: bool) -> Result<(), QueueError> {
        loop {
            let reply = self
                .ask(Script::Drop, |call| {
                    call.arg(node).arg(life).arg(u8::from(vouched)).arg(u8::from(remove));
                })
                .await?;
            if reply.text(0) == "1" {
                return Ok(());
            }
        }
    }

    pub(super) async fn join(
        self: &Arc<Self>,
        node: &str,
        role: Role,
    ) -> Result<mpsc::UnboundedReceiver<Signal>, QueueError> {
        self.prepare().await;
        // An earlier life in this process sends no more; what it noted arrives first.
        self.claims.lose_node(node);
        let earlier = self.nodes.lock().get_mut(node).map(|local| local.until = i64::MIN).is_some();
        let vouched = earlier && self.lane.barrier(self.options.deadline).await;
        // From here on nothing that is said to the node is missed.
        self.listener.subscribe(self.key(&format!("signal:{node}"))).await;
        let life = Uuid::new_v4().to_string();
        let asked = loop {
            let asked = self.steady();
            let reply = self
                .ask(Script::Join, |call| {
                    call.arg(node)
                        .arg(&life)
                        .arg(&self.options.instance)
                        .arg(role.capacity.min(1 << 50))
                        .arg(u8::from(role.devices))
                        .arg(u8::from(role.fifo))
                        .arg(u8::from(vouched));
                })
                .await?;
            match reply.text(0) {
                "taken" => return Err(QueueError::NameTaken(node.to_owned())),
                "again" => {}
                _ => break (asked, reply),
            }
        };
        let (tell, told) = mpsc::unbounded_channel();
        let local = LocalNode {
            life,
            until: asked.0.saturating_add(micros(self.options.lease)),
            heard: "0".into(),
            signals: tell,
        };
        self.nodes.lock().insert(node.to_owned(), local);
        for words in asked.1.items(1).iter().filter_map(text) {
            self.tell(node, words);
        }
        Ok(told)
    }

    pub(super) async fn leave(&self, node: &str) -> Result<(), QueueError> {
        let Some(life) = self.nodes.lock().get_mut(node).map(|local| {
            local.until = i64::MIN;
            local.life.clone()
        }) else {
            return Ok(());
        };
        self.claims.lose_node(node);
        let vouched = self.lane.barrier(self.options.deadline).await;
        self.drop_node(node, &life, vouched, true).await?;
        let gone = {
            let mut nodes = self.nodes.lock();
            let same = nodes.get(node).is_some_and(|local| local.life == life);
            same && nodes.remove(node).is_some()
        };
        if gone {
            self.listener.unsubscribe(&self.key(&format!("signal:{node}"))).await;
        }
        Ok(())
    }

    pub(super) async fn suspend(&self, node: &str) -> Result<(), QueueError> {
        let Some(life) = self.living(node) else {
            return Ok(());
        };
        self.ask(Script::Suspend, |call| {
            call.arg(node).arg(&life);
        })
        .await?;
        Ok(())
    }

    pub(super) async fn renew(self: &Arc<Self>, node: &str) -> Result<Vec<Lease>, QueueError> {
        self.prepare().await;
        let unknown = || QueueError::UnknownNode(node.to_owned());
        let (life, heard) = match self.nodes.lock().get(node) {
            Some(local) => (local.life.clone(), local.heard.clone()),
            None => return Err(unknown()),
        };
        let (asked, reply) = loop {
            let asked = self.steady();
            let reply = self
                .ask(Script::Renew, |call| {
                    call.arg(node).arg(&life).arg(&heard);
                })
                .await?;
            match reply.text(0) {
                "unknown" => {
                    self.claims.lose_node(node);
                    self.nodes.lock().retain(|name, local| name != node || local.life != life);
                    return Err(unknown());
                }
                "again" => self.drop_node(node, &life, false, false).await?,
                _ => break (asked, reply),
            }
        };
        if reply.text(0) == "woken" {
            self.claims.lose_node(node);
        }
        let lost_pairs: Vec<&str> = reply.items(1).iter().filter_map(text).collect();
        let mut leases = Vec::new();
        let mut place = heard;
        for pair in lost_pairs.chunks_exact(2) {
            if let [words, at] = pair {
                leases.extend(lost(node, words));
                place = (*at).to_owned();
            }
        }
        for lease in &leases {
            self.claims.lose_device(node, &lease.device);
        }
        if let Some(local) = self.nodes.lock().get_mut(node).filter(|local| local.life == life) {
            local.until = asked.saturating_add(micros(self.options.lease));
            local.heard = place;
        }
        // What was said and not answered is said again: the message may have been lost.
        for words in reply.items(2).iter().filter_map(text) {
            self.tell(node, words);
        }
        Ok(leases)
    }

    pub(super) async fn nodes(self: &Arc<Self>) -> Result<Vec<NodeStatus>, QueueError> {
        self.prepare().await;
        let reply = self.ask(Script::Nodes, |_| ()).await?;
        let mut statuses = Vec::new();
        for entry in reply.items(0) {
            let fields = items(entry);
            let get = |at: usize| fields.get(at).and_then(number).unwrap_or(0);
            let size = |at: usize| usize::try_from(get(at)).unwrap_or(0);
            let Some(name) = fields.first().and_then(text) else { continue };
            statuses.push(NodeStatus {
                name: name.to_owned(),
                role: Role { capacity: size(1), devices: get(2) == 1, fifo: get(3) == 1 },
                alive: get(4) == 1,
                joined_at: Timestamp(get(5)),
                renewed_at: Timestamp(get(6)),
                devices: size(7),
                running: size(8),
            });
        }
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(statuses)
    }

    pub(super) async fn acquire(
        self: &Arc<Self>,
        node: &str,
        key: &DeviceKey,
    ) -> Result<Option<Lease>, QueueError> {
        self.prepare().await;
        let Some(life) = self.living(node) else {
            return Ok(None);
        };
        let reply = self
            .ask(Script::Acquire, |call| {
                call.arg(node).arg(&life).arg(key.as_str());
            })
            .await?;
        let epoch = u64::try_from(reply.number(0)).unwrap_or(0);
        Ok((epoch > 0).then(|| Lease { device: key.clone(), node: node.to_owned(), epoch }))
    }

    pub(super) async fn release(self: &Arc<Self>, lease: &Lease) -> Result<(), QueueError> {
        self.prepare().await;
        self.claims.lose_device(&lease.node, &lease.device);
        let vouched =
            self.nodes.lock().contains_key(&lease.node) && self.lane.barrier(self.options.deadline).await;
        self.ask(Script::Release, |call| {
            call.arg(&lease.node).arg(lease.device.as_str()).arg(lease.epoch).arg(u8::from(vouched));
        })
        .await?;
        Ok(())
    }
}
