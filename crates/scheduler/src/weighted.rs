//! `load_weighted_random`: by chance, the more room the likelier.

use async_trait::async_trait;
use netpulse_model::worker::NodeInfo;
use netpulse_plugin::{Failed, PluginError, Scheduler};
use rand::{Rng, RngExt};

use crate::{insufficient, room, total_room};

/// Spreads devices by the room that nodes have, without two who ask at once choosing alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadWeightedRandom;

#[async_trait]
impl Scheduler for LoadWeightedRandom {
    fn name(&self) -> &str {
        "load_weighted_random"
    }

    async fn node_select(&self, nodes: &[NodeInfo], host: &str) -> Result<String, PluginError> {
        let available: Vec<&NodeInfo> = nodes.iter().filter(|node| room(node) > 0).collect();
        let weights = weights(&available, host);
        let at = pick(&weights, &mut rand::rng()).ok_or_else(insufficient)?;
        available.get(at).map(|node| node.hostname.clone()).ok_or_else(insufficient)
    }

    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, PluginError> {
        let total = total_room(nodes);
        if total < hosts.len() {
            let message = format!("Total capacity {total} < requested hosts {}", hosts.len());
            return Err(PluginError::new(Failed::Unavailable, message));
        }
        Ok(many(nodes, hosts.len(), &mut rand::rng()))
    }
}

/// The room of each, shifted by up to a twentieth either way by host and place in the list, so that
/// equal nodes are not equal for every host.
fn weights(available: &[&NodeInfo], host: &str) -> Vec<f64> {
    let of_host = (stable_hash(host) % 1000) as f64 / 1000.0;
    let count = available.len() as f64;
    available
        .iter()
        .enumerate()
        .map(|(i, node)| room(node) as f64 * (0.95 + 0.1 * (of_host + i as f64 / count).fract()))
        .collect()
}

/// FNV-1a: the same for a host on every machine and in every release.
fn stable_hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A place by weight; the last when rounding leaves none, any when no weight counts, none of none.
fn pick(weights: &[f64], chance: &mut impl Rng) -> Option<usize> {
    let last = weights.len().checked_sub(1)?;
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return Some(chance.random_range(0..weights.len()));
    }
    let mut at = chance.random_range(0.0..sum);
    for (index, weight) in weights.iter().enumerate() {
        if at < *weight {
            return Some(index);
        }
        at -= weight;
    }
    Some(last)
}

/// One host after the other. The square of the room prefers the emptier much more than one choice
/// does: in a batch it evens the nodes out.
fn many(nodes: &[NodeInfo], hosts: usize, chance: &mut impl Rng) -> Vec<Option<String>> {
    let mut left: Vec<(usize, &str)> =
        nodes.iter().map(|node| (room(node), node.hostname.as_str())).filter(|(room, _)| *room > 0).collect();
    let mut chosen = Vec::with_capacity(hosts);
    for _ in 0..hosts {
        let weights: Vec<f64> = left
            .iter()
            .map(|(room, _)| ((room + 1) as f64).powi(2) * chance.random_range(0.95..=1.05))
            .collect();
        let Some(at) = pick(&weights, chance) else { break };
        let Some((room, name)) = left.get_mut(at) else { break };
        chosen.push(Some((*name).to_owned()));
        *room -= 1;
        if *room == 0 {
            left.swap_remove(at);
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
    fn weights_are_the_room_give_or_take_a_twentieth() {
        let nodes = [node("a", 0, 100), node("b", 90, 100)];
        let available: Vec<&NodeInfo> = nodes.iter().collect();
        for host in ["192.0.2.1", "core-1", ""] {
            let weights = weights(&available, host);
            assert!((95.0..=105.0).contains(&weights[0]), "{weights:?}");
            assert!((9.5..=10.5).contains(&weights[1]), "{weights:?}");
            assert_eq!(weights, super::weights(&available, host), "not stable");
        }
    }

    #[test]
    fn the_hash_is_stable_over_releases() {
        assert_eq!(stable_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn a_place_by_weight_any_without_weight_none_of_none() {
        let mut chance = StdRng::seed_from_u64(7);
        assert_eq!(pick(&[], &mut chance), None);
        assert_eq!(pick(&[0.0, 3.0, 0.0], &mut chance), Some(1));
        let mut seen: Vec<usize> = (0..100).filter_map(|_| pick(&[0.0, 0.0], &mut chance)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1]);
        let heavy = (0..10_000).filter(|_| pick(&[9.0, 1.0], &mut chance) == Some(0)).count();
        assert!((8_500..9_500).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_batch_evens_the_nodes_out() {
        let nodes = [node("a", 0, 100), node("b", 60, 100), node("c", 100, 100)];
        let chosen = many(&nodes, 60, &mut StdRng::seed_from_u64(3));
        let of = |name: &str| chosen.iter().filter(|n| n.as_deref() == Some(name)).count();
        assert!(of("a") > 45 && of("b") > 0 && of("c") == 0, "a {} b {}", of("a"), of("b"));
    }
}
