//! Commands that go on without their session, at a driver that is a program of its own.

use std::time::Instant;

use async_trait::async_trait;
use netpulse_model::plugin::{Detached, DetachedOutput, DetachedTask};
use netpulse_model::{ErrorCode, ErrorInfo};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::driver::Session;
use super::scope::{self, Scope};
use crate::driver::DetachedTasks;
use crate::host::blame::Errand;
use crate::host::wire::CallError;

#[derive(serde::Deserialize)]
struct Launched {
    task: DetachedTask,
}

#[derive(serde::Deserialize)]
struct Killed {
    killed: bool,
}

#[derive(serde::Deserialize)]
struct Listed {
    tasks: Vec<DetachedTask>,
}

impl Session {
    async fn ask_detached<T: DeserializeOwned>(&self, what: &str, body: Detached) -> Result<T, ErrorInfo> {
        let path = format!("/driver/detached/{what}");
        let body = Detached {
            name: self.driver.plugin.name().to_owned(),
            session: self.id.clone(),
            job_id: Scope::current().map(|scope| scope.job.to_string()),
            ..body
        };
        let deadline: Instant = scope::deadline(self.program().host().call_timeout);
        let errand = Errand::on_device(&path, &self.device, body.command.as_deref(), &body.driver_args);
        self.driver.on(&self.start, &path, &body, deadline, &errand).await.map_err(|error| {
            let mut info = self.driver.info(&error);
            // Whether it runs is not known: launching it again is not safe.
            let sent = matches!(error, CallError::Lost(_) | CallError::Late(_) | CallError::Nonsense(_));
            if what == "launch" && sent {
                info.message
                    .push_str("; the command may run: list what is detached before it is launched again");
            }
            info
        })
    }

    fn lie(&self, text: impl std::fmt::Display) -> ErrorInfo {
        ErrorInfo::new(ErrorCode::PluginFailed, format!("The plugin {} {text}", self.driver.plugin.id()))
    }

    fn same(&self, wanted: &str, task: &DetachedTask) -> Result<(), ErrorInfo> {
        if task.task_id == wanted {
            return Ok(());
        }
        Err(self.lie(format_args!("answered for the task `{}`, not for `{wanted}`", task.task_id)))
    }
}

#[async_trait]
impl DetachedTasks for Session {
    async fn launch(
        &mut self,
        task_id: &str,
        command: &str,
        driver_args: &Map<String, Value>,
    ) -> Result<DetachedTask, ErrorInfo> {
        let body = Detached {
            task_id: task_id.to_owned(),
            command: Some(command.to_owned()),
            driver_args: driver_args.clone(),
            ..Detached::default()
        };
        let Launched { mut task } = self.ask_detached("launch", body).await?;
        self.same(task_id, &task)?;
        if task.command.is_empty() {
            command.clone_into(&mut task.command);
        }
        Ok(task)
    }

    async fn query(&mut self, task_id: &str, offset: u64) -> Result<DetachedOutput, ErrorInfo> {
        let body = Detached { task_id: task_id.to_owned(), offset: Some(offset), ..Detached::default() };
        let answer: DetachedOutput = self.ask_detached("query", body).await?;
        self.same(task_id, &answer.task)?;
        // A log that was cut begins anew, so the offset may go back; beyond what was given it cannot.
        let most = offset.saturating_add(answer.output.len() as u64);
        if answer.next_offset > most {
            return Err(self.lie(format_args!(
                "gave {} bytes of output from {offset} on and says that {} is next",
                answer.output.len(),
                answer.next_offset
            )));
        }
        Ok(answer)
    }

    async fn kill(&mut self, task_id: &str) -> Result<bool, ErrorInfo> {
        let body = Detached { task_id: task_id.to_owned(), ..Detached::default() };
        self.ask_detached::<Killed>("kill", body).await.map(|answer| answer.killed)
    }

    async fn list(&mut self) -> Result<Vec<DetachedTask>, ErrorInfo> {
        self.ask_detached::<Listed>("list", Detached::default()).await.map(|answer| answer.tasks)
    }
}
