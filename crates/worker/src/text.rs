//! Templates on a job's way: the payload is rendered before it is sent, each answer parsed after.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use netpulse_model::request::{Payload, TemplateCall};
use netpulse_model::{ErrorCode, ErrorInfo, ExecutionRequest};
use netpulse_plugin::{Origin, Report, Scope, TemplateFailure};
use serde_json::{Map, Value};

use crate::metrics::Phase;
use crate::node::Inner;

/// What to send: the payload as given, or as its template renders it.
pub(crate) async fn payload(node: &Inner, request: &ExecutionRequest) -> Result<Vec<String>, ErrorInfo> {
    let Some(rendering) = &request.rendering else { return Ok(request.payload().items()) };
    let call = rendering_call(rendering, request.payload());
    if call.template.is_none() {
        let message =
            "`rendering` has no template: give `rendering.template`, or the template as the payload";
        return Err(ErrorInfo::new(ErrorCode::RenderFailed, message));
    }
    let templates = Arc::clone(&node.templates);
    let rendered = tokio::task::spawn_blocking(in_scope(move || templates.render(&call))).await;
    match rendered {
        Ok(Ok(text)) => Ok(vec![text]),
        Ok(Err(failure)) => {
            Err(ErrorInfo::new(ErrorCode::RenderFailed, format!("{} ({})", failure.message, failure.code)))
        }
        Err(crash) => {
            Err(ErrorInfo::new(ErrorCode::RenderFailed, format!("the template engine crashed: {crash}")))
        }
    }
}

/// The template and context in force: a text payload is the template when there is no other, an
/// object payload is laid over the context.
fn rendering_call(rendering: &TemplateCall, payload: &Payload) -> TemplateCall {
    let mut call = rendering.clone();
    match payload {
        Payload::Object(map) => {
            let mut context = match call.context.take() {
                Some(Value::Object(context)) => context,
                _ => Map::new(),
            };
            context.extend(map.iter().map(|(k, v)| (k.clone(), v.clone())));
            call.context = Some(Value::Object(context));
        }
        other if call.template.is_none() => call.template = Some(other.items().join("\n")),
        _ => {}
    }
    call
}

/// Parses each answer as `parsing` says. A failure keeps stdout and fails the job.
pub(crate) async fn parse(
    node: &Inner,
    parsing: &TemplateCall,
    request: &ExecutionRequest,
    report: &mut Report,
) {
    if let (Some(message), None) = (parse_all(node, parsing, request, report).await, &report.error) {
        report.error = Some(ErrorInfo::new(ErrorCode::ParseFailed, message));
    }
}

/// Netmiko's own way to ask for parsing: `use_textfsm`, `use_ttp` in the driver arguments. A
/// failure keeps stdout and fails the job only with `raise_parsing_error`.
pub(crate) async fn parse_by_driver_args(node: &Inner, request: &ExecutionRequest, report: &mut Report) {
    let args = &request.driver_args;
    let on = |key: &str| args.get(key).and_then(Value::as_bool).unwrap_or(false);
    let (name, template_key) = if on("use_textfsm") {
        ("textfsm", "textfsm_template")
    } else if on("use_ttp") {
        ("ttp", "ttp_template")
    } else {
        return;
    };
    let call = TemplateCall {
        name: name.to_owned(),
        template: args.get(template_key).and_then(Value::as_str).map(str::to_owned),
        ..TemplateCall::default()
    };
    let failed = parse_all(node, &call, request, report).await;
    if let (Some(message), true, None) = (failed, on("raise_parsing_error"), &report.error) {
        report.error = Some(ErrorInfo::new(ErrorCode::ParseFailed, message));
    }
}

/// Parses every answer with exit status 0; the first failure, if any.
async fn parse_all(
    node: &Inner,
    call: &TemplateCall,
    request: &ExecutionRequest,
    report: &mut Report,
) -> Option<String> {
    let asked = request.connection_args.device_type().unwrap_or_default().to_owned();
    let mut results = std::mem::take(&mut report.results);
    let templates = Arc::clone(&node.templates);
    let call = call.clone();
    let began = Instant::now();
    let done = tokio::task::spawn_blocking(in_scope(move || {
        let mut first = None;
        for item in results.iter_mut().filter(|item| item.exit_status == 0) {
            let Some(text) = item.stdout.as_str().filter(|text| !text.is_empty()) else { continue };
            // The driver knows best which platform it met (`autodetect`).
            let met = item.metadata.get("device_type").and_then(serde_json::Value::as_str).unwrap_or(&asked);
            let origin = Origin { platform: base_name(met), command: &item.command };
            // A crash of the parser must not take the answers with it.
            let parsed = catch_unwind(AssertUnwindSafe(|| templates.parse(&call, text, Some(origin))));
            let parsed = parsed.unwrap_or_else(|_| {
                let message = "the parser crashed on this text: please report it".to_owned();
                Err(TemplateFailure { code: "template_crashed", message })
            });
            match parsed {
                Ok(parsed) => item.parsed = Some(parsed),
                Err(failure) => {
                    let message = format!("`{}`: {} ({})", item.command, failure.message, failure.code);
                    item.metadata.insert("parse_error".into(), Value::from(message.clone()));
                    first.get_or_insert(message);
                }
            }
        }
        (results, first)
    }))
    .await;
    node.metrics.phase(Phase::Parse, began.elapsed());
    match done {
        Ok((results, first)) => {
            report.results = results;
            first
        }
        Err(stopped) => Some(format!("the parser did not get to run: {stopped}")),
    }
}

/// Takes the job's frame along to a thread that is no task.
fn in_scope<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let scope = Scope::current();
    move || match scope {
        Some(scope) => scope.around_blocking(work),
        None => work(),
    }
}

/// A device type without the word for how it is reached.
fn base_name(device_type: &str) -> &str {
    ["_ssh", "_telnet", "_serial"]
        .into_iter()
        .find_map(|suffix| device_type.strip_suffix(suffix))
        .unwrap_or(device_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_payload_is_laid_over_the_context() {
        let rendering = TemplateCall {
            name: "jinja2".into(),
            template: Some("t".into()),
            context: Some(json!({"env": "lab", "vlan": 1})),
            ..TemplateCall::default()
        };
        let Value::Object(map) = json!({"vlan": 30}) else { unreachable!() };
        let call = rendering_call(&rendering, &Payload::Object(map));
        assert_eq!(call.context, Some(json!({"env": "lab", "vlan": 30})));
        let lines = Payload::List(vec!["a {{ x }}".into(), "b".into()]);
        let own = rendering_call(&TemplateCall { template: None, ..rendering }, &lines);
        assert_eq!(own.template.as_deref(), Some("a {{ x }}\nb"));
    }
}
