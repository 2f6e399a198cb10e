//! References in the worker: resolved there, once per job, for the driver alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use netpulse_model::request::Strategy;
use netpulse_model::{
    ConnectionArgs, CredentialRef, DeviceKey, ErrorCode, ErrorInfo, ExecutionRequest, ExecutionResult,
    FieldError, JobId, JobStatus, Outcome, Priority, QueueName,
};
use netpulse_plugin::{
    CredentialProvider, Credentials, Driver, DriverSession, Drivers, PluginError, Report, Run, SecretValues,
};
use netpulse_queue::{Embedded, NewJob, Options, Queue};
use netpulse_worker::{BuiltInTemplates, Metrics, Node, NodeParts, Serves};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

const PLANTED: &str = "pl4nted-by-the-provider";

/// Repeats the password wherever a driver can say something.
struct Leaky;

struct LeakySession(String);

fn password(args: &ConnectionArgs) -> String {
    args.text("password").unwrap_or("none").to_owned()
}

#[async_trait]
impl Driver for Leaky {
    fn name(&self) -> &str {
        "leaky"
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
    async fn connect(&self, args: &ConnectionArgs) -> Result<Box<dyn DriverSession>, ErrorInfo> {
        match args.text("mode") {
            Some("refuse") => {
                let message = format!("login as {} refused", password(args));
                Err(ErrorInfo::new(ErrorCode::AuthenticationFailed, message))
            }
            _ => Ok(Box::new(LeakySession(password(args)))),
        }
    }
    async fn test(&self, _: &ConnectionArgs) -> Result<Map<String, Value>, ErrorInfo> {
        Ok(Map::new())
    }
}

#[async_trait]
impl DriverSession for LeakySession {
    async fn run(&mut self, run: Run<'_>) -> Report {
        let line = format!("login {}", self.0);
        run.watch.sending(0, 1, &line);
        let mut result = ExecutionResult::failed(line, format!("bad password {}", self.0));
        result.metadata.insert("length".into(), self.0.len().into());
        result.metadata.insert("session_reused".into(), run.reused.into());
        run.watch.answered(0, 1, &result);
        Report { results: vec![result], reusable: true, ..Report::default() }
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

/// Gives one password to each path; never an answer for `hang`.
struct Vaultlike(Arc<AtomicUsize>);

#[async_trait]
impl CredentialProvider for Vaultlike {
    fn name(&self) -> &str {
        "vaultlike"
    }
    fn check(&self, _: &CredentialRef) -> Result<(), PluginError> {
        Ok(())
    }
    async fn get(&self, reference: &CredentialRef, _: &ConnectionArgs) -> Result<SecretValues, PluginError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if reference.reference == "hang" {
            std::future::pending::<()>().await;
        }
        let word = Zeroizing::new(format!("{PLANTED}-{}", reference.reference));
        Ok(SecretValues([("password".to_owned(), word)].into()))
    }
    async fn validate(&self) -> Result<Map<String, Value>, PluginError> {
        Ok(Map::new())
    }
}

fn job(path: &str, more: Value) -> NewJob {
    let mut body = json!({"driver": "leaky", "connection_args": {"host": "h"}, "config": ["line"],
        "credential": {"ref": path}});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let request = ExecutionRequest::read(&body, 60).unwrap();
    let device = DeviceKey::new("h", 22, 22);
    NewJob {
        id: JobId::random(),
        queue: QueueName::Host(device.clone()),
        device: Some(device),
        kind: request.kind(),
        priority: Priority::Normal,
        driver: "leaky".into(),
        device_name: Some("h".into()),
        command: vec!["line".into()],
        ttl: Duration::from_secs(60),
        timeout: Duration::from_secs(request.execution_timeout.unwrap_or(30)),
        result_ttl: Duration::from_secs(60),
        retry: request.retry.clone(),
        idempotency_key: None,
        digest: [0; 32],
        payload: serde_json::to_vec(&request).unwrap(),
        notify: None,
    }
}

struct World {
    folder: tempfile::TempDir,
    queue: Arc<Embedded>,
    node: Node,
    asked: Arc<AtomicUsize>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = Embedded::open(&folder.path().join("store"), Options::default()).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let config = netpulse_config::Config::default();
        let node = Node::start(NodeParts {
            serves: Serves::All,
            metrics: Metrics::default(),
            templates: Arc::new(BuiltInTemplates::new(&config.template, None)),
            config: Arc::new(config),
            queue: queue.clone(),
            drivers: Drivers::new(vec![Arc::new(Leaky)]),
            credentials: Credentials::new("vaultlike", &[], vec![Arc::new(Vaultlike(asked.clone()))]),
        })
        .await
        .unwrap();
        Self { folder, queue, node, asked }
    }

    async fn run(&self, job: NewJob) -> netpulse_model::Job {
        let id = job.id;
        self.queue.submit(vec![job]).await.unwrap();
        self.queue.ended(id, Duration::from_secs(20)).await.unwrap().unwrap()
    }

    async fn end(self) -> tempfile::TempDir {
        self.node.drain().await;
        self.queue.close().await;
        self.folder
    }
}

fn files(dir: &Path, seen: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, seen);
        } else {
            seen.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_12_a_driver_that_repeats_a_resolved_secret_is_scrubbed() {
    let world = World::new().await;
    let refused = job("a", json!({"connection_args": {"host": "h", "mode": "refuse"}}));
    let mut ids = Vec::new();
    let mut seen = String::new();
    for job in [job("a", json!({})), refused] {
        ids.push(job.id);
        let ended = world.run(job).await;
        seen.push_str(&serde_json::to_string(&ended).unwrap());
    }
    assert!(seen.contains("login ****** refused") || seen.contains("login as ****** refused"), "{seen}");
    assert!(seen.contains("bad password ******"), "{seen}");
    assert!(seen.contains(&format!("\"length\":{}", PLANTED.len() + 2)), "the driver had it: {seen}");
    let folder = world.end().await;
    files(folder.path(), &mut seen);
    assert!(!seen.contains(PLANTED), "{}", &seen[seen.find(PLANTED).unwrap().saturating_sub(200)..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_session_serves_the_reference_and_the_secret_that_it_was_opened_with() {
    let world = World::new().await;
    let mut reused = Vec::new();
    for path in ["a", "a", "b", "b", "a"] {
        let ended = world.run(job(path, json!({}))).await;
        let result = ended.result.unwrap();
        reused.push(result.retval.as_ref().unwrap()[0].metadata["session_reused"] == true);
    }
    assert_eq!(reused, [false, true, false, true, false]);
    assert_eq!(world.asked.load(Ordering::SeqCst), 5, "the provider decides what is kept");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_costs_one_jobs_time_and_a_cancel_ends_it() {
    let world = World::new().await;
    let ended = world.run(job("hang", json!({"execution_timeout": 1}))).await;
    let result = ended.result.unwrap();
    assert_eq!(result.error.as_ref().unwrap().code, ErrorCode::CredentialUnavailable);
    assert_eq!(result.outcome, Some(Outcome::NotApplied));

    let hanging = job("hang", json!({}));
    let id = hanging.id;
    world.queue.submit(vec![hanging]).await.unwrap();
    while world.asked.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    world.queue.cancel(id, "enough").await.unwrap();
    let ended = world.queue.ended(id, Duration::from_secs(10)).await.unwrap().unwrap();
    assert_eq!(
        (ended.status, ended.result.unwrap().outcome),
        (JobStatus::Canceled, Some(Outcome::NotApplied))
    );
    // The device is served on.
    assert!(world.run(job("a", json!({}))).await.status.is_final());
    world.end().await;
}
