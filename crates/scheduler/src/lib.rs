//! The built-in schedulers: which node serves a device.
//!
//! Each is a [`Scheduler`], the same trait that a plugin of this kind stands behind, so that whoever
//! asks does not know which it is.
//!
//! ```
//! use netpulse_model::{QueueName, worker::NodeInfo};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = |name: &str, count| NodeInfo {
//!     hostname: name.into(),
//!     count,
//!     capacity: 2,
//!     queue: QueueName::Node(name.into()),
//! };
//! let nodes = [node("a", 1), node("b", 0)];
//! let scheduler = netpulse_scheduler::choose("least_load", &[])?;
//! assert_eq!(scheduler.node_select(&nodes, "192.0.2.1").await?, "b");
//! let hosts = ["192.0.2.1".to_owned(), "192.0.2.2".to_owned(), "192.0.2.3".to_owned()];
//! let chosen = scheduler.batch_node_select(&nodes, &hosts).await?;
//! assert_eq!(chosen, [Some("b".to_owned()), Some("b".to_owned()), Some("a".to_owned())]);
//! # Ok(())
//! # }
//! ```
//!
//! What this room must not know: queues, stores, and what a node does with a device.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod greedy;
mod least_load;
mod weighted;

use std::sync::Arc;

use netpulse_model::worker::NodeInfo;
use netpulse_plugin::{Failed, PluginError, Scheduler};

pub use greedy::Greedy;
pub use least_load::{LeastLoad, LeastLoadRandom};
pub use weighted::LoadWeightedRandom;

/// What a request for more places than there are is answered with; clients of the Python system
/// know the text.
pub const INSUFFICIENT: &str = "Insufficient capacity in node selection";

/// Every built-in scheduler.
#[must_use]
pub fn built_in() -> Vec<Arc<dyn Scheduler>> {
    vec![Arc::new(Greedy), Arc::new(LeastLoad), Arc::new(LeastLoadRandom), Arc::new(LoadWeightedRandom)]
}

/// A name that no scheduler has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scheduler `{name}`{}: expected one of {}",
    near.as_ref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default(), known.join(", "))]
pub struct UnknownScheduler {
    /// What was asked for.
    pub name: String,
    /// The known name that it looks like, if it looks like one.
    pub near: Option<String>,
    /// Every known name.
    pub known: Vec<String>,
}

/// The scheduler of this name, among `plugins` first and then the built-in ones.
///
/// # Errors
/// Nobody has the name; the error names those that are known.
pub fn choose(name: &str, plugins: &[Arc<dyn Scheduler>]) -> Result<Arc<dyn Scheduler>, UnknownScheduler> {
    let all: Vec<Arc<dyn Scheduler>> = plugins.iter().cloned().chain(built_in()).collect();
    if let Some(found) = all.iter().find(|scheduler| scheduler.name() == name) {
        return Ok(Arc::clone(found));
    }
    let known: Vec<String> = all.iter().map(|scheduler| scheduler.name().to_owned()).collect();
    let typed = name.to_ascii_lowercase().replace(['-', ' '], "_");
    let near = known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, &word.to_ascii_lowercase()), word))
        .min()
        .filter(|(distance, word)| *distance <= 1 + word.len().min(typed.len()) / 4)
        .map(|(_, word)| word.clone());
    Err(UnknownScheduler { name: name.to_owned(), near, known })
}

/// How many more devices a node may own. A node that has more than it may (its capacity was
/// lowered) has room for none; it takes nothing away from the others.
fn room(node: &NodeInfo) -> usize {
    node.capacity.saturating_sub(node.count)
}

/// How many devices all nodes together may still take.
fn total_room(nodes: &[NodeInfo]) -> usize {
    nodes.iter().map(room).fold(0, usize::saturating_add)
}

fn insufficient() -> PluginError {
    PluginError::new(Failed::Unavailable, INSUFFICIENT)
}

/// Refuses hosts that have no room together.
fn check_room(nodes: &[NodeInfo], hosts: &[String]) -> Result<(), PluginError> {
    if total_room(nodes) < hosts.len() { Err(insufficient()) } else { Ok(()) }
}

/// Gives `hosts` places on `nodes` in this order, each node to its brim before the next.
fn fill<'n>(nodes: impl IntoIterator<Item = &'n NodeInfo>, hosts: usize) -> Vec<Option<String>> {
    let places = nodes.into_iter().flat_map(|node| std::iter::repeat_n(node, room(node)));
    let mut chosen: Vec<Option<String>> =
        places.take(hosts).map(|node| Some(node.hostname.clone())).collect();
    chosen.resize(hosts, None);
    chosen
}
