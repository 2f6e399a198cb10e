//! Schedulers, webhooks, credential providers and pipeline steps that are programs of their own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use netpulse_model::api::JobInResponse;
use netpulse_model::plugin::Kind;
use netpulse_model::secret::{self, is_secret_key};
use netpulse_model::worker::NodeInfo;
use netpulse_model::{ConnectionArgs, FieldError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Plugin;
use super::examine::Examiner;
use crate::host::blame::Errand;
use crate::kinds::{
    Check, CredentialProvider, CredentialRef, Failed, Output, PipelineResult, PluginError, Processor,
    Provider, Scheduler, SecretValues, Webhook, WebhookCall,
};
use crate::schema::Schema;

/// An adapter with the schema of the argument that its requests carry.
pub(crate) struct External {
    plugin: Plugin,
    kind: Kind,
    schema: Option<Schema>,
    examiner: Examiner,
}

impl External {
    /// The adapter of that capability.
    ///
    /// # Errors
    /// Its schema is none.
    pub(crate) fn new(plugin: Plugin, kind: Kind) -> Result<Self, String> {
        let argument = match kind {
            Kind::Webhook => "webhook",
            Kind::Credential => "reference",
            _ => "settings",
        };
        Ok(Self { schema: plugin.schema(argument)?, plugin, kind, examiner: Examiner::default() })
    }

    fn faulty(&self, text: impl std::fmt::Display) -> PluginError {
        PluginError::new(Failed::Faulty, format!("The plugin {} {text}", self.plugin.id()))
    }

    /// The settings fit their schema.
    fn settings(&self, settings: &Value) -> Result<(), PluginError> {
        let errors =
            self.schema.as_ref().map(|schema| schema.check(settings, &["settings"])).unwrap_or_default();
        if errors.is_empty() {
            return Ok(());
        }
        Err(PluginError::new(Failed::BadRequest, netpulse_model::fields::sentence(&errors)))
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, PluginError> {
        let errand = body.as_object().map(|body| Errand::request(path, body)).unwrap_or_default();
        self.ask_as(path, body, &errand).await
    }

    async fn ask_as<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: Value,
        errand: &Errand,
    ) -> Result<T, PluginError> {
        let secrets = secret::collect(&body);
        self.plugin.call(path, &body, self.plugin.deadline(), secrets, errand).await
    }
}

#[derive(Deserialize)]
struct Node {
    node: String,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Option<String>>,
}

#[async_trait]
impl Scheduler for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    async fn node_select(&self, nodes: &[NodeInfo], host: &str) -> Result<String, PluginError> {
        const PATH: &str = "/scheduler/node_select";
        let body = json!({"name": self.plugin.name(), "nodes": nodes, "host": host});
        // The nodes' figures are others each time.
        let errand = Errand::request(PATH, &Map::from_iter([("host".to_owned(), host.into())])).lenient();
        let chosen: Node = self.ask_as(PATH, body, &errand).await?;
        if nodes.iter().any(|node| node.hostname == chosen.node) {
            return Ok(chosen.node);
        }
        Err(self.faulty(format_args!("chose the node `{}`, which was not offered", chosen.node)))
    }

    async fn batch_node_select(
        &self,
        nodes: &[NodeInfo],
        hosts: &[String],
    ) -> Result<Vec<Option<String>>, PluginError> {
        const PATH: &str = "/scheduler/batch_node_select";
        let body = json!({"name": self.plugin.name(), "nodes": nodes, "hosts": hosts});
        let errand = Errand::request(PATH, &Map::from_iter([("hosts".to_owned(), hosts.into())])).lenient();
        let chosen: Nodes = self.ask_as(PATH, body, &errand).await?;
        if chosen.nodes.len() != hosts.len() {
            return Err(self.faulty(format_args!("placed {} hosts of {}", chosen.nodes.len(), hosts.len())));
        }
        let offered = |name: &String| nodes.iter().any(|node| node.hostname == *name);
        match chosen.nodes.iter().flatten().find(|name| !offered(name)) {
            Some(stranger) => {
                Err(self.faulty(format_args!("chose the node `{stranger}`, which was not offered")))
            }
            None => Ok(chosen.nodes),
        }
    }
}

#[async_trait]
impl Webhook for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn validate(&self, webhook: &Value) -> Vec<FieldError> {
        self.schema.as_ref().map(|schema| schema.check(webhook, &[])).unwrap_or_default()
    }

    fn examines(&self) -> bool {
        self.plugin.capability.has("validate")
    }

    async fn examine(&self, webhook: &Value) -> Vec<FieldError> {
        if !self.examines() {
            return Vec::new();
        }
        const PATH: &str = "/webhook/validate";
        let body = json!({"name": self.plugin.name(), "request": webhook});
        let errand = body.as_object().map(|body| Errand::request(PATH, body)).unwrap_or_default();
        let secrets = secrets_of(webhook);
        let mut errors =
            self.examiner.ask(&self.plugin, PATH, &body, secrets, &errand, (&["webhook"], "webhook")).await;
        for error in &mut errors {
            error.loc.remove(0);
        }
        errors
    }

    async fn call(&self, call: WebhookCall<'_>) -> Result<(), PluginError> {
        let job = JobInResponse::from(call.job.clone());
        let body = json!({
            "name": self.plugin.name(), "request": call.webhook, "result": call.job.result, "job": job,
            "payload": call.payload, "delivery": call.delivery, "attempt": call.attempt,
        });
        const PATH: &str = "/webhook/call";
        // A message has its own rules for how often it is tried.
        let errand = body.as_object().map(|body| Errand::request(PATH, body)).unwrap_or_default().lenient();
        let secrets = secrets_of(call.webhook);
        self.plugin.call::<Value>(PATH, &body, self.plugin.deadline(), secrets, &errand).await.map(|_| ())
    }
}

/// What a receiver's fields hold that may stand nowhere: all but its kind, method and rules.
fn secrets_of(webhook: &Value) -> Vec<String> {
    fn texts(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.len() >= 4 => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            Value::Object(map) => map.values().for_each(|value| texts(value, found)),
            _ => {}
        }
    }
    let mut found = secret::collect(webhook);
    for key in ["headers", "cookies", "auth", "secret"] {
        if let Some(value) = webhook.get(key) {
            texts(value, &mut found);
        }
    }
    if let Some(url) = webhook.get("url").and_then(Value::as_str) {
        // What a message may quote of it beside the host: path and query, where tokens stand.
        let secret = match url.split_once("://") {
            Some((_, rest)) => rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)),
            None => url.split_once(':').map(|(_, rest)| rest),
        };
        found.extend(secret.filter(|secret| secret.len() >= 4).map(str::to_owned));
    }
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
}

#[derive(Deserialize)]
struct Values {
    values: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Validated {
    success: bool,
    #[serde(default)]
    detail: Value,
}

#[async_trait]
impl CredentialProvider for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn check(&self, reference: &CredentialRef) -> Result<(), PluginError> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let value = serde_json::to_value(reference)
            .map_err(|e| PluginError::new(Failed::BadRequest, e.to_string()))?;
        let errors = schema.check(&value, &["credential"]);
        if errors.is_empty() {
            return Ok(());
        }
        Err(PluginError::new(Failed::BadRequest, netpulse_model::fields::sentence(&errors)))
    }

    async fn get(
        &self,
        reference: &CredentialRef,
        args: &ConnectionArgs,
    ) -> Result<SecretValues, PluginError> {
        let mut shown = args.0.clone();
        shown.retain(|key, _| !is_secret_key(key));
        let body = json!({"name": self.plugin.name(), "reference": reference, "connection_args": shown});
        const PATH: &str = "/credential/get";
        // The same secret for whichever device is the same question.
        let errand = Map::from_iter([("reference".to_owned(), json!(reference))]);
        let errand = Errand::request(PATH, &errand).lenient();
        let found = |answer: &Values| {
            let secret = answer.values.iter().filter(|(key, _)| !key.ends_with("username"));
            let texts = secret.filter_map(|(_, value)| value.as_str().filter(|text| text.len() >= 4));
            texts.map(str::to_owned).collect()
        };
        let (program, deadline) = (&self.plugin.program, self.plugin.deadline());
        let answer = program.call_for(PATH, &body, deadline, secret::collect(&body), &errand, Some(&found));
        let answer: Values = answer.await.map_err(|error| self.plugin.error(error))?;
        let mut values = BTreeMap::new();
        for (key, value) in answer.values {
            let text = match value {
                Value::String(text) => text,
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Null => continue,
                _ => return Err(self.faulty(format_args!("gave something else than a text for `{key}`"))),
            };
            values.insert(key, Zeroizing::new(text));
        }
        Ok(SecretValues(values))
    }

    async fn validate(&self) -> Result<Map<String, Value>, PluginError> {
        let answer: Validated = self.ask("/credential/validate", json!({"name": self.plugin.name()})).await?;
        let detail = match answer.detail {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => Map::from_iter([("detail".to_owned(), other)]),
        };
        if answer.success {
            return Ok(detail);
        }
        let why = detail
            .get("detail")
            .or_else(|| detail.get("error"))
            .and_then(Value::as_str)
            .unwrap_or("without a reason");
        Err(PluginError::new(
            Failed::Unavailable,
            format!("{} says that it cannot give secrets: {why}", self.plugin.id()),
        ))
    }
}

#[async_trait]
impl Provider for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    async fn gather(&self, settings: &Value) -> Result<PipelineResult, PluginError> {
        let mut items = Vec::new();
        let mut result = self.gather_each(settings, &mut |item| items.push(item)).await?;
        if !items.is_empty() {
            result.details = Value::Array(items);
        }
        Ok(result)
    }

    async fn gather_each(
        &self,
        settings: &Value,
        each: &mut (dyn FnMut(Value) + Send),
    ) -> Result<PipelineResult, PluginError> {
        self.settings(settings)?;
        let body = json!({"name": self.plugin.name(), "settings": settings});
        super::gather::gather(&self.plugin, &body, each).await.map_err(|error| self.plugin.error(error))
    }
}

#[derive(Deserialize)]
struct Results {
    results: Vec<PipelineResult>,
}

#[async_trait]
impl Processor for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    async fn process(
        &self,
        settings: &Value,
        results: Vec<PipelineResult>,
    ) -> Result<Vec<PipelineResult>, PluginError> {
        self.settings(settings)?;
        let path = format!("/{}/process", self.kind);
        let body = json!({"name": self.plugin.name(), "settings": settings, "results": results});
        self.ask::<Results>(&path, body).await.map(|answer| answer.results)
    }
}

#[async_trait]
impl Check for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    async fn report(&self, settings: &Value, input: &Value) -> Result<PipelineResult, PluginError> {
        self.settings(settings)?;
        self.ask("/check/report", json!({"name": self.plugin.name(), "settings": settings, "input": input}))
            .await
    }
}

#[async_trait]
impl Output for External {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    async fn output(&self, settings: &Value, results: &[PipelineResult]) -> Result<(), PluginError> {
        self.settings(settings)?;
        let body = json!({"name": self.plugin.name(), "settings": settings, "results": results});
        self.ask::<Value>("/output/process", body).await.map(|_| ())
    }
}
