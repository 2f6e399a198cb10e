//! External plugins behind the same traits as built-in ones.

mod detached;
pub(crate) mod driver;
mod driver_run;
mod examine;
pub(crate) mod gather;
pub(crate) mod others;
pub(crate) mod scope;
pub(crate) mod templates;

use std::sync::Arc;
use std::time::Instant;

use netpulse_model::plugin::Capability;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::host::blame::Errand;
use crate::host::program::Program;
use crate::host::wire::CallError;
use crate::kinds::{Failed, PluginError};
use crate::schema::Schema;

/// What an adapter knows of its plugin.
pub(crate) struct Plugin {
    pub(crate) program: Arc<Program>,
    pub(crate) capability: Capability,
}

impl Plugin {
    pub(crate) fn new(program: Arc<Program>, capability: Capability) -> Self {
        Self { program, capability }
    }

    pub(crate) fn name(&self) -> &str {
        &self.capability.name
    }

    pub(crate) fn id(&self) -> &str {
        &self.program.capabilities.id
    }

    /// The schema of that argument.
    ///
    /// # Errors
    /// It is no schema.
    pub(crate) fn schema(&self, argument: &str) -> Result<Option<Schema>, String> {
        match &self.capability.json_schema {
            Value::Object(map) => map.get(argument).map_or(Ok(None), Schema::read),
            _ => Ok(None),
        }
        .map_err(|why| format!("jsonSchema.{argument}: {why}"))
    }

    /// One call, bounded by the running job's time.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        deadline: Instant,
        secrets: Vec<String>,
        errand: &Errand,
    ) -> Result<T, PluginError> {
        self.program.call(path, body, deadline, secrets, errand).await.map_err(|error| self.error(error))
    }

    /// When a call has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        scope::deadline(self.program.host().call_timeout)
    }

    /// A failed call as a sentence that names the plugin.
    pub(crate) fn sentence(&self, error: &CallError) -> String {
        match error {
            CallError::Refused { text, .. } if !text.is_empty() => format!("{} ({})", text, self.id()),
            other => format!("The plugin {} {}", self.id(), other.reason()),
        }
    }

    pub(crate) fn error(&self, error: CallError) -> PluginError {
        let kind = match &error {
            CallError::Refused { status: 400, .. } => Failed::BadRequest,
            CallError::Refused { status: 403, .. } => Failed::Denied,
            CallError::Refused { status: 404, .. } => Failed::NotFound,
            CallError::Refused { status: 503, .. } | CallError::NotSent(_) => Failed::Unavailable,
            _ => Failed::Faulty,
        };
        PluginError::new(kind, self.sentence(&error))
    }
}
