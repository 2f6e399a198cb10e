//! The texts that `netpulse plugin new` writes.

use netpulse_model::plugin::Kind;

/// What stands in a template for each kind: the trait, its methods, how it is added, its example.
struct Parts {
    uses: &'static str,
    body: &'static str,
    add: &'static str,
}

/// `acme_two` as a type's name: `AcmeTwo`.
fn type_name(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut letters = part.chars();
            letters
                .next()
                .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
        })
        .collect()
}

fn filled(text: &str, kind: Kind, name: &str) -> String {
    text.replace("__NAME__", name).replace("__TYPE__", &type_name(name)).replace("__KIND__", kind.as_str())
}

/// `src/main.rs` of a new plugin.
pub fn rust(kind: Kind, name: &str) -> String {
    let parts = rust_parts(kind);
    let text = format!(
        "//! The {kind} `__NAME__`, a NetPulse plugin.\n\n\
         use netpulse_plugin_sdk::{{{}}};\n\n\
         struct __TYPE__;\n\n{}\n\
         fn main() -> std::process::ExitCode {{\n    Plugin::new(\"example.org/__KIND__/__NAME__/v1\", env!(\"CARGO_PKG_VERSION\"))\n        \
         .describe(\"What it is, in one sentence\")\n{}        .serve()\n}}\n",
        parts.uses,
        parts.body.trim_start_matches('\n'),
        parts.add.trim_start_matches('\n'),
    );
    filled(&text, kind, name)
}

/// The executable file of a new plugin.
pub fn python(kind: Kind, name: &str) -> String {
    let parts = python_parts(kind);
    let text = format!(
        "#!/usr/bin/env python3\n\"\"\"The {kind} `__NAME__`, a NetPulse plugin.\"\"\"\n\n\
         from netpulse_plugin import {}\n\n\n{}\n\n{}",
        parts.uses,
        parts.body.trim_start_matches('\n'),
        "run(Plugin(id=\"example.org/__KIND__/__NAME__/v1\", version=\"0.1.0\",\n           description=\"What it is, in one sentence\", provides=[__TYPE__()]))\n",
    );
    filled(&text, kind, name)
}

fn rust_parts(kind: Kind) -> Parts {
    match kind {
        Kind::Driver | Kind::Platform => Parts {
            uses: "Call, ConnectionArgs, Driver, ExecutionResult, Failure, Outcome, Plugin, Session, async_trait, json",
            body: r#"
/// A session to one device. Close its sockets in `Drop`.
struct Open {
    host: String,
}

#[async_trait]
impl Driver for __TYPE__ {
    async fn connect(&self, args: &ConnectionArgs, _call: &Call) -> Result<Box<dyn Session>, Failure> {
        let host = args.host().ok_or_else(|| Failure::bad_request("connection_args.host is required"))?;
        // Connect here; say what failed with Failure::device(ErrorCode::ConnectFailed, "...").
        Ok(Box::new(Open { host: host.to_owned() }))
    }
}

#[async_trait]
impl Session for Open {
    async fn command(&mut self, command: &str, _call: &Call) -> Result<ExecutionResult, Failure> {
        Ok(ExecutionResult::ok(command, format!("{} would answer here", self.host)))
    }

    async fn line(&mut self, line: &str, _call: &Call) -> Result<ExecutionResult, Failure> {
        Ok(ExecutionResult::ok(line, ""))
    }

    async fn discard(&mut self, _call: &Call) -> Result<Outcome, Failure> {
        // Each accepted line is in effect; a device with a candidate says NotApplied.
        Ok(Outcome::Partial)
    }
}
"#,
            add: r#"
        .driver("__NAME__", __TYPE__)
        .feature("config")
        .schema("connection_args", json!({"type": "object", "required": ["host"]}))
        .example("/driver/connect", json!({"connection_args": {"host": "192.0.2.1"}}))
        .example("/driver/send", json!({"commands": ["show version"]}))
        .example("/driver/config", json!({"lines": ["vlan 30", "name printers"]}))
        .example("/driver/test", json!({"connection_args": {"host": "192.0.2.1"}}))
        .example("/driver/validate", json!({"request": {"command": ["show version"]}}))
"#,
        },
        Kind::TemplateRenderer => Parts {
            uses: "Call, Failure, Plugin, RenderCall, Renderer, async_trait, json",
            body: r#"
#[async_trait]
impl Renderer for __TYPE__ {
    async fn render(&self, request: RenderCall, _call: &Call) -> Result<String, Failure> {
        let mut text = request.template.ok_or_else(|| Failure::bad_request("a template is required"))?;
        for (name, value) in request.context.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text = text.replace(&format!("<{name}>"), &value);
        }
        Ok(text)
    }
}
"#,
            add: r#"
        .renderer("__NAME__", __TYPE__)
        .example("/template/render", json!({"template": "hostname <h>", "context": {"h": "edge1"}}))
"#,
        },
        Kind::TemplateParser => Parts {
            uses: "Call, Failure, ParseCall, Parser, Plugin, Value, async_trait, json",
            body: r#"
#[async_trait]
impl Parser for __TYPE__ {
    async fn parse(&self, request: ParseCall, _call: &Call) -> Result<Value, Failure> {
        let rows: Vec<Vec<&str>> = request.context.lines().map(|line| line.split_whitespace().collect()).collect();
        Ok(json!(rows))
    }
}
"#,
            add: r#"
        .parser("__NAME__", __TYPE__)
        .example("/template/parse", json!({"context": "Gi0/1 up"}))
"#,
        },
        Kind::Scheduler => Parts {
            uses: "Failure, NodeInfo, Plugin, Scheduler, async_trait, json",
            body: r#"
#[async_trait]
impl Scheduler for __TYPE__ {
    async fn node_select(&self, nodes: &[NodeInfo], _host: &str) -> Result<String, Failure> {
        let free = nodes.iter().filter(|node| node.count < node.capacity);
        let chosen = free.min_by_key(|node| node.count).ok_or_else(|| Failure::unavailable("no node has room"))?;
        Ok(chosen.hostname.clone())
    }
}
"#,
            add: r#"
        .scheduler("__NAME__", __TYPE__)
        .example("/scheduler/node_select", json!({"nodes": [{"hostname": "n1", "count": 0, "capacity": 8, "queue": "NodeQ_n1"}], "host": "192.0.2.1"}))
        .example("/scheduler/batch_node_select", json!({"nodes": [{"hostname": "n1", "count": 0, "capacity": 8, "queue": "NodeQ_n1"}], "hosts": ["192.0.2.1"]}))
"#,
        },
        Kind::Webhook => Parts {
            uses: "Call, Failure, Plugin, Webhook, WebhookCall, async_trait, json, log",
            body: r#"
#[async_trait]
impl Webhook for __TYPE__ {
    async fn call(&self, request: WebhookCall, _call: &Call) -> Result<(), Failure> {
        // Tell somebody here; Failure::unavailable is tried again.
        log::info(&format!("attempt {} of delivery {}", request.attempt, request.delivery));
        Ok(())
    }
}
"#,
            add: r#"
        .webhook("__NAME__", __TYPE__)
        .example("/webhook/call", json!({"request": {"name": "__NAME__"}, "job": {}, "result": {}, "payload": {}, "delivery": "1", "attempt": 1}))
"#,
        },
        Kind::Credential => Parts {
            uses: "Credential, Failure, Map, Plugin, Reference, Value, async_trait, json",
            body: r#"
#[async_trait]
impl Credential for __TYPE__ {
    async fn get(
        &self,
        reference: Reference,
        _connection_args: Map<String, Value>,
    ) -> Result<std::collections::BTreeMap<String, String>, Failure> {
        // Ask the store here. Never log what it gives.
        if reference.reference != "example" {
            return Err(Failure::not_found(format!("no credential `{}`", reference.reference)));
        }
        Ok([("username".to_owned(), "ops".to_owned()), ("password".to_owned(), "example".to_owned())].into())
    }

    async fn validate(&self) -> Result<Map<String, Value>, Failure> {
        Ok(Map::new())
    }
}
"#,
            add: r#"
        .credential("__NAME__", __TYPE__)
        .example("/credential/get", json!({"reference": {"ref": "example"}, "connection_args": {}}))
        .example("/credential/validate", json!({}))
"#,
        },
        Kind::Provider => Parts {
            uses: "Call, Failure, PipelineResult, Plugin, Provider, Value, async_trait, json",
            body: r#"
#[async_trait]
impl Provider for __TYPE__ {
    async fn gather(&self, _settings: Value, _call: &Call) -> Result<PipelineResult, Failure> {
        // Missing data is a failure, never an empty result.
        Ok(PipelineResult { result_name: "__NAME__".to_owned(), details: json!([]), ..PipelineResult::default() })
    }
}
"#,
            add: r#"
        .provider("__NAME__", __TYPE__)
        .example("/provider/gather", json!({"settings": {}}))
"#,
        },
        Kind::Input | Kind::Assistant => Parts {
            uses: "Call, Failure, PipelineResult, Plugin, Processor, Value, async_trait, json",
            body: r#"
#[async_trait]
impl Processor for __TYPE__ {
    async fn process(
        &self,
        _settings: Value,
        results: Vec<PipelineResult>,
        _call: &Call,
    ) -> Result<Vec<PipelineResult>, Failure> {
        Ok(results)
    }
}
"#,
            add: if kind == Kind::Input {
                r#"
        .input("__NAME__", __TYPE__)
        .example("/input/process", json!({"settings": {}, "results": []}))
"#
            } else {
                r#"
        .assistant("__NAME__", __TYPE__)
        .example("/assistant/process", json!({"settings": {}, "results": []}))
"#
            },
        },
        Kind::Check => Parts {
            uses: "Call, Check, Failure, PipelineResult, Plugin, Value, async_trait, json",
            body: r#"
#[async_trait]
impl Check for __TYPE__ {
    async fn report(&self, _settings: Value, input: Value, _call: &Call) -> Result<PipelineResult, Failure> {
        // What cannot be judged is a failure, never compliant.
        let compliant = !input.is_null();
        Ok(PipelineResult {
            result_name: "__NAME__".to_owned(),
            details: json!({"compliant": compliant}),
            ..PipelineResult::default()
        })
    }
}
"#,
            add: r#"
        .check("__NAME__", __TYPE__)
        .example("/check/report", json!({"settings": {}, "input": {}}))
"#,
        },
        Kind::Output => Parts {
            uses: "Call, Failure, Output, PipelineResult, Plugin, Value, async_trait, json, log",
            body: r#"
#[async_trait]
impl Output for __TYPE__ {
    async fn output(&self, _settings: Value, results: Vec<PipelineResult>, _call: &Call) -> Result<(), Failure> {
        for result in results {
            log::info(&result.result_name);
        }
        Ok(())
    }
}
"#,
            add: r#"
        .output("__NAME__", __TYPE__)
        .example("/output/process", json!({"settings": {}, "results": []}))
"#,
        },
    }
}

fn python_parts(kind: Kind) -> Parts {
    let (uses, body) = match kind {
        Kind::Driver | Kind::Platform => (
            "Driver, Plugin, Session, run",
            r#"
class Open(Session):
    """A session to one device."""

    def __init__(self, host):
        self.host = host

    def command(self, command, work):
        return f"{self.host} would answer here"

    def line(self, line, work):
        return ""


class __TYPE__(Driver):
    name = "__NAME__"
    features = ("config",)
    json_schema = {"connection_args": {"type": "object", "required": ["host"]}}
    examples = {
        "/driver/connect": {"connection_args": {"host": "192.0.2.1"}},
        "/driver/send": {"commands": ["show version"]},
        "/driver/config": {"lines": ["vlan 30", "name printers"]},
    }

    def connect(self, args, keepalive):
        return Open(args["host"])
"#,
        ),
        Kind::TemplateRenderer => (
            "Plugin, Renderer, run",
            r#"
class __TYPE__(Renderer):
    name = "__NAME__"
    examples = {"/template/render": {"template": "hostname <h>", "context": {"h": "edge1"}}}

    def render(self, template, context, args):
        text = template or ""
        for name, value in (context or {}).items():
            text = text.replace(f"<{name}>", str(value))
        return text
"#,
        ),
        Kind::TemplateParser => (
            "Parser, Plugin, run",
            r#"
class __TYPE__(Parser):
    name = "__NAME__"
    examples = {"/template/parse": {"context": "Gi0/1 up"}}

    def parse(self, template, text, args, origin):
        return [line.split() for line in text.splitlines()]
"#,
        ),
        Kind::Scheduler => (
            "Plugin, Scheduler, run",
            r#"
class __TYPE__(Scheduler):
    name = "__NAME__"
    examples = {
        "/scheduler/node_select": {
            "nodes": [{"hostname": "n1", "count": 0, "capacity": 8, "queue": "NodeQ_n1"}], "host": "192.0.2.1"},
        "/scheduler/batch_node_select": {
            "nodes": [{"hostname": "n1", "count": 0, "capacity": 8, "queue": "NodeQ_n1"}], "hosts": ["192.0.2.1"]},
    }

    def select(self, nodes, host):
        free = [node for node in nodes if node.count < node.capacity]
        return min(free, key=lambda node: node.count).hostname if free else None
"#,
        ),
        Kind::Webhook => (
            "Plugin, Webhook, run",
            r#"
class __TYPE__(Webhook):
    name = "__NAME__"
    examples = {"/webhook/call": {"request": {"url": "https://example.org"}, "job": {}, "payload": {}}}

    def call(self, delivery):
        # Tell somebody here; raise anything when it did not arrive, and it is tried again.
        print("attempt", delivery.attempt)
"#,
        ),
        Kind::Credential => (
            "CredentialProvider, NotFound, Plugin, run",
            r#"
class __TYPE__(CredentialProvider):
    name = "__NAME__"
    examples = {"/credential/get": {"reference": {"ref": "example"}, "connection_args": {}}}

    def fetch(self, reference, connection_args):
        if reference.ref != "example":
            raise NotFound(f"there is no credential {reference.ref!r}")
        return {"username": "ops", "password": "example"}
"#,
        ),
        Kind::Provider => (
            "PipelineResult, Plugin, Provider, run",
            r#"
class __TYPE__(Provider):
    name = "__NAME__"
    examples = {"/provider/gather": {"settings": {}}}

    def gather(self, settings):
        return PipelineResult(relates_to="", result_name="__NAME__", result_description="", details=[])
"#,
        ),
        Kind::Input => (
            "Input, Plugin, run",
            r#"
class __TYPE__(Input):
    name = "__NAME__"
    examples = {"/input/process": {"settings": {}, "results": []}}

    def process(self, settings, results):
        return results
"#,
        ),
        Kind::Assistant => (
            "Assistant, Plugin, run",
            r#"
class __TYPE__(Assistant):
    name = "__NAME__"
    examples = {"/assistant/process": {"settings": {}, "results": []}}

    def process(self, settings, results):
        return results
"#,
        ),
        Kind::Check => (
            "Check, PipelineResult, Plugin, run",
            r#"
class __TYPE__(Check):
    name = "__NAME__"
    examples = {"/check/report": {"settings": {}, "input": {}}}

    def report(self, settings, input):
        return PipelineResult(
            relates_to="", result_name="__NAME__", result_description="", details={"compliant": True})
"#,
        ),
        Kind::Output => (
            "Output, Plugin, run",
            r#"
class __TYPE__(Output):
    name = "__NAME__"
    examples = {"/output/process": {"settings": {}, "results": []}}

    def send(self, settings, results):
        for result in results:
            print(result.result_name)
"#,
        ),
    };
    Parts { uses, body, add: "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_placeholder_is_left_in_any_language_and_kind() {
        for kind in Kind::ALL.iter().copied() {
            for text in [rust(kind, "acme_two"), python(kind, "acme_two")] {
                assert!(
                    !text.contains("__NAME__") && !text.contains("__TYPE__") && !text.contains("__KIND__"),
                    "{text}"
                );
                assert!(text.contains("AcmeTwo") && text.contains("acme_two"), "{text}");
            }
        }
    }
}
