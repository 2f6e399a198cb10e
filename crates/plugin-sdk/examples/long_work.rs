//! What takes long: a provider that gives its items one by one, and a driver whose commands go on
//! without their session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use netpulse_plugin_sdk::{
    Call, ConnectionArgs, DetachedOutput, DetachedTask, Driver, ExecutionResult, Failure, Items,
    PipelineResult, Plugin, Provider, Session, Value, async_trait, json,
};

struct Counter;

#[async_trait]
impl Provider for Counter {
    async fn stream(
        &self,
        settings: Value,
        items: &mut Items,
        _call: &Call,
    ) -> Result<PipelineResult, Failure> {
        let Some(count) = settings["count"].as_u64() else {
            return Err(Failure::bad_request("the setting `count` should be a number"));
        };
        for n in 0..count {
            if settings["lost_at"] == n {
                return Err(Failure::unavailable(format!("the source was lost after {n} items")));
            }
            items.give(json!({"n": n})).await?;
        }
        Ok(PipelineResult {
            relates_to: "numbers".into(),
            result_name: "counter".into(),
            ..Default::default()
        })
    }
}

/// What was launched, whichever session did: it outlives them all.
#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<BTreeMap<String, DetachedTask>>>);

impl Jobs {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, DetachedTask>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Driver for Jobs {
    async fn connect(&self, _args: &ConnectionArgs, _call: &Call) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Session for Jobs {
    async fn command(&mut self, command: &str, _call: &Call) -> Result<ExecutionResult, Failure> {
        Ok(ExecutionResult::ok(command, "done"))
    }

    async fn launch(&mut self, task_id: &str, command: &str, _call: &Call) -> Result<DetachedTask, Failure> {
        let (task_id, command) = (task_id.to_owned(), command.to_owned());
        let task = DetachedTask { task_id: task_id.clone(), command, running: true, ..Default::default() };
        self.with(|jobs| jobs.insert(task_id, task.clone()));
        Ok(task)
    }

    async fn query(&mut self, task_id: &str, offset: u64, _call: &Call) -> Result<DetachedOutput, Failure> {
        let task = self.with(|jobs| jobs.get(task_id).cloned());
        let task = task.ok_or_else(|| Failure::not_found(format!("there is no task `{task_id}`")))?;
        let log = format!("{} says hello", task.command);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(log.len());
        let output = log.get(from..).unwrap_or_default().to_owned();
        Ok(DetachedOutput { task, output, next_offset: log.len() as u64 })
    }

    async fn kill(&mut self, task_id: &str, _call: &Call) -> Result<bool, Failure> {
        Ok(self.with(|jobs| jobs.remove(task_id).is_some()))
    }

    async fn list(&mut self, _call: &Call) -> Result<Vec<DetachedTask>, Failure> {
        Ok(self.with(|jobs| jobs.values().cloned().collect()))
    }
}

fn main() -> std::process::ExitCode {
    Plugin::new("netpulse.example/kinds/long_work/v1", env!("CARGO_PKG_VERSION"))
        .provider("counter", Counter)
        .example("/provider/gather", json!({"settings": {"count": 3}}))
        .driver("jobs", Jobs::default())
        .feature("detached")
        .example("/driver/connect", json!({"connection_args": {"host": "192.0.2.1"}}))
        .example("/driver/detached/launch", json!({"command": "tcpdump"}))
        .serve()
}
