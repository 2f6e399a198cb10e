//! A driver that panics: one job's error, and its device is served on.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::request::Strategy;
use netpulse_model::{
    ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, FieldError, JobId, JobKind, JobStatus,
    Outcome, Priority, QueueName,
};
use netpulse_plugin::{Driver, DriverSession, Drivers};
use netpulse_queue::{Embedded, NewJob, Options, Queue};
use netpulse_worker::{BuiltInTemplates, Metrics, Node, NodeParts, Serves};
use serde_json::{Map, Value, json};

struct Crashing;

#[async_trait]
impl Driver for Crashing {
    fn name(&self) -> &str {
        "crashing"
    }
    fn default_strategy(&self) -> Strategy {
        Strategy::Pinned
    }
    fn device(&self, _: &ConnectionArgs) -> Result<DeviceKey, FieldError> {
        Ok(DeviceKey::new("h", 22, 22))
    }
    fn validate(&self, _: &ExecutionRequest) -> Vec<FieldError> {
        Vec::new()
    }
    fn validate_connection(&self, _: &ConnectionArgs) -> Vec<FieldError> {
        Vec::new()
    }
    async fn connect(&self, _: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        panic!("a defect of this driver")
    }
    async fn test(&self, _: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        panic!("a defect of this driver")
    }
}

fn job() -> NewJob {
    let body = json!({"driver": "crashing", "connection_args": {"host": "h"}, "config": ["line"]});
    let request = ExecutionRequest::read(&body, 60).unwrap();
    let device = DeviceKey::new("h", 22, 22);
    NewJob {
        id: JobId::random(),
        queue: QueueName::Host(device.clone()),
        device: Some(device),
        kind: JobKind::Modification,
        priority: Priority::Normal,
        driver: "crashing".into(),
        device_name: Some("h".into()),
        command: vec!["line".into()],
        ttl: Duration::from_secs(60),
        timeout: Duration::from_secs(30),
        result_ttl: Duration::from_secs(60),
        retry: request.retry.clone(),
        idempotency_key: None,
        digest: [0; 32],
        payload: serde_json::to_vec(&request).unwrap(),
        notify: None,
    }
}

#[tokio::test]
async fn promise_14_a_drivers_crash_is_one_jobs_error() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Embedded::open(&folder.path().join("store"), Options::default()).unwrap();
    let config = netpulse_config::Config::default();
    let node = Node::start(NodeParts {
        serves: Serves::All,
        metrics: Metrics::default(),
        templates: Arc::new(BuiltInTemplates::new(&config.template, None)),
        config: Arc::new(config),
        queue: queue.clone(),
        drivers: Drivers::new(vec![Arc::new(Crashing)]),
        credentials: netpulse_plugin::Credentials::default(),
    })
    .await
    .unwrap();
    // The second one shows that the device still has a worker.
    for _ in 0..2 {
        let job = job();
        let id = job.id;
        queue.submit(vec![job]).await.unwrap();
        let ended = queue.ended(id, Duration::from_secs(20)).await.unwrap().unwrap();
        assert_eq!(ended.status, JobStatus::Failed);
        let result = ended.result.unwrap();
        assert_eq!(result.error.as_ref().unwrap().code, ErrorCode::PluginFailed);
        assert_eq!(result.outcome, Some(Outcome::NotApplied));
    }
    node.drain().await;
    queue.close().await;
}
