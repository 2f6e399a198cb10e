//! What a client asks of one device, or of many.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::credential::{self, CredentialRef};
use crate::fields::{FieldError, Fields};
use crate::job::{JobKind, Priority, RetryPolicy};
use crate::secret;
use crate::webhook::WebHook;

/// How to reach and enter a device: the driver's own argument names, as the client gave them.
/// Prints masked.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionArgs(pub Map<String, Value>);

impl ConnectionArgs {
    /// The text at `key`, if it is one and not empty.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The device's address: `host`, else one of Netmiko's and NAPALM's other names for it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        ["host", "ip", "hostname"].into_iter().find_map(|key| self.text(key)).map(str::trim)
    }

    /// The platform's name as the client wrote it.
    #[must_use]
    pub fn device_type(&self) -> Option<&str> {
        self.text("device_type")
    }

    /// The port, when one is given and is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.0.get("port")? {
            Value::Number(n) => n.as_u64().and_then(|n| u16::try_from(n).ok()),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// These arguments with `overrides` laid over them; an override of `null` removes.
    #[must_use]
    pub fn overlaid(&self, overrides: &Map<String, Value>) -> Self {
        let mut merged = self.0.clone();
        for (key, value) in overrides {
            if value.is_null() {
                merged.remove(key);
            } else {
                merged.insert(key.clone(), value.clone());
            }
        }
        Self(merged)
    }
}

impl fmt::Debug for ConnectionArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::Object(secret::masked_map(&self.0)))
    }
}

/// A payload: what to send, or what to render it from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Payload {
    /// One item.
    Text(String),
    /// Several, in order.
    List(Vec<String>),
    /// Context for a template: needs `rendering`.
    Object(Map<String, Value>),
}

impl Payload {
    /// The items as given; none for an object.
    #[must_use]
    pub fn items(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::List(items) => items.clone(),
            Self::Object(_) => Vec::new(),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", content = "with")]
pub enum Operation {
    /// Run commands and report what they print.
    Command(Payload),
    /// Change the configuration, line by line.
    Config(Payload),
}

/// A renderer or parser and what it is to work with; further keys are the engine's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TemplateCall {
    /// The engine: `jinja2`, `textfsm`, ...
    pub name: String,
    /// The template or where it lies.
    pub template: Option<String>,
    /// For a renderer: the variables.
    pub context: Option<Value>,
    /// Everything else that was given (`args`, `use_ntc_template`, ...).
    #[serde(default)]
    pub extra: Map<String, Value>,
}

/// How the job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// In `FifoQ`, by any free slot.
    Fifo,
    /// In the device's own queue, over its kept session.
    Pinned,
}

/// What the audit keeps of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditMode {
    /// Request (masked) and result.
    #[default]
    Full,
    /// Who, when, which device, how it ended.
    Metadata,
    /// Nothing.
    None,
}

/// One request to one device, validated. Prints masked; serialises whole, for sealing only.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutionRequest {
    /// The driver's name.
    pub driver: String,
    /// How to reach the device.
    pub connection_args: ConnectionArgs,
    /// Where the secrets among them lie; the worker asks for them when it connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialRef>,
    /// The driver's own arguments for this operation.
    #[serde(default)]
    pub driver_args: Map<String, Value>,
    /// What to do.
    pub operation: Operation,
    /// Render the payload first.
    #[serde(default)]
    pub rendering: Option<TemplateCall>,
    /// Parse each output.
    #[serde(default)]
    pub parsing: Option<TemplateCall>,
    /// Where to wait; the driver decides when absent.
    #[serde(default)]
    pub queue_strategy: Option<Strategy>,
    /// Seconds the job may wait in its queue.
    pub ttl: u64,
    /// Seconds the job may run; `job.timeout` when absent.
    #[serde(default)]
    pub execution_timeout: Option<u64>,
    /// Seconds its result is kept; `job.result_ttl` when absent.
    #[serde(default)]
    pub result_ttl: Option<u64>,
    /// What the audit keeps.
    #[serde(default)]
    pub audit_mode: AuditMode,
    /// Its place among the jobs of its queue.
    #[serde(default)]
    pub priority: Priority,
    /// How often a query is tried again when no connection comes about.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Whom to tell when the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebHook>,
    /// Fields we have no name for, kept for the driver (`enable_mode`, `save`, `dry_run`, ...).
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl fmt::Debug for ExecutionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionRequest")
            .field("driver", &self.driver)
            .field("connection_args", &self.connection_args)
            .field("operation", &self.operation)
            .field("driver_args", &Value::Object(secret::masked_map(&self.driver_args)))
            .finish_non_exhaustive()
    }
}

/// Top-level fields with a capability of their own that this version does not have, and the
/// sentence that says so. A field set to its neutral value (`null`, `false`) asks for nothing.
const NOT_YET: &[(&str, &str)] = &[
    ("file_transfer", "File transfer is not available in this version; leave `file_transfer` out"),
    ("detach", "Detached mode is not available in this version; leave `detach` out"),
    ("push_interval", "Detached mode is not available in this version; leave `push_interval` out"),
    ("staged_file_id", "`staged_file_id` is set by the server only"),
];

/// As [`NOT_YET`], inside `driver_args`.
const NOT_YET_ARGS: &[(&str, &str)] = &[
    ("script_content", "Scripts are not available in this version; send the commands as `command`"),
    ("expect_map", "`expect_map` is not available in this version; use `expect_string` (netmiko driver)"),
    ("list_active_detached_tasks", "Detached mode is not available in this version"),
    ("use_genie", "Genie is a Python library; use `parsing` with textfsm or ttp"),
];

fn asks_for_something(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// Fields that [`ExecutionRequest`] reads itself.
const KNOWN: &[&str] = &[
    "driver",
    "connection_args",
    "credential",
    "driver_args",
    "command",
    "config",
    "file_transfer",
    "rendering",
    "parsing",
    "queue_strategy",
    "ttl",
    "execution_timeout",
    "result_ttl",
    "audit_mode",
    "webhook",
    "detach",
    "push_interval",
    "staged_file_id",
    "priority",
    "retry",
    "devices",
    "options",
    "wait",
];

/// A field of `body` that nobody knows and that looks like `command` or `config`, with the one it
/// looks like.
fn misspelt(body: &Map<String, Value>) -> Option<(&str, &'static str)> {
    let unknown = body.keys().filter(|key| !KNOWN.contains(&key.as_str()));
    let near = |key: &str| {
        let typed = key.to_ascii_lowercase();
        ["command", "config"].into_iter().find(|word| typing_errors(&typed, word) <= 2)
    };
    unknown.filter_map(|key| Some((key.as_str(), near(key)?))).next()
}

/// Letters to add, drop or change so that one text becomes the other. For short texts.
fn typing_errors(a: &str, b: &str) -> usize {
    // A long key is no misspelling of a short word, and comparing costs their product.
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut above: Vec<usize> = (0..=b.chars().count()).collect();
    for (row, x) in a.chars().enumerate() {
        let mut left = row + 1;
        let mut here = vec![left];
        for ((y, diagonal), up) in b.chars().zip(&above).zip(above.iter().skip(1)) {
            left = (diagonal + usize::from(x != y)).min(up + 1).min(left + 1);
            here.push(left);
        }
        above = here;
    }
    above.last().copied().unwrap_or_default()
}

/// What a body may be wrong in: its types (422 upstream) or its rules (400 or 422).
pub type Errors = Vec<FieldError>;

/// Reads a payload: text, list of texts, or object.
fn payload(fields: &mut Fields<'_>, key: &str) -> Option<Payload> {
    match fields.get(key)? {
        Value::String(text) => Some(Payload::Text(text.clone())),
        Value::Object(map) => Some(Payload::Object(map.clone())),
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|i| i.as_str().map(str::to_owned)).collect();
            if texts.is_none() {
                fields.error(
                    key,
                    "string_type",
                    "Input should be a valid string, list of strings, or dictionary",
                );
            }
            texts.map(Payload::List)
        }
        _ => {
            fields.error(
                key,
                "string_type",
                "Input should be a valid string, list of strings, or dictionary",
            );
            None
        }
    }
}

fn template_call(fields: &mut Fields<'_>, key: &str, default_name: &str) -> Option<TemplateCall> {
    fields.nested(key, |inner| {
        let name = inner
            .string("name")
            .or_else(|| inner.string(if key == "parsing" { "parser" } else { "renderer" }));
        TemplateCall {
            name: name.unwrap_or_else(|| default_name.to_owned()),
            template: inner.string("template"),
            context: inner.get("context").cloned(),
            extra: inner
                .map()
                .iter()
                .filter(|(k, _)| !["name", "parser", "renderer", "template", "context"].contains(&k.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        }
    })
}

/// The early API nests some fields in `options`; they count as if written at the top.
fn flatten_options(body: &Value) -> std::borrow::Cow<'_, Value> {
    let Some(options) = body.get("options").and_then(Value::as_object) else {
        return std::borrow::Cow::Borrowed(body);
    };
    let mut flat = body.clone();
    if let Some(map) = flat.as_object_mut() {
        for (key, value) in options {
            map.entry(key.clone()).or_insert_with(|| value.clone());
        }
        map.remove("options");
    }
    std::borrow::Cow::Owned(flat)
}

impl ExecutionRequest {
    /// Reads a request body; `default_ttl` is 300 for one device and 600 for many.
    ///
    /// # Errors
    /// Every wrong field at once, each with its path.
    pub fn read(body: &Value, default_ttl: u64) -> Result<Self, Errors> {
        let body = flatten_options(body);
        let mut errors = Vec::new();
        let request = Fields::of(&body, Vec::new(), &mut errors)
            .and_then(|mut f| Self::read_fields(&mut f, default_ttl, true));
        match request {
            Some(request) if errors.is_empty() => Ok(request),
            _ => Err(errors),
        }
    }

    fn read_fields(f: &mut Fields<'_>, default_ttl: u64, needs_operation: bool) -> Option<Self> {
        let driver = f.required_string("driver");
        if f.get("connection_args").is_none() {
            f.missing("connection_args");
        }
        let mut connection_args = ConnectionArgs(f.object("connection_args").unwrap_or_default());
        let credential = credential::take(f, &mut connection_args);
        let driver_args = f.object("driver_args").unwrap_or_default();
        for (key, sentence) in NOT_YET {
            if f.get(key).is_some_and(asks_for_something) {
                f.error(key, "value_error", *sentence);
            }
        }
        for (key, sentence) in NOT_YET_ARGS {
            if driver_args.get(*key).is_some_and(asks_for_something) {
                f.error("driver_args", "value_error", format!("{key}: {sentence}"));
            }
        }
        let command = payload(f, "command");
        let config = payload(f, "config");
        let rendering = template_call(f, "rendering", "jinja2");
        let parsing = template_call(f, "parsing", "");
        if command.is_some() && config.is_some() {
            f.error("config", "value_error", "Only one of `config` or `command` can be set");
        }
        let operation = match (command, config) {
            (Some(payload), _) => Some(Operation::Command(payload)),
            (_, Some(payload)) => Some(Operation::Config(payload)),
            _ => None,
        };
        if operation.is_none() && needs_operation && !f.has_errors() {
            let mut sentence =
                "Either `config`, `command`, `file_transfer`, or an actionable `driver_args` set. \
                                (this version: `config` or `command`)"
                    .to_owned();
            if let Some((typed, meant)) = misspelt(f.map()) {
                sentence.push_str(&format!("; `{typed}` is not known: did you mean `{meant}`?"));
            }
            f.error("command", "value_error", sentence);
        }
        let is_object = matches!(
            &operation,
            Some(Operation::Command(Payload::Object(_)) | Operation::Config(Payload::Object(_)))
        );
        if is_object && rendering.is_none() {
            f.error("rendering", "value_error", "`rendering` should be set when command/config is a dict");
        }
        let retry = f.nested("retry", |inner| {
            let max = inner.integer("max", 0, 10).unwrap_or(0);
            let mut intervals = Vec::new();
            let mut bad = false;
            for item in inner.list("intervals").map(Vec::as_slice).unwrap_or_default() {
                match item.as_f64().filter(|s| (0.0..=86_400.0).contains(s)) {
                    Some(seconds) => intervals.push(seconds),
                    None => bad = true,
                }
            }
            if bad {
                inner.error("intervals", "value_error", "Input should be a list of seconds from 0 to 86400");
            }
            RetryPolicy { max: u32::try_from(max).unwrap_or(0), intervals }
        });
        let strategy = f.one_of("queue_strategy", &["fifo", "pinned"]);
        let audit = f.one_of("audit_mode", &["full", "metadata", "none"]);
        let priority = f.one_of("priority", &["high", "normal", "low"]);
        let seconds = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
        let request = Self {
            driver,
            connection_args,
            credential,
            driver_args,
            operation: operation.unwrap_or(Operation::Command(Payload::List(Vec::new()))),
            rendering,
            parsing,
            queue_strategy: strategy.map(|s| if s == "fifo" { Strategy::Fifo } else { Strategy::Pinned }),
            ttl: seconds(f.integer("ttl", 1, 86_400)).unwrap_or(default_ttl),
            execution_timeout: seconds(f.integer("execution_timeout", 1, 86_400)),
            result_ttl: seconds(f.integer("result_ttl", 60, 604_800)),
            audit_mode: match audit {
                Some("metadata") => AuditMode::Metadata,
                Some("none") => AuditMode::None,
                _ => AuditMode::Full,
            },
            priority: match priority {
                Some("high") => Priority::High,
                Some("low") => Priority::Low,
                _ => Priority::Normal,
            },
            retry: retry.unwrap_or_default(),
            webhook: WebHook::read(f),
            extra: f
                .map()
                .iter()
                .filter(|(k, _)| !KNOWN.contains(&k.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        };
        (!f.has_errors()).then_some(request)
    }

    /// Whether this changes the device.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match self.operation {
            Operation::Config(_) => JobKind::Modification,
            Operation::Command(_) => JobKind::Query,
        }
    }

    /// What to send, before rendering.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        match &self.operation {
            Operation::Command(payload) | Operation::Config(payload) => payload,
        }
    }

    /// The commands as a job lists them: its own secrets masked, since a line may carry one.
    #[must_use]
    pub fn listed_command(&self) -> Vec<String> {
        let secrets = self.secrets();
        match self.payload() {
            Payload::Object(map) => vec![Value::Object(secret::masked_map(map)).to_string()],
            other => other.items().iter().map(|item| secret::scrub(item, &secrets)).collect(),
        }
    }

    /// Every secret text that this request carries.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let mut found = secret::collect(&Value::Object(self.connection_args.0.clone()));
        found.extend(secret::collect(&Value::Object(self.driver_args.clone())));
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found.dedup();
        found
    }

    /// A flag that upstream and the early API read from three places; the top level wins, then
    /// `driver_args`, then `connection_args`.
    #[must_use]
    pub fn flag(&self, key: &str) -> Option<bool> {
        [&self.extra, &self.driver_args, &self.connection_args.0].into_iter().find_map(|map| {
            match map.get(key)? {
                Value::Bool(b) => Some(*b),
                Value::String(text) => text.to_ascii_lowercase().parse().ok(),
                Value::Number(n) => n.as_i64().map(|n| n != 0),
                _ => None,
            }
        })
    }
}

/// One device of a bulk request that could not even be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BulkFailure {
    /// The host as given.
    pub host: String,
    /// Why.
    pub reason: String,
}

/// A request to many devices, taken apart: one entry per device, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkRequest {
    /// The reference that holds for every device that does not say otherwise.
    pub credential: Option<CredentialRef>,
    /// For each device its own whole request, or why there is none.
    pub devices: Vec<Result<ExecutionRequest, BulkFailure>>,
}

impl BulkRequest {
    /// Reads a bulk body. One device's mistake is that device's; a mistake in the shared part
    /// is everybody's.
    ///
    /// # Errors
    /// Mistakes in the shared fields, in `devices` itself, or a device without a host.
    pub fn read(body: &Value) -> Result<Self, Errors> {
        let body = flatten_options(body);
        let mut errors = Vec::new();
        let Some(mut fields) = Fields::of(&body, Vec::new(), &mut errors) else { return Err(errors) };
        if fields.get("devices").is_none() {
            fields.missing("devices");
        }
        let devices = fields.list("devices").cloned().unwrap_or_default();
        let each_has_payload = !devices.is_empty()
            && devices
                .iter()
                .all(|d| ["command", "config"].iter().any(|k| d.get(k).is_some_and(|v| !v.is_null())));
        let base = ExecutionRequest::read_fields(&mut fields, 600, !each_has_payload && !devices.is_empty());
        for (index, device) in devices.iter().enumerate() {
            let loc = vec![Value::from("devices"), Value::from(index)];
            match device.as_object() {
                None => errors.push(FieldError {
                    kind: "dict_type".into(),
                    loc,
                    msg: "Input should be a valid dictionary".into(),
                    input: Value::Null,
                }),
                Some(map) => {
                    let host = ConnectionArgs(map.clone()).host().map(str::to_owned);
                    if host.is_none() {
                        errors.push(FieldError {
                            kind: "value_error".into(),
                            loc,
                            msg: "'host' is required for each device".into(),
                            input: secret::masked(device),
                        });
                    } else if ["command", "config", "file_transfer"]
                        .iter()
                        .filter(|k| map.get(**k).is_some_and(|v| !v.is_null()))
                        .count()
                        > 1
                    {
                        errors.push(FieldError {
                            kind: "value_error".into(),
                            loc,
                            msg: format!(
                                "Device {}: cannot specify more than one of 'command', 'config', or 'file_transfer'",
                                host.unwrap_or_default()
                            ),
                            input: Value::Null,
                        });
                    }
                }
            }
        }
        let (Some(base), true) = (base, errors.is_empty()) else { return Err(errors) };
        let devices =
            devices.iter().filter_map(|value| Some(Self::device(&base, value, value.as_object()?))).collect();
        Ok(Self { credential: base.credential, devices })
    }

    fn device(
        base: &ExecutionRequest,
        value: &Value,
        map: &Map<String, Value>,
    ) -> Result<ExecutionRequest, BulkFailure> {
        let mut overrides = map.clone();
        let mut request = base.clone();
        let mut errors = Vec::new();
        {
            if let Some(mut fields) = Fields::of(value, Vec::new(), &mut errors) {
                if let Some(command) = payload(&mut fields, "command") {
                    request.operation = Operation::Command(command);
                } else if let Some(config) = payload(&mut fields, "config") {
                    request.operation = Operation::Config(config);
                }
                if fields.get("webhook").is_some() {
                    request.webhook = WebHook::read(&mut fields);
                }
                if let Some(own) = credential::of_device(&mut fields) {
                    request.credential = own;
                }
                if fields.get("file_transfer").is_some_and(asks_for_something) {
                    let sentence = NOT_YET
                        .iter()
                        .find(|(key, _)| *key == "file_transfer")
                        .map_or("not available in this version", |(_, sentence)| *sentence);
                    fields.error("file_transfer", "value_error", sentence);
                }
            }
        }
        for key in ["command", "config", "file_transfer", "credential", "credential_ref", "webhook"] {
            overrides.remove(key);
        }
        // A device's own address replaces every name for it in the shared part.
        for key in ["host", "ip", "hostname"] {
            request.connection_args.0.remove(key);
        }
        request.connection_args = request.connection_args.overlaid(&overrides);
        if matches!(request.payload(), Payload::Object(_)) && request.rendering.is_none() {
            errors.push(FieldError::new(
                &["rendering"],
                "`rendering` should be set when command/config is a dict",
            ));
        }
        if errors.is_empty() {
            Ok(request)
        } else {
            let host = ConnectionArgs(map.clone()).host().unwrap_or_default().to_owned();
            Err(BulkFailure { host, reason: crate::fields::sentence(&errors) })
        }
    }
}

/// A request to test a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct TestRequest {
    /// The driver's name.
    pub driver: String,
    /// How to reach the device.
    pub connection_args: ConnectionArgs,
    /// Where the secrets among them lie.
    pub credential: Option<CredentialRef>,
}

impl TestRequest {
    /// Reads a test body.
    ///
    /// # Errors
    /// Every wrong field at once.
    pub fn read(body: &Value) -> Result<Self, Errors> {
        let mut errors = Vec::new();
        let Some(mut f) = Fields::of(body, Vec::new(), &mut errors) else { return Err(errors) };
        let driver = f.required_string("driver");
        if f.get("connection_args").is_none() {
            f.missing("connection_args");
        }
        let mut connection_args = ConnectionArgs(f.object("connection_args").unwrap_or_default());
        let credential = credential::take(&mut f, &mut connection_args);
        if errors.is_empty() { Ok(Self { driver, connection_args, credential }) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exec(extra: Value) -> Result<ExecutionRequest, Errors> {
        let mut body = json!({"driver": "netmiko", "connection_args": {"host": "h", "password": "s3cret"}});
        for (k, v) in extra.as_object().unwrap() {
            body[k] = v.clone();
        }
        ExecutionRequest::read(&body, 300)
    }

    fn message(extra: Value) -> String {
        crate::fields::sentence(&exec(extra).unwrap_err())
    }

    #[test]
    fn reads_what_the_python_client_sends() {
        let request =
            exec(json!({"command": ["show clock"], "ttl": 300, "detach": false, "enable_mode": false,
            "save": true, "staged_file_id": null, "driver_args": {"read_timeout": 40}}))
            .unwrap();
        assert_eq!(request.kind(), JobKind::Query);
        assert_eq!(request.flag("save"), Some(true));
        assert_eq!(request.flag("enable_mode"), Some(false));
        assert!(!format!("{request:?}").contains("s3cret"));
    }

    #[test]
    fn rules_have_their_sentences() {
        assert!(
            message(json!({"command": "a", "config": "b"})).contains("Only one of `config` or `command`")
        );
        assert!(message(json!({})).contains("Either `config`, `command`"));
        for (typed, meant) in [
            ("comand", "command"),
            ("comands", "command"),
            ("commands", "command"),
            ("configs", "config"),
            ("Config", "config"),
        ] {
            let said = message(json!({typed: "a"}));
            assert!(said.ends_with(&format!("`{typed}` is not known: did you mean `{meant}`?")), "{said}");
        }
        assert!(!message(json!({"note": "a"})).contains("did you mean"));
        assert!(message(json!({"config": {"vlan": 1}})).contains("`rendering` should be set"));
        assert!(message(json!({"command": "a", "detach": true})).contains("not available"));
        assert!(message(json!({"command": "a", "ttl": 0})).contains("greater than or equal to 1"));
        assert!(message(json!({"command": "a", "driver_args": {"script_content": "x"}})).contains("Scripts"));
        assert!(message(json!({"command": 7})).contains("command"));
    }

    #[test]
    fn s4_a_client_cannot_name_a_staged_file() {
        assert!(
            message(json!({"command": "a", "staged_file_id": "/etc/passwd"})).contains("set by the server")
        );
    }

    #[test]
    fn d13_bulk_with_a_context_object_and_rendering() {
        let body = json!({"driver": "netmiko", "connection_args": {"device_type": "cisco_ios", "ip": "192.0.2.9"},
            "config": {"vlan": 30}, "rendering": {"template": "vlan {{ vlan }}"},
            "devices": [{"host": "192.0.2.1"}, {"host": "192.0.2.2", "port": 2222, "command": "show version"},
                        {"host": "192.0.2.3", "command": [1]}]});
        let bulk = BulkRequest::read(&body).unwrap();
        let first = bulk.devices[0].as_ref().unwrap();
        assert_eq!(first.connection_args.host(), Some("192.0.2.1"));
        assert_eq!(first.kind(), JobKind::Modification);
        assert_eq!(first.ttl, 600);
        let second = bulk.devices[1].as_ref().unwrap();
        assert_eq!((second.connection_args.port(), second.kind()), (Some(2222), JobKind::Query));
        assert_eq!(bulk.devices[2].as_ref().unwrap_err().host, "192.0.2.3");
    }

    #[test]
    fn bulk_without_a_host_names_the_device() {
        let body = json!({"driver": "netmiko", "connection_args": {}, "command": "x", "devices": [{"host": "a"}, {"port": 1}]});
        let errors = BulkRequest::read(&body).unwrap_err();
        assert_eq!(errors[0].path(), "devices.1");
        assert!(errors[0].msg.contains("'host' is required"));
        let empty = json!({"driver": "netmiko", "connection_args": {}, "command": "x", "devices": []});
        assert!(BulkRequest::read(&empty).unwrap().devices.is_empty());
    }

    #[test]
    fn options_of_the_early_api_count_as_top_level() {
        let request = exec(json!({"command": "x", "options": {"queue_strategy": "fifo", "ttl": 9}})).unwrap();
        assert_eq!((request.queue_strategy, request.ttl), (Some(Strategy::Fifo), 9));
    }
}
