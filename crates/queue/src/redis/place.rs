//! Which node gets a device that has none: the placer chooses, the scripts make sure that the choice
//! still holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_model::worker::NodeInfo;
use netpulse_model::{DeviceKey, QueueName};

use super::Shared;
use super::record::{device, items, number, text};
use super::scripts::Script;
use crate::api::{Placer, QueueError};

/// No node lives.
pub(super) const NO_NODE: &str = "No available node to run the job";
/// No node has room.
pub(super) const NO_ROOM: &str = "No capacity on nodes";

/// For each device that needs a node: the one chosen, or why there is none.
pub(super) type Choices = HashMap<DeviceKey, Result<String, String>>;

/// A node that may be chosen.
struct Candidate {
    info: NodeInfo,
    idle: usize,
}

/// After that, devices that are placed one by one are left without: their placer hangs.
const ONE_BY_ONE: Duration = Duration::from_secs(10);

impl Candidate {
    /// What it owns, or what of that is busy.
    fn counted(&self, busy_only: bool) -> NodeInfo {
        let idle = if busy_only { self.idle } else { 0 };
        NodeInfo { count: self.info.count.saturating_sub(idle), ..self.info.clone() }
    }
}

impl Shared {
    /// Chooses nodes for those of the devices that no living node has.
    pub(super) async fn choose(&self, devices: BTreeSet<DeviceKey>) -> Result<Choices, QueueError> {
        let mut choices = Choices::new();
        let Some(placer) = &self.options.placer else {
            return Ok(choices);
        };
        let devices: Vec<DeviceKey> = devices.into_iter().collect();
        // A bounded number in one script; the nodes are asked for as they then are.
        for part in devices.chunks(500) {
            let reply = self
                .ask(Script::Survey, |call| {
                    for key in part {
                        call.arg(key.as_str());
                    }
                })
                .await?;
            let mut homeless = Vec::new();
            for name in reply.items(0).iter().filter_map(text) {
                homeless.push(device(name)?);
            }
            let mut nodes: Vec<Candidate> = reply.items(1).iter().filter_map(candidate).collect();
            nodes.sort_by(|a, b| a.info.hostname.cmp(&b.info.hostname));
            // What was chosen a moment ago is not in the store yet.
            for chosen in choices.values().flatten() {
                if let Some(node) = nodes.iter_mut().find(|node| node.info.hostname == *chosen) {
                    node.info.count += 1;
                }
            }
            place(placer.as_ref(), nodes, homeless, &mut choices).await;
        }
        Ok(choices)
    }

    /// Finds nodes for devices that have jobs and lost theirs.
    pub(super) fn find_homes(self: &Arc<Self>, names: Vec<String>) {
        if self.options.placer.is_none() {
            return;
        }
        let shared = Arc::clone(self);
        self.spawn(async move {
            let devices = names.iter().filter_map(|name| device(name).ok()).collect();
            let chosen = match shared.choose(devices).await {
                Ok(choices) => choices,
                Err(error) => {
                    tracing::warn!(%error, "no node can be chosen now for devices that lost theirs");
                    return;
                }
            };
            let mut pairs = Vec::new();
            let mut waiting: BTreeMap<String, (usize, DeviceKey)> = BTreeMap::new();
            for (key, choice) in chosen {
                match choice {
                    Ok(node) => pairs.push((key, node)),
                    Err(why) => waiting.entry(why).or_insert((0, key)).0 += 1,
                }
            }
            // It is asked again and again: one line for all of them.
            for (why, (devices, first)) in waiting {
                tracing::warn!(devices, %first, why, "their jobs wait: no node for them");
            }
            if pairs.is_empty() {
                return;
            }
            let assigned = shared
                .ask(Script::Assign, |call| {
                    for (key, node) in &pairs {
                        call.arg(key.as_str()).arg(node);
                    }
                })
                .await;
            if let Err(error) = assigned {
                tracing::warn!(%error, "nodes were chosen, but could not be written down");
            }
        });
    }
}

fn candidate(entry: &redis::Value) -> Option<Candidate> {
    let fields = items(entry);
    let size = |at: usize| fields.get(at).and_then(number).and_then(|n| usize::try_from(n).ok());
    let hostname = fields.first().and_then(text)?.to_owned();
    let queue = QueueName::Node(hostname.clone());
    Some(Candidate {
        info: NodeInfo { count: size(1)?, capacity: size(3)?, hostname, queue },
        idle: size(2)?,
    })
}

/// First among all there is room for; then, where nothing is left, among nodes that have idle
/// devices to give back.
async fn place(
    placer: &dyn Placer,
    mut nodes: Vec<Candidate>,
    devices: Vec<DeviceKey>,
    choices: &mut Choices,
) {
    if nodes.is_empty() {
        choices.extend(devices.into_iter().map(|key| (key, Err(NO_NODE.to_owned()))));
        return;
    }
    let mut left = devices;
    let mut why = NO_ROOM.to_owned();
    for busy_only in [false, true] {
        if left.is_empty() {
            return;
        }
        let infos: Vec<NodeInfo> = nodes.iter().map(|node| node.counted(busy_only)).collect();
        let room: usize = infos.iter().map(|node| node.capacity.saturating_sub(node.count)).sum();
        if room == 0 {
            continue;
        }
        let together = match placer.place(&infos, &left).await {
            Ok(chosen) if chosen.len() == left.len() => chosen,
            Ok(_) => vec![None; left.len()],
            // It was asked about this device alone, and there is room: to ask again changes nothing,
            // and a placer that hangs would take its time twice.
            Err(text) if left.len() == 1 => {
                why = text;
                break;
            }
            Err(text) => {
                // One too many must not leave the others without: they are placed one by one.
                tracing::debug!(why = text, "the devices are placed one by one");
                let mut one_by_one = Vec::with_capacity(left.len());
                let mut infos = infos;
                let until = Instant::now() + ONE_BY_ONE;
                for key in &left {
                    if Instant::now() > until {
                        why.clone_from(&text);
                        one_by_one.push(None);
                        continue;
                    }
                    let chosen = placer.place(&infos, std::slice::from_ref(key)).await;
                    let chosen = match chosen {
                        Ok(mut chosen) => chosen.pop().flatten(),
                        Err(text) => {
                            let room = infos.iter().any(|node| node.count < node.capacity);
                            why = if room { text } else { NO_ROOM.to_owned() };
                            None
                        }
                    };
                    if let Some(node) = infos.iter_mut().find(|node| Some(&node.hostname) == chosen.as_ref())
                    {
                        node.count += 1;
                    }
                    one_by_one.push(chosen);
                }
                one_by_one
            }
        };
        let mut still = Vec::new();
        for (key, chosen) in left.into_iter().zip(together) {
            let node = chosen.and_then(|name| nodes.iter_mut().find(|node| node.info.hostname == name));
            match node {
                Some(node) => {
                    node.info.count += 1;
                    choices.insert(key, Ok(node.info.hostname.clone()));
                }
                None => still.push(key),
            }
        }
        left = still;
    }
    choices.extend(left.into_iter().map(|key| (key, Err(why.clone()))));
}
