//! What every scheduler keeps to, and what each is known for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use netpulse_model::QueueName;
use netpulse_model::worker::NodeInfo;
use netpulse_plugin::{Failed, PluginError, Scheduler};
use netpulse_scheduler::{INSUFFICIENT, built_in, choose};
use proptest::prelude::*;

fn node(name: &str, count: usize, capacity: usize) -> NodeInfo {
    NodeInfo { hostname: name.into(), count, capacity, queue: QueueName::Node(name.into()) }
}

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("192.0.2.{i}")).collect()
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn one(name: &str, nodes: &[NodeInfo]) -> Result<String, PluginError> {
    now(choose(name, &[]).unwrap().node_select(nodes, "192.0.2.1"))
}

fn batch(name: &str, nodes: &[NodeInfo], count: usize) -> Result<Vec<Option<String>>, PluginError> {
    now(choose(name, &[]).unwrap().batch_node_select(nodes, &hosts(count)))
}

/// The nodes of a batch in order, each host placed.
fn names(name: &str, nodes: &[NodeInfo], count: usize) -> Vec<String> {
    batch(name, nodes, count).unwrap().into_iter().map(Option::unwrap).collect()
}

#[test]
fn no_hosts_no_nodes_and_full_nodes() {
    for scheduler in built_in() {
        let name = scheduler.name();
        let full: &[&[NodeInfo]] =
            &[&[], &[node("a", 0, 0)], &[node("a", 3, 3), node("b", 5, 5)], &[node("a", 9, 3)]];
        for nodes in full {
            assert_eq!(batch(name, nodes, 0).unwrap(), Vec::<Option<String>>::new(), "{name}");
            let error = one(name, nodes).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (Failed::Unavailable, INSUFFICIENT), "{name}");
            let error = batch(name, nodes, 1).unwrap_err().message;
            let expected = if name == "load_weighted_random" {
                "Total capacity 0 < requested hosts 1"
            } else {
                INSUFFICIENT
            };
            assert_eq!(error, expected, "{name}");
        }
    }
}

#[test]
fn one_node_takes_all_it_has_room_for_and_not_one_more() {
    for scheduler in built_in() {
        let name = scheduler.name();
        assert_eq!(one(name, &[node("a", 2, 3)]).unwrap(), "a", "{name}");
        assert_eq!(names(name, &[node("a", 0, 3)], 3), ["a", "a", "a"], "{name}");
        assert!(batch(name, &[node("a", 0, 3)], 4).is_err(), "{name}");
    }
}

#[test]
fn a_node_beyond_its_capacity_takes_no_room_from_the_others() {
    // Its capacity was lowered: upstream counts its -7 against the room of the others.
    let nodes = [node("over", 10, 3), node("b", 0, 2)];
    for scheduler in built_in() {
        assert_eq!(names(scheduler.name(), &nodes, 2), ["b", "b"], "{}", scheduler.name());
    }
}

#[test]
fn hosts_named_twice_get_a_place_each() {
    let nodes = [node("a", 0, 2)];
    let twice = vec!["192.0.2.1".to_owned(), "192.0.2.1".to_owned()];
    for scheduler in built_in() {
        let chosen = now(scheduler.batch_node_select(&nodes, &twice)).unwrap();
        assert_eq!(chosen.len(), 2, "{}", scheduler.name());
        assert!(chosen.iter().all(Option::is_some), "{}", scheduler.name());
    }
}

#[test]
fn greedy_takes_the_first_and_packs_a_batch() {
    assert_eq!(one("greedy", &[node("z", 1, 1), node("m", 3, 9), node("a", 0, 9)]).unwrap(), "m");
    // Most devices first, then most room, then the name.
    let nodes = [node("a", 0, 9), node("d", 4, 5), node("c", 4, 6), node("b", 4, 5), node("e", 7, 7)];
    assert_eq!(names("greedy", &nodes, 5), ["c", "c", "b", "d", "a"]);
}

#[test]
fn least_load_takes_the_fewest_then_the_most_room_then_the_name() {
    assert_eq!(one("least_load", &[node("b", 1, 9), node("a", 1, 8), node("c", 2, 99)]).unwrap(), "b");
    assert_eq!(one("least_load", &[node("b", 1, 9), node("a", 1, 9)]).unwrap(), "a");
    assert_eq!(one("least_load", &[node("a", 0, 0), node("b", 1, 9)]).unwrap(), "b");
    let nodes = [node("c", 0, 1), node("b", 0, 2), node("a", 0, 1), node("d", 1, 3)];
    assert_eq!(names("least_load", &nodes, 5), ["b", "b", "a", "c", "d"]);
}

#[test]
fn least_load_random_leaves_no_host_out_while_a_node_has_room() {
    // Upstream passes `c` over in its level and leaves the last host without a node.
    let nodes = [node("a", 0, 2), node("b", 0, 2), node("c", 0, 1)];
    for _ in 0..50 {
        assert_eq!(names("least_load_random", &nodes, 5)[4], "c");
    }
}

#[test]
fn names_are_known_near_or_listed() {
    let error = choose("least-laod", &[]).err().unwrap().to_string();
    assert_eq!(
        error,
        "there is no scheduler `least-laod` (did you mean `least_load`?): expected one of greedy, least_load, \
         least_load_random, load_weighted_random"
    );
    let error = choose("kubernetes", &[]).err().unwrap().to_string();
    assert!(error.starts_with("there is no scheduler `kubernetes`: expected one of greedy"), "{error}");
    assert!(choose("", &[]).is_err());
}

#[test]
fn a_plugin_stands_beside_the_built_in_ones() {
    struct Fixed;
    #[async_trait::async_trait]
    impl Scheduler for Fixed {
        fn name(&self) -> &str {
            "by_rack"
        }
        async fn node_select(&self, _: &[NodeInfo], _: &str) -> Result<String, PluginError> {
            Ok("rack-1".into())
        }
        async fn batch_node_select(
            &self,
            _: &[NodeInfo],
            hosts: &[String],
        ) -> Result<Vec<Option<String>>, PluginError> {
            Ok(vec![Some("rack-1".into()); hosts.len()])
        }
    }
    let plugins: Vec<Arc<dyn Scheduler>> = vec![Arc::new(Fixed)];
    assert_eq!(now(choose("by_rack", &plugins).unwrap().node_select(&[], "x")).unwrap(), "rack-1");
    assert_eq!(choose("by_rak", &plugins).err().unwrap().near.as_deref(), Some("by_rack"));
    assert_eq!(choose("greedy", &plugins).unwrap().name(), "greedy");
}

fn some_nodes() -> impl Strategy<Value = Vec<NodeInfo>> {
    prop::collection::vec((0usize..12, 0usize..12), 0..8).prop_map(|nodes| {
        nodes
            .into_iter()
            .enumerate()
            .map(|(i, (count, capacity))| node(&format!("n{i}"), count, capacity))
            .collect()
    })
}

proptest! {
    #[test]
    fn never_over_capacity_and_aligned(nodes in some_nodes(), count in 0usize..60) {
        let room: BTreeMap<&str, usize> =
            nodes.iter().map(|n| (n.hostname.as_str(), n.capacity.saturating_sub(n.count))).collect();
        let total: usize = room.values().sum();
        for scheduler in built_in() {
            let name = scheduler.name();
            match batch(name, &nodes, count) {
                Ok(chosen) => {
                    prop_assert!(total >= count, "{} placed more than there is room for", name);
                    prop_assert_eq!(chosen.len(), count, "{}", name);
                    let mut used: BTreeMap<String, usize> = BTreeMap::new();
                    for place in chosen {
                        let place = place.expect("there was room for all");
                        *used.entry(place).or_default() += 1;
                    }
                    for (node, used) in used {
                        prop_assert!(used <= room[node.as_str()], "{}: {} on {}", name, used, node);
                    }
                }
                Err(_) => prop_assert!(total < count, "{} refused {} hosts of room for {}", name, count, total),
            }
            match one(name, &nodes) {
                Ok(chosen) => prop_assert!(room[chosen.as_str()] > 0, "{}", name),
                Err(_) => prop_assert_eq!(total, 0, "{}", name),
            }
        }
    }

    #[test]
    fn ties_break_the_same_way_whatever_the_order(nodes in some_nodes(), count in 0usize..30, turn in 0usize..8) {
        let mut other = nodes.clone();
        other.reverse();
        let turn = turn % other.len().max(1);
        other.rotate_left(turn);
        for name in ["greedy", "least_load"] {
            prop_assert_eq!(batch(name, &nodes, count).ok(), batch(name, &other, count).ok(), "{}", name);
        }
        prop_assert_eq!(one("least_load", &nodes).ok(), one("least_load", &other).ok());
    }
}
