//! The kinds that have no sessions: one trait each.

use std::collections::BTreeMap;

use async_trait::async_trait;
use netpulse_model::worker::NodeInfo;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Call, Failure};

/// What a renderer works with.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RenderCall {
    /// The template.
    #[serde(default)]
    pub template: Option<String>,
    /// The variables.
    #[serde(default)]
    pub context: Value,
    /// The engine's own arguments.
    #[serde(default)]
    pub args: Value,
    /// Whatever else the request gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

/// Makes text of data.
#[async_trait]
pub trait Renderer: Send + Sync + 'static {
    /// Renders.
    async fn render(&self, request: RenderCall, call: &Call) -> Result<String, Failure>;
}

/// Where a text came from.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Origin {
    /// The platform's name.
    #[serde(default)]
    pub platform: String,
    /// The command that gave it.
    #[serde(default)]
    pub command: String,
}

/// What a parser works with.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ParseCall {
    /// The template, when the parser needs one.
    #[serde(default)]
    pub template: Option<String>,
    /// The text.
    pub context: String,
    /// The engine's own arguments.
    #[serde(default)]
    pub args: Value,
    /// Whatever else the request gave.
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// Where the text came from.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// Makes data of text.
#[async_trait]
pub trait Parser: Send + Sync + 'static {
    /// Parses.
    async fn parse(&self, request: ParseCall, call: &Call) -> Result<Value, Failure>;
}

/// Chooses nodes for devices.
#[async_trait]
pub trait Scheduler: Send + Sync + 'static {
    /// One node for one host; [`Failure::unavailable`] when none has room.
    async fn node_select(&self, nodes: &[NodeInfo], host: &str) -> Result<String, Failure>;

    /// Nodes for many hosts, aligned with them; by default one after the other, counting what
    /// each choice takes.
    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, Failure> {
        let mut nodes = nodes.to_vec();
        let mut chosen = Vec::with_capacity(hosts.len());
        for host in hosts {
            match self.node_select(&nodes, host).await {
                Ok(name) => {
                    if let Some(node) = nodes.iter_mut().find(|node| node.hostname == name) {
                        node.count += 1;
                    }
                    chosen.push(Some(name));
                }
                Err(failure) if failure.status == 503 => chosen.push(None),
                Err(failure) => return Err(failure),
            }
        }
        Ok(chosen)
    }
}

/// What a webhook is called with.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct WebhookCall {
    /// The webhook as the request gave it.
    pub request: Value,
    /// The job as `GET /jobs/{id}` answers it.
    #[serde(default)]
    pub job: Value,
    /// Its result.
    #[serde(default)]
    pub result: Value,
    /// The message.
    #[serde(default)]
    pub payload: Value,
    /// The same over every attempt.
    #[serde(default)]
    pub delivery: String,
    /// From 1.
    #[serde(default)]
    pub attempt: u32,
}

/// Tells somebody that a job has ended.
#[async_trait]
pub trait Webhook: Send + Sync + 'static {
    /// One attempt; anything but `Ok` is tried again by the webhook's own rules.
    async fn call(&self, request: WebhookCall, call: &Call) -> Result<(), Failure>;

    /// Feature `validate`: what is wrong with a request's webhook, asked before the request is
    /// accepted. [`Failure::bad_request`] with a sentence that may begin with `webhook.<field>: `.
    async fn validate(&self, _request: &Value) -> Result<(), Failure> {
        Ok(())
    }
}

/// A reference to a secret.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Reference {
    /// The secret's path.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The mount.
    #[serde(default)]
    pub mount: Option<String>,
    /// The version; the latest when absent.
    #[serde(default)]
    pub version: Option<u64>,
    /// The namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Connection argument to field of the secret.
    #[serde(default)]
    pub field_mapping: Option<BTreeMap<String, String>>,
}

/// Gives secrets.
#[async_trait]
pub trait Credential: Send + Sync + 'static {
    /// The connection arguments that a reference stands for.
    async fn get(
        &self,
        reference: Reference,
        connection_args: Map<String, Value>,
    ) -> Result<BTreeMap<String, String>, Failure>;

    /// Whether secrets can be given now, and what was seen.
    async fn validate(&self) -> Result<Map<String, Value>, Failure>;
}

/// What a pipeline's step gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineResult {
    /// What it is about.
    #[serde(default)]
    pub relates_to: String,
    /// Its name.
    #[serde(default)]
    pub result_name: String,
    /// One sentence.
    #[serde(default)]
    pub result_description: String,
    /// The data.
    #[serde(default)]
    pub details: Value,
    /// The same for people.
    #[serde(default)]
    pub formatted: String,
}

/// Gathers data for checks. Write one of the two.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Gathers; missing data is a failure, never an empty result.
    async fn gather(&self, _settings: Value, _call: &Call) -> Result<PipelineResult, Failure> {
        Err(Failure::internal("this provider gathers nothing"))
    }

    /// Gathers item by item, for much data: the items become the result's `details`.
    async fn stream(
        &self,
        settings: Value,
        _items: &mut Items,
        call: &Call,
    ) -> Result<PipelineResult, Failure> {
        self.gather(settings, call).await
    }
}

/// Where a provider's items go.
pub struct Items(pub(crate) Way);

pub(crate) enum Way {
    /// To the host as they come.
    Out(tokio::sync::mpsc::Sender<bytes::Bytes>),
    /// Into one answer.
    Kept(Vec<Value>),
}

impl Items {
    /// Gives one item. Waits while the host is slower than we are.
    ///
    /// # Errors
    /// The host does not listen any more: end.
    pub async fn give(&mut self, item: Value) -> Result<(), Failure> {
        match &mut self.0 {
            Way::Kept(items) => items.push(item),
            Way::Out(to) => {
                let line = crate::run::line(&netpulse_model::plugin::Event::Item(item));
                to.send(line).await.map_err(|_| Failure::unavailable("the host left"))?;
            }
        }
        Ok(())
    }
}

/// Turns results into others: the kinds `input` and `assistant`.
#[async_trait]
pub trait Processor: Send + Sync + 'static {
    /// Processes.
    async fn process(
        &self,
        settings: Value,
        results: Vec<PipelineResult>,
        call: &Call,
    ) -> Result<Vec<PipelineResult>, Failure>;
}

/// Judges gathered data.
#[async_trait]
pub trait Check: Send + Sync + 'static {
    /// Reports; a failure is never the same as compliant.
    async fn report(&self, settings: Value, input: Value, call: &Call) -> Result<PipelineResult, Failure>;
}

/// Brings results to people and programs.
#[async_trait]
pub trait Output: Send + Sync + 'static {
    /// Sends.
    async fn output(&self, settings: Value, results: Vec<PipelineResult>, call: &Call)
    -> Result<(), Failure>;
}

/// Takes the plugin's own settings, once, before any other call.
#[async_trait]
pub trait Configure: Send + Sync + 'static {
    /// Takes the settings; a failure ends the start and is what users see.
    async fn configure(&self, settings: Value) -> Result<(), Failure>;
}
