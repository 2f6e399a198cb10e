//! Renderers and parsers that are programs of their own, asked after the built-in ones.

use std::sync::Arc;
use std::time::Instant;

use netpulse_model::plugin::Kind;
use netpulse_model::request::TemplateCall;
use netpulse_model::secret;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Plugin;
use super::scope;
use crate::host::blame::Errand;
use crate::registry::{Implementation, Plugins};
use crate::schema::Schema;
use crate::templates::{Origin, TemplateFailure, Templates};

/// A renderer or a parser that is a program of its own.
pub struct ExternalTemplate {
    plugin: Plugin,
    args: Option<Schema>,
    context: Option<Schema>,
}

#[derive(Deserialize)]
struct Rendered {
    text: String,
}

#[derive(Deserialize)]
struct Parsed {
    value: Value,
}

impl ExternalTemplate {
    pub(crate) fn new(plugin: Plugin) -> Result<Self, String> {
        let (args, context) = (plugin.schema("args")?, plugin.schema("context")?);
        Ok(Self { plugin, args, context })
    }

    fn body(&self, call: &TemplateCall, context: Value) -> Result<Map<String, Value>, TemplateFailure> {
        let mut extra = call.extra.clone();
        let args = extra.remove("args").filter(|args| !args.is_null()).unwrap_or_else(|| json!({}));
        let mut errors = Vec::new();
        if let Some(schema) = &self.args {
            errors.extend(schema.check(&args, &["args"]));
        }
        if let Some(schema) = &self.context {
            errors.extend(schema.check(&context, &["context"]));
        }
        if !errors.is_empty() {
            return Err(TemplateFailure {
                code: "template_args",
                message: netpulse_model::fields::sentence(&errors),
            });
        }
        let body = json!({"name": self.plugin.name(), "template": call.template, "context": context, "args": args, "extra": extra});
        match body {
            Value::Object(map) => Ok(map),
            _ => Ok(Map::new()),
        }
    }

    /// Asks from a thread that is no task; the call's time is the job's.
    fn ask<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        runtime: &tokio::runtime::Handle,
        path: &str,
        body: Map<String, Value>,
    ) -> Result<T, TemplateFailure> {
        let deadline: Instant = scope::deadline(self.plugin.program.host().call_timeout);
        let errand = Errand::request(path, &body);
        let secrets = secret::collect_map(&body);
        runtime
            .block_on(self.plugin.program.call(path, &body, deadline, secrets, &errand))
            .map_err(|error| TemplateFailure { code: "plugin_failed", message: self.plugin.sentence(&error) })
    }
}

/// The built-in engines, and after them the external ones.
pub struct AllTemplates {
    built_in: Arc<dyn Templates>,
    plugins: Plugins,
    runtime: tokio::runtime::Handle,
}

impl AllTemplates {
    /// These engines with the external ones of `plugins` behind them. To be made on a task.
    #[must_use]
    pub fn new(built_in: Arc<dyn Templates>, plugins: Plugins) -> Self {
        Self { built_in, plugins, runtime: tokio::runtime::Handle::current() }
    }

    fn external(&self, kind: Kind, name: &str) -> Result<Arc<ExternalTemplate>, TemplateFailure> {
        let found = self.runtime.block_on(self.plugins.find(kind, name));
        match found {
            Some(Implementation::Template(template)) => Ok(template),
            _ => {
                let what = if kind == Kind::TemplateRenderer { "renderer" } else { "parser" };
                let message = format!("no {what} `{name}`");
                Err(TemplateFailure { code: "template_unknown", message })
            }
        }
    }

    fn names(&self, kind: Kind, mut names: Vec<String>) -> Vec<String> {
        names.extend(
            self.plugins
                .external_names(kind)
                .into_iter()
                .filter(|name| !names.contains(name))
                .collect::<Vec<_>>(),
        );
        names
    }

    fn overridden(&self, kind: Kind, name: &str) -> bool {
        self.plugins.overridden(kind, name)
    }
}

impl Templates for AllTemplates {
    fn renderers(&self) -> Vec<String> {
        self.names(Kind::TemplateRenderer, self.built_in.renderers())
    }

    fn parsers(&self) -> Vec<String> {
        self.names(Kind::TemplateParser, self.built_in.parsers())
    }

    fn look_again(&self) {
        self.runtime.block_on(self.plugins.discovered());
    }

    fn render(&self, call: &TemplateCall) -> Result<String, TemplateFailure> {
        let own = self.built_in.renderers().contains(&call.name);
        if own && !self.overridden(Kind::TemplateRenderer, &call.name) {
            return self.built_in.render(call);
        }
        match self.external(Kind::TemplateRenderer, &call.name) {
            Ok(template) => {
                let context = call.context.clone().unwrap_or_else(|| json!({}));
                let body = template.body(call, context)?;
                template
                    .ask::<Rendered>(&self.runtime, "/template/render", body)
                    .map(|rendered| rendered.text)
            }
            // The engine has its own words for a name that nobody knows.
            Err(_) => self.built_in.render(call),
        }
    }

    fn parse(
        &self,
        call: &TemplateCall,
        text: &str,
        origin: Option<Origin<'_>>,
    ) -> Result<Value, TemplateFailure> {
        let own = self.built_in.parsers().contains(&call.name);
        if own && !self.overridden(Kind::TemplateParser, &call.name) {
            return self.built_in.parse(call, text, origin);
        }
        match self.external(Kind::TemplateParser, &call.name) {
            Ok(template) => {
                let mut body = template.body(call, Value::from(text))?;
                let origin = origin.map(|o| json!({"platform": o.platform, "command": o.command}));
                body.insert("origin".to_owned(), origin.unwrap_or_default());
                template.ask::<Parsed>(&self.runtime, "/template/parse", body).map(|parsed| parsed.value)
            }
            Err(_) => self.built_in.parse(call, text, origin),
        }
    }
}
