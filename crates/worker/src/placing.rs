//! Which node serves which device: what the queue asks, answered by a scheduler.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::DeviceKey;
use netpulse_model::worker::NodeInfo;
use netpulse_plugin::Scheduler;
use netpulse_queue::{NodeName, Placer};

/// Longest that a scheduler may take; one that is a program of its own may hang.
const DEADLINE: Duration = Duration::from_secs(10);

/// A [`Placer`] that asks a scheduler, built in or a plugin.
#[derive(Clone)]
pub struct ByScheduler(Arc<dyn Scheduler>);

impl ByScheduler {
    /// Places as `scheduler` says.
    #[must_use]
    pub fn new(scheduler: Arc<dyn Scheduler>) -> Self {
        Self(scheduler)
    }

    /// The scheduler's answer, held to what was asked: a plugin may lie.
    fn checked(
        &self,
        nodes: &[NodeInfo],
        hosts: usize,
        mut chosen: Vec<Option<String>>,
    ) -> Result<Vec<Option<NodeName>>, String> {
        let name = self.0.name();
        if chosen.len() != hosts {
            return Err(format!(
                "The scheduler `{name}` answered {} places for {hosts} devices",
                chosen.len()
            ));
        }
        for place in &mut chosen {
            if let Some(unknown) = place.take_if(|place| !nodes.iter().any(|node| node.hostname == *place)) {
                tracing::error!(
                    scheduler = name,
                    node = unknown,
                    "the scheduler chose a node that there is not"
                );
            }
        }
        Ok(chosen)
    }
}

#[async_trait]
impl Placer for ByScheduler {
    async fn place(
        &self,
        nodes: &[NodeInfo],
        devices: &[DeviceKey],
    ) -> Result<Vec<Option<NodeName>>, String> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        let name = self.0.name();
        let room: usize = nodes.iter().map(|node| node.capacity.saturating_sub(node.count)).sum();
        // A scheduler refuses more hosts than there is room for altogether. One device too many
        // must not cost the others their place, so it is asked for those that there is room for.
        let asked = if room == 0 { devices.len() } else { devices.len().min(room) };
        let hosts: Vec<String> = devices.iter().take(asked).map(ToString::to_string).collect();
        let answer = async {
            match hosts.as_slice() {
                [host] => Ok(vec![Some(self.0.node_select(nodes, host).await?)]),
                hosts => self.0.batch_node_select(nodes, hosts).await,
            }
        };
        let chosen = match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(chosen)) => self.checked(nodes, hosts.len(), chosen)?,
            Ok(Err(error)) => return Err(error.message),
            Err(_elapsed) => {
                return Err(format!("The scheduler `{name}` did not answer within {} s", DEADLINE.as_secs()));
            }
        };
        let mut chosen = chosen;
        chosen.resize(devices.len(), None);
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use netpulse_model::QueueName;
    use netpulse_plugin::{Failed, PluginError};

    use super::*;

    fn node(name: &str, count: usize, capacity: usize) -> NodeInfo {
        NodeInfo { hostname: name.into(), count, capacity, queue: QueueName::Node(name.into()) }
    }

    fn devices(count: usize) -> Vec<DeviceKey> {
        (0..count).map(|i| DeviceKey::new(&format!("192.0.2.{i}"), 22, 22)).collect()
    }

    fn by(name: &str) -> ByScheduler {
        ByScheduler::new(netpulse_scheduler::choose(name, &[]).unwrap())
    }

    #[tokio::test]
    async fn each_device_gets_the_node_that_the_scheduler_says() {
        let nodes = [node("a", 1, 2), node("b", 0, 2)];
        let places = by("least_load").place(&nodes, &devices(3)).await.unwrap();
        assert_eq!(places, [Some("b".into()), Some("b".into()), Some("a".into())]);
        assert_eq!(by("least_load").place(&nodes, &devices(1)).await.unwrap(), [Some("b".into())]);
        assert_eq!(by("least_load").place(&nodes, &[]).await.unwrap(), Vec::<Option<String>>::new());
    }

    #[tokio::test]
    async fn one_device_too_many_costs_the_others_nothing() {
        for name in ["greedy", "least_load", "least_load_random", "load_weighted_random"] {
            let places = by(name).place(&[node("a", 1, 3)], &devices(4)).await.unwrap();
            assert_eq!(places, [Some("a".into()), Some("a".into()), None, None], "{name}");
            for nodes in [vec![], vec![node("a", 3, 3)]] {
                assert!(by(name).place(&nodes, &devices(2)).await.is_err(), "{name}");
                assert!(by(name).place(&nodes, &devices(1)).await.is_err(), "{name}");
            }
        }
    }

    /// A plugin that errs, lies, or says nothing.
    struct Bad(&'static str);

    #[async_trait]
    impl Scheduler for Bad {
        fn name(&self) -> &str {
            "bad"
        }

        async fn node_select(&self, _: &[NodeInfo], _: &str) -> Result<String, PluginError> {
            match self.0 {
                "hangs" => std::future::pending().await,
                "fails" => Err(PluginError::new(Failed::Faulty, "the scheduler `bad` crashed")),
                _ => Ok("nowhere".into()),
            }
        }

        async fn batch_node_select(
            &self,
            _: &[NodeInfo],
            _: &[String],
        ) -> Result<Vec<Option<String>>, PluginError> {
            Ok(vec![Some("a".into())])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn promise_14_a_schedulers_fault_is_a_sentence() {
        let nodes = [node("a", 0, 9)];
        let place =
            async |how, count| ByScheduler::new(Arc::new(Bad(how))).place(&nodes, &devices(count)).await;
        assert_eq!(place("fails", 1).await.unwrap_err(), "the scheduler `bad` crashed");
        let hung = place("hangs", 1).await.unwrap_err();
        assert_eq!(hung, "The scheduler `bad` did not answer within 10 s");
        assert_eq!(place("lies", 1).await.unwrap(), [None], "a node that there is not");
        let short = place("lies", 2).await.unwrap_err();
        assert_eq!(short, "The scheduler `bad` answered 1 places for 2 devices");
    }
}
