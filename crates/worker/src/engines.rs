//! The built-in template engines as the template plugins that jobs and the API ask.

use std::sync::Arc;

use netpulse_model::request::TemplateCall;
use netpulse_plugin::{Origin, TemplateFailure, Templates};
use netpulse_template::source::Fetch;
use netpulse_template::{Config, Engines, ParseCall, TemplateError};
use serde_json::Value;

/// The engines behind the plugin kinds.
pub struct BuiltInTemplates(Engines);

impl BuiltInTemplates {
    /// The engines under the limits of the configuration; `fetch` brings templates from
    /// `template.remote_hosts`.
    #[must_use]
    pub fn new(config: &netpulse_config::Template, fetch: Option<Arc<dyn Fetch>>) -> Self {
        let config = Config {
            template_dirs: config.dirs.clone(),
            remote_hosts: config.remote_hosts.clone(),
            ntc_dirs: config.ntc_dir.clone().into_iter().collect(),
            ttp_dirs: config.ttp_dir.clone().into_iter().collect(),
            cache_size: config.cache,
            fetch,
            ..Config::default()
        };
        Self(Engines::new(config.with_environment()))
    }
}

fn failure(error: TemplateError) -> TemplateFailure {
    // Some engines name the line in their own words.
    let place = match error.line {
        Some(line) if !error.message.contains(&format!("line {line}")) => format!(" (line {line})"),
        _ => String::new(),
    };
    TemplateFailure { code: error.code, message: format!("{}: {}{place}", error.engine, error.message) }
}

/// The engine's own options: `args`, or what else was given beside the known fields.
fn options(call: &TemplateCall) -> Option<Value> {
    match call.extra.get("args") {
        Some(args) if !args.is_null() => Some(args.clone()),
        _ => None,
    }
}

impl Templates for BuiltInTemplates {
    fn renderers(&self) -> Vec<String> {
        self.0.renderers().into_iter().map(str::to_owned).collect()
    }

    fn parsers(&self) -> Vec<String> {
        self.0.parsers().into_iter().map(str::to_owned).collect()
    }

    fn render(&self, call: &TemplateCall) -> Result<String, TemplateFailure> {
        let template = call.template.as_deref().unwrap_or_default();
        let context = call.context.as_ref().unwrap_or(&Value::Null);
        self.0.render(&call.name, template, context, options(call).as_ref()).map_err(failure)
    }

    fn parse(
        &self,
        call: &TemplateCall,
        text: &str,
        origin: Option<Origin<'_>>,
    ) -> Result<Value, TemplateFailure> {
        let flag = |key: &str| call.extra.get(key).and_then(Value::as_bool).unwrap_or(false);
        let args = options(call);
        let parse = ParseCall {
            name: &call.name,
            template: call.template.as_deref().filter(|template| !template.is_empty()),
            text,
            use_ntc_template: flag("use_ntc_template"),
            ntc_template_args: call.extra.get("ntc_template_args"),
            use_ttp_template: flag("use_ttp_template"),
            ttp_template_args: call.extra.get("ttp_template_args"),
            platform: origin.map(|o| o.platform),
            command: origin.map(|o| o.command),
            args: args.as_ref(),
        };
        self.0.parse(&parse).map_err(failure)
    }
}
