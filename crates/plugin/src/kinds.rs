//! The other kinds: where jobs go, who is told, where secrets come from, and the steps of a
//! pipeline. Each is one trait, whether built in or a program of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
pub use netpulse_model::CredentialRef;
use netpulse_model::worker::NodeInfo;
use netpulse_model::{ConnectionArgs, Job};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Why a plugin's call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    /// What it means to the caller.
    pub kind: Failed,
    /// A sentence that names the plugin.
    pub message: String,
}

impl PluginError {
    /// An error of this kind.
    pub fn new(kind: Failed, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What a failed call of a plugin means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failed {
    /// The caller asked for something wrong: 400.
    BadRequest,
    /// Not allowed: 403.
    Denied,
    /// What was asked for is not there: 404.
    NotFound,
    /// The plugin, or what it depends on, does not answer: 503; it may be tried again.
    Unavailable,
    /// It crashed, hung, lied or is misconfigured: 500.
    Faulty,
}

/// Chooses nodes for devices.
#[async_trait]
pub trait Scheduler: Send + Sync + 'static {
    /// The name that `worker.scheduler` carries.
    fn name(&self) -> &str;

    /// One node for one host.
    ///
    /// # Errors
    /// No node has room (`Insufficient capacity in node selection`).
    async fn node_select(&self, nodes: &[NodeInfo], host: &str) -> Result<String, PluginError>;

    /// Nodes for many hosts, aligned with them; none where there is no room.
    ///
    /// # Errors
    /// None of the hosts can be placed, or the scheduler refuses them together.
    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, PluginError>;
}

/// What a webhook is called with.
#[derive(Debug, Clone)]
pub struct WebhookCall<'a> {
    /// The webhook as the request gave it (`url`, `method`, `headers`, ...).
    pub webhook: &'a Value,
    /// The job as it ended.
    pub job: &'a Job,
    /// The message itself.
    pub payload: &'a Value,
    /// The same over every attempt: `X-NetPulse-Delivery`.
    pub delivery: uuid::Uuid,
    /// From 1.
    pub attempt: u32,
}

/// Tells somebody that a job has ended.
#[async_trait]
pub trait Webhook: Send + Sync + 'static {
    /// The name that `webhook.name` carries.
    fn name(&self) -> &str;

    /// Everything wrong with a request's webhook that can be seen without calling it: sentences.
    fn validate(&self, webhook: &Value) -> Vec<netpulse_model::FieldError>;

    /// Whether there is more to say about it than [`Webhook::validate`] knows.
    fn examines(&self) -> bool {
        false
    }

    /// What else is wrong with it, when finding out takes asking somebody: bounded to a few seconds,
    /// and nothing when that somebody does not answer.
    async fn examine(&self, _webhook: &Value) -> Vec<netpulse_model::FieldError> {
        Vec::new()
    }

    /// One attempt.
    ///
    /// # Errors
    /// It did not arrive; the outbox decides about another attempt.
    async fn call(&self, call: WebhookCall<'_>) -> Result<(), PluginError>;
}

/// Connection arguments out of a secret: zeroed when dropped, never shown.
#[derive(Clone, Default)]
pub struct SecretValues(pub BTreeMap<String, Zeroizing<String>>);

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Gives secrets for references. Asked in the worker, when a connection is made.
#[async_trait]
pub trait CredentialProvider: Send + Sync + 'static {
    /// The name that `credential.name` carries.
    fn name(&self) -> &str;

    /// Everything wrong with a reference that can be seen without asking for it, as a sentence.
    ///
    /// # Errors
    /// [`Failed::BadRequest`] or [`Failed::Denied`].
    fn check(&self, reference: &CredentialRef) -> Result<(), PluginError>;

    /// The connection arguments that the reference stands for.
    ///
    /// # Errors
    /// By kind; the sentence names the path, never a secret.
    async fn get(
        &self,
        reference: &CredentialRef,
        args: &ConnectionArgs,
    ) -> Result<SecretValues, PluginError>;

    /// Whether it could give secrets now; what it saw.
    ///
    /// # Errors
    /// It could not, and why.
    async fn validate(&self) -> Result<Map<String, Value>, PluginError>;

    /// A device refused what the reference gave: a cached copy is not to be given again.
    fn refused(&self, _reference: &CredentialRef) {}

    /// The way to manage secrets where they lie, for a provider that has one.
    fn manager(&self) -> Option<&dyn CredentialManager> {
        None
    }
}

/// A new secret, or a new version of one: zeroed when dropped, never shown.
pub struct NewSecret {
    /// Where, without the mount.
    pub path: String,
    /// What.
    pub fields: SecretValues,
    /// What is known about it; not secret.
    pub metadata: BTreeMap<String, String>,
}

/// Manages secrets where a provider keeps them.
#[async_trait]
pub trait CredentialManager: Send + Sync {
    /// Writes a secret, or a new version of it.
    ///
    /// # Errors
    /// By kind; the sentence names the path, never a secret.
    async fn create(&self, secret: NewSecret) -> Result<(), PluginError>;

    /// Every field of the latest version.
    ///
    /// # Errors
    /// As [`CredentialManager::create`]; [`Failed::NotFound`] when there is none.
    async fn read(&self, path: &str) -> Result<SecretValues, PluginError>;

    /// Removes a secret with all its versions.
    ///
    /// # Errors
    /// As [`CredentialManager::read`].
    async fn delete(&self, path: &str) -> Result<(), PluginError>;

    /// The paths below `prefix`, folders ending in `/`; with `recursive` the secrets at any depth.
    ///
    /// # Errors
    /// As [`CredentialManager::create`].
    async fn list(&self, prefix: &str, recursive: bool) -> Result<Vec<String>, PluginError>;

    /// What is known about a secret and its versions.
    ///
    /// # Errors
    /// As [`CredentialManager::read`].
    async fn metadata(&self, path: &str) -> Result<Map<String, Value>, PluginError>;
}

/// What a pipeline's step gives: the same shape from every provider, check and assistant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineResult {
    /// What it is about.
    pub relates_to: String,
    /// Its name.
    pub result_name: String,
    /// One sentence.
    pub result_description: String,
    /// The data: an object or a list.
    #[serde(default)]
    pub details: Value,
    /// The same for people.
    #[serde(default)]
    pub formatted: String,
}

/// Gathers data that checks look at.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The name that `uses` carries.
    fn name(&self) -> &str;
    /// Gathers.
    ///
    /// # Errors
    /// The data is missing: never the same as nothing found.
    async fn gather(&self, settings: &Value) -> Result<PipelineResult, PluginError>;

    /// Gathers, and gives each item as soon as it is there; the result's `details` are then empty.
    ///
    /// # Errors
    /// As [`Provider::gather`]; what was given until then is not all there is.
    async fn gather_each(
        &self,
        settings: &Value,
        each: &mut (dyn FnMut(Value) + Send),
    ) -> Result<PipelineResult, PluginError> {
        let mut result = self.gather(settings).await?;
        if let Value::Array(items) = &mut result.details {
            std::mem::take(items).into_iter().for_each(each);
        }
        Ok(result)
    }
}

/// Turns results into other results: the kinds `input` and `assistant`.
#[async_trait]
pub trait Processor: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;
    /// Processes.
    ///
    /// # Errors
    /// It could not.
    async fn process(
        &self,
        settings: &Value,
        results: Vec<PipelineResult>,
    ) -> Result<Vec<PipelineResult>, PluginError>;
}

/// Judges gathered data.
#[async_trait]
pub trait Check: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;
    /// Reports what it found.
    ///
    /// # Errors
    /// It could not judge: never the same as compliant.
    async fn report(&self, settings: &Value, input: &Value) -> Result<PipelineResult, PluginError>;
}

/// Brings results to people and programs.
#[async_trait]
pub trait Output: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;
    /// Sends.
    ///
    /// # Errors
    /// It could not.
    async fn output(&self, settings: &Value, results: &[PipelineResult]) -> Result<(), PluginError>;
}
