//! Tests: devices that leave a node, by a hand-over or because it drains.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_config::Config;
use netpulse_model::request::Strategy;
use netpulse_model::{
    ConnectionArgs, DeviceKey, ErrorInfo, ExecutionRequest, ExecutionResult, FieldError, Job, JobId, JobKind,
    JobStatus, QueueName,
};
use netpulse_plugin::{Driver, DriverSession, Drivers, Report, Run, Work};
use netpulse_queue::{Embedded, Lease, NewJob, Options, Queue, Signal, Submitted};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::{BuiltInTemplates, Metrics, Node, NodeParts, Serves};

const SOON: Duration = Duration::from_secs(20);

/// A driver whose command `hold` ends when the test lets it.
struct Gate(Arc<Semaphore>);

#[async_trait]
impl Driver for Gate {
    fn name(&self) -> &str {
        "gate"
    }
    fn default_strategy(&self) -> Strategy {
        Strategy::Pinned
    }
    fn device(&self, args: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        Ok(DeviceKey::new(args.host().unwrap(), 22, 22))
    }
    fn validate(&self, _: &ExecutionRequest) -> Vec<FieldError> {
        Vec::new()
    }
    fn validate_connection(&self, _: &ConnectionArgs) -> Vec<FieldError> {
        Vec::new()
    }
    async fn connect(&self, _: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        Ok(Box::new(Session(self.0.clone())))
    }
    async fn test(&self, _: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        Ok(Map::new())
    }
}

struct Session(Arc<Semaphore>);

#[async_trait]
impl DriverSession for Session {
    async fn run(&mut self, run: Run<'_>) -> Report {
        let Work::Commands(lines) = &run.work else { panic!("only commands here") };
        if lines[0] == "hold" {
            self.0.acquire().await.unwrap().forget();
        }
        let results = lines.iter().map(|line| ExecutionResult::ok(line, "done")).collect();
        Report { results, reusable: true, ..Report::default() }
    }
    async fn keepalive(&mut self) -> Result<(), ErrorInfo> {
        Ok(())
    }
    async fn closed(&mut self) {
        std::future::pending().await
    }
    fn keepalive_interval(&self) -> Option<Duration> {
        None
    }
    async fn close(&mut self) {}
}

/// A node `a` on an embedded queue, and the gate of its jobs.
struct World {
    queue: Arc<Embedded>,
    node: Option<Node>,
    gate: Arc<Semaphore>,
    _folder: tempfile::TempDir,
}

fn job(host: &str, command: &str) -> NewJob {
    let body = json!({"driver": "gate", "connection_args": {"host": host}, "command": command});
    let request = ExecutionRequest::read(&body, 60).unwrap();
    let device = DeviceKey::new(host, 22, 22);
    NewJob {
        id: JobId::random(),
        queue: QueueName::Host(device.clone()),
        device: Some(device),
        kind: JobKind::Query,
        priority: request.priority,
        driver: "gate".into(),
        device_name: Some(host.into()),
        command: vec![command.into()],
        ttl: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        result_ttl: Duration::from_secs(60),
        retry: request.retry.clone(),
        idempotency_key: None,
        digest: [0; 32],
        payload: serde_json::to_vec(&request).unwrap(),
        notify: None,
    }
}

impl World {
    async fn new(serves: Serves) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = Embedded::open(&folder.path().join("store"), Options::default()).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let mut config = Config::default();
        config.worker.node = "a".into();
        let node = Node::start(NodeParts {
            serves,
            metrics: Metrics::default(),
            templates: Arc::new(BuiltInTemplates::new(&config.template, None)),
            config: Arc::new(config),
            queue: queue.clone(),
            drivers: Drivers::new(vec![Arc::new(Gate(gate.clone()))]),
            credentials: netpulse_plugin::Credentials::default(),
        })
        .await
        .unwrap();
        Self { queue, node: Some(node), gate, _folder: folder }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    async fn submit(&self, new: NewJob) -> JobId {
        match self.queue.submit(vec![new]).await.unwrap().pop() {
            Some(Submitted::Accepted(job)) => job.id,
            other => panic!("not accepted: {other:?}"),
        }
    }

    async fn ended(&self, id: JobId) -> Job {
        let job = self.queue.ended(id, SOON).await.unwrap().unwrap();
        assert_eq!(job.status, JobStatus::Finished, "{job:?}");
        job
    }

    /// Waits until the job runs.
    async fn started(&self, id: JobId) {
        until(async || self.queue.job(id).await.unwrap().unwrap().status == JobStatus::Started).await;
    }

    /// Takes the device for node `b` as soon as it can be had.
    async fn taken_by_b(&self, host: &str) -> Lease {
        let device = DeviceKey::new(host, 22, 22);
        let take = async {
            loop {
                if let Some(lease) = self.queue.acquire("b", &device).await.unwrap() {
                    return lease;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, take).await.unwrap_or_else(|_| panic!("{host} was not given back"))
    }
}

async fn until(check: impl AsyncFn() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("in time");
}

#[tokio::test]
async fn an_idle_device_is_handed_over_at_once() {
    let world = World::new(Serves::All).await;
    let id = world.submit(job("sw1", "show clock")).await;
    world.ended(id).await;
    let _signals = world.queue.join("b", 9.into()).await.unwrap();
    assert_eq!(world.queue.acquire("b", &DeviceKey::new("sw1", 22, 22)).await.unwrap(), None, "`a` keeps it");
    world.node().hear(Signal::HandOver(DeviceKey::new("sw1", 22, 22)));
    world.taken_by_b("sw1").await;
    // A hand-over of what this node does not have is nothing.
    world.node().hear(Signal::HandOver(DeviceKey::new("sw9", 22, 22)));
}

#[tokio::test]
async fn a_busy_device_is_handed_over_after_its_job_with_what_waits() {
    let world = World::new(Serves::All).await;
    let first = world.submit(job("sw1", "hold")).await;
    let second = world.submit(job("sw1", "show clock")).await;
    world.started(first).await;
    let _signals = world.queue.join("b", 9.into()).await.unwrap();
    // This engine offers free devices to everybody; so `a` is kept from being asked again.
    world.queue.suspend("a").await.unwrap();
    world.node().hear(Signal::HandOver(DeviceKey::new("sw1", 22, 22)));
    assert_eq!(world.queue.acquire("b", &DeviceKey::new("sw1", 22, 22)).await.unwrap(), None, "a job runs");
    world.gate.add_permits(1);
    assert_eq!(world.ended(first).await.worker.as_deref(), Some("a_HostQ_sw1"));
    let lease = world.taken_by_b("sw1").await;
    let claim = world.queue.claim(&lease).await.unwrap().expect("what waited is there for `b`");
    assert_eq!((claim.job.id, claim.job.attempt), (second, 1));
}

#[tokio::test]
async fn a_drain_gives_idle_devices_back_while_a_job_still_runs() {
    let mut world = World::new(Serves::All).await;
    for host in ["sw1", "sw2", "sw3"] {
        let id = world.submit(job(host, "show clock")).await;
        world.ended(id).await;
    }
    let busy = world.submit(job("sw4", "hold")).await;
    world.started(busy).await;
    let mut b = world.queue.join("b", 9.into()).await.unwrap();
    let drain = tokio::spawn(world.node.take().unwrap().drain());
    for host in ["sw1", "sw2", "sw3"] {
        world.taken_by_b(host).await;
    }
    assert!(!drain.is_finished(), "a job still runs");
    // What is submitted meanwhile is for `b` alone, and nothing waits for the drain.
    let waits = world.submit(job("sw5", "show clock")).await;
    let offered = async {
        while b.recv().await.expect("the stream lives") != Signal::Device(DeviceKey::new("sw5", 22, 22)) {}
    };
    tokio::time::timeout(SOON, offered).await.expect("it is offered to `b`");
    assert_eq!(world.queue.job(waits).await.unwrap().unwrap().status, JobStatus::Queued);
    let nodes = world.queue.nodes().await.unwrap();
    let a = nodes.iter().find(|node| node.name == "a").unwrap();
    assert!(a.alive && !a.role.devices && !a.role.fifo, "it shows that it drains: {a:?}");
    world.gate.add_permits(1);
    world.ended(busy).await;
    tokio::time::timeout(SOON, drain).await.expect("it leaves").unwrap();
    assert!(world.queue.nodes().await.unwrap().iter().all(|node| node.name != "a"), "it has left");
}

#[tokio::test]
async fn a_fifo_worker_of_its_own_takes_no_device_and_is_named_as_ever() {
    let world = World::new(Serves::Fifo).await;
    assert_eq!(world.node().name(), "a_FifoQ");
    let pinned = world.submit(job("sw1", "show clock")).await;
    let mut new = job("sw2", "show clock");
    new.queue = QueueName::Fifo;
    let fifo = world.submit(new).await;
    assert_eq!(world.ended(fifo).await.worker.as_deref(), Some("a_FifoQ"));
    assert_eq!(world.queue.job(pinned).await.unwrap().unwrap().status, JobStatus::Queued);
    let names: Vec<String> = world.queue.workers().await.unwrap().into_iter().map(|w| w.name).collect();
    assert_eq!(names, ["a_FifoQ"]);
    assert!(world.queue.stop_worker("a_FifoQ").await.unwrap());
    tokio::time::timeout(SOON, world.node().asked_to_stop()).await.expect("it is asked to stop");
}

#[tokio::test]
async fn a_node_for_devices_takes_nothing_of_fifoq() {
    let world = World::new(Serves::Devices).await;
    let mut new = job("sw2", "show clock");
    new.queue = QueueName::Fifo;
    let fifo = world.submit(new).await;
    let pinned = world.submit(job("sw1", "show clock")).await;
    assert_eq!(world.ended(pinned).await.worker.as_deref(), Some("a_HostQ_sw1"));
    assert_eq!(world.queue.job(fifo).await.unwrap().unwrap().status, JobStatus::Queued);
    let names: Vec<String> = world.queue.workers().await.unwrap().into_iter().map(|w| w.name).collect();
    assert!(names.contains(&"a".to_owned()) && !names.contains(&"a_FifoQ".to_owned()), "{names:?}");
}
