//! `greedy`: fill a node before the next is used.

use std::cmp::Reverse;

use async_trait::async_trait;
use netpulse_model::worker::NodeInfo;
use netpulse_plugin::{PluginError, Scheduler};

use crate::{check_room, fill, insufficient, room};

/// Packs devices together: the fewest nodes that hold them all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Greedy;

#[async_trait]
impl Scheduler for Greedy {
    fn name(&self) -> &str {
        "greedy"
    }

    async fn node_select(&self, nodes: &[NodeInfo], _host: &str) -> Result<String, PluginError> {
        // The first in the order given: whoever lists the nodes decides.
        nodes.iter().find(|node| room(node) > 0).map(|node| node.hostname.clone()).ok_or_else(insufficient)
    }

    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, PluginError> {
        check_room(nodes, hosts)?;
        let mut order: Vec<&NodeInfo> = nodes.iter().filter(|node| room(node) > 0).collect();
        order.sort_by_key(|node| (Reverse(node.count), Reverse(room(node)), node.hostname.as_str()));
        Ok(fill(order, hosts.len()))
    }
}
