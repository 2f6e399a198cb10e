//! `least_load` and `least_load_random`: the node that owns the fewest devices first.

use std::cmp::Reverse;

use async_trait::async_trait;
use netpulse_model::worker::NodeInfo;
use netpulse_plugin::{PluginError, Scheduler};
use rand::{Rng, RngExt};

use crate::{check_room, fill, insufficient, room};

/// The fewest devices, then the most room, then the smallest name: the same answer every time.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoad;

#[async_trait]
impl Scheduler for LeastLoad {
    fn name(&self) -> &str {
        "least_load"
    }

    async fn node_select(&self, nodes: &[NodeInfo], _host: &str) -> Result<String, PluginError> {
        nodes
            .iter()
            .filter(|node| room(node) > 0)
            .min_by_key(|node| order(node))
            .map(|node| node.hostname.clone())
            .ok_or_else(insufficient)
    }

    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, PluginError> {
        check_room(nodes, hosts)?;
        let mut sorted: Vec<&NodeInfo> = nodes.iter().filter(|node| room(node) > 0).collect();
        sorted.sort_by_key(|node| order(node));
        Ok(fill(sorted, hosts.len()))
    }
}

fn order(node: &NodeInfo) -> (usize, Reverse<usize>, &str) {
    (node.count, Reverse(room(node)), node.hostname.as_str())
}

/// As [`LeastLoad`], but among equals by chance, so that many who ask at once do not all choose
/// the same node.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoadRandom;

#[async_trait]
impl Scheduler for LeastLoadRandom {
    fn name(&self) -> &str {
        "least_load_random"
    }

    async fn node_select(&self, nodes: &[NodeInfo], _host: &str) -> Result<String, PluginError> {
        one(nodes, &mut rand::rng()).map(|node| node.hostname.clone()).ok_or_else(insufficient)
    }

    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, PluginError> {
        check_room(nodes, hosts)?;
        Ok(many(nodes, hosts.len(), &mut rand::rng()))
    }
}

/// By chance among those that own the fewest and of these have the most room.
fn one<'n>(nodes: &'n [NodeInfo], chance: &mut impl Rng) -> Option<&'n NodeInfo> {
    let rank = |node: &NodeInfo| (node.count, Reverse(room(node)));
    let available = || nodes.iter().filter(|node| room(node) > 0);
    let best = available().map(rank).min()?;
    let equals: Vec<&NodeInfo> = available().filter(|node| rank(node) == best).collect();
    equals.get(chance.random_range(0..equals.len())).copied()
}

/// Level by level of devices owned. In a level only the nodes with the most room take part, by
/// chance one host at a time until they are full; what that leaves over goes wherever there is
/// room, so that no host stays without a node while one has a place.
fn many(nodes: &[NodeInfo], hosts: usize, chance: &mut impl Rng) -> Vec<Option<String>> {
    let mut left: Vec<usize> = nodes.iter().map(room).collect();
    let mut levels: Vec<usize> = nodes.iter().filter(|node| room(node) > 0).map(|node| node.count).collect();
    levels.sort_unstable();
    levels.dedup();
    let mut groups: Vec<Vec<usize>> = Vec::with_capacity(levels.len() + 1);
    for level in levels {
        let of_level = || (0..nodes.len()).filter(|&i| nodes[i].count == level && left[i] > 0);
        let most = of_level().map(|i| left[i]).max().unwrap_or(0);
        groups.push(of_level().filter(|&i| left[i] == most).collect());
    }
    groups.push((0..nodes.len()).collect());

    let mut chosen = Vec::with_capacity(hosts);
    for mut group in groups {
        group.retain(|&i| left[i] > 0);
        while chosen.len() < hosts && !group.is_empty() {
            let at = chance.random_range(0..group.len());
            let node = group[at];
            chosen.push(Some(nodes[node].hostname.clone()));
            left[node] -= 1;
            if left[node] == 0 {
                group.swap_remove(at);
            }
        }
    }
    chosen.resize(hosts, None);
    chosen
}

#[cfg(test)]
mod tests {
    use netpulse_model::QueueName;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn node(name: &str, count: usize, capacity: usize) -> NodeInfo {
        NodeInfo { hostname: name.into(), count, capacity, queue: QueueName::Node(name.into()) }
    }

    #[test]
    fn levels_fill_in_turn_and_the_skipped_nodes_take_what_is_left() {
        // Of level 0 only `a` and `b` have the most room; `c` is passed over until all levels are full.
        let nodes = [node("a", 0, 2), node("b", 0, 2), node("c", 0, 1), node("d", 1, 2)];
        for seed in 0..50 {
            let chosen = many(&nodes, 6, &mut StdRng::seed_from_u64(seed));
            let names: Vec<&str> = chosen.iter().map(|n| n.as_deref().unwrap()).collect();
            let mut first: Vec<&str> = names[..4].to_vec();
            first.sort_unstable();
            assert_eq!(first, ["a", "a", "b", "b"], "seed {seed}");
            assert_eq!(names[4..], ["d", "c"], "seed {seed}");
        }
    }

    #[test]
    fn chance_reaches_every_equal_and_nobody_else() {
        let nodes = [node("a", 1, 9), node("b", 1, 9), node("c", 1, 8), node("d", 2, 99)];
        let mut chance = StdRng::seed_from_u64(1);
        let mut seen: Vec<&str> =
            (0..200).map(|_| one(&nodes, &mut chance).unwrap().hostname.as_str()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, ["a", "b"]);
    }
}
