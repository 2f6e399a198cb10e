//! `/template/...`: rendering and parsing without a device.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use netpulse_model::api::{ErrorBody, TemplateBody};
use netpulse_model::fields::Fields;
use netpulse_model::request::TemplateCall;
use serde_json::Value;

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::reply::{self, Segment};
use netpulse_plugin::{TemplateFailure, Templates};

/// Longest a render or parse may take before the client is told; the engines have limits of
/// their own.
const DEADLINE: Duration = Duration::from_secs(60);

/// Render a template.
#[utoipa::path(
    post, path = "/template/render", tag = "template",
    request_body(content = TemplateBody, example = json!(
        {"name": "jinja2", "template": "hostname {{ h }}", "context": {"h": "edge1"}, "args": {"trim_blocks": true}})),
    responses(
        (status = 200, description = "The text", body = String, example = json!("hostname edge1")),
        (status = 400, description = "No template, or a template that is wrong", body = ErrorBody),
        (status = 404, description = "No such renderer", body = ErrorBody),
        (status = 422, description = "The body is no JSON, or has wrong types", body = ErrorBody),
    )
)]
pub(crate) async fn render(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    render_by(&app, None, request).await
}

/// Render a template; the path names the renderer.
#[utoipa::path(
    post, path = "/template/render/{name}", tag = "template",
    params(("name" = String, Path, description = "The renderer: `jinja2`, ...")),
    request_body(content = TemplateBody, example = json!({"template": "hostname {{ h }}", "context": {"h": "edge1"}})),
    responses((status = 200, description = "The text", body = String))
)]
pub(crate) async fn render_named(
    State(app): State<App>,
    Segment(name): Segment,
    request: Request,
) -> Result<Response, ApiError> {
    render_by(&app, Some(name), request).await
}

async fn render_by(app: &App, name: Option<String>, request: Request) -> Result<Response, ApiError> {
    let call = read(app, name, "jinja2", &["name", "renderer"], request).await?;
    let service = service(app)?;
    if call.name.is_empty() {
        return Err(ApiError::bad("Renderer name is required"));
    }
    if !service.renderers().contains(&call.name) {
        look_again(app, &service).await?;
    }
    if !service.renderers().contains(&call.name) {
        return Err(ApiError::missing(format!("Renderer {} not found", call.name)));
    }
    if call.template.as_deref().is_none_or(str::is_empty) {
        return Err(ApiError::bad("Template source is required"));
    }
    let text = on_thread(app, move || service.render(&call)).await?;
    Ok(reply::json(StatusCode::OK, &text))
}

/// Parse a text.
#[utoipa::path(
    post, path = "/template/parse", tag = "template",
    request_body(content = TemplateBody, example = json!(
        {"name": "textfsm", "template": "Value V (\\S+)\n\nStart\n  ^Version ${V} -> Record\n", "context": "Version 9.9\n"})),
    responses(
        (status = 200, description = "Whatever the parser makes of it", body = Value, example = json!([{"V": "9.9"}])),
        (status = 400, description = "A template that is wrong, or a text that it does not fit", body = ErrorBody),
        (status = 404, description = "No such parser", body = ErrorBody),
        (status = 422, description = "The body is no JSON, or has wrong types", body = ErrorBody),
    )
)]
pub(crate) async fn parse(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    parse_by(&app, None, request).await
}

/// Parse a text; the path names the parser.
#[utoipa::path(
    post, path = "/template/parse/{name}", tag = "template",
    params(("name" = String, Path, description = "The parser: `textfsm`, `ttp`, ...")),
    request_body(content = TemplateBody, example = json!({"template": "Value V (\\S+)\n\nStart\n  ^Version ${V} -> Record\n", "context": "Version 9.9\n"})),
    responses((status = 200, description = "Whatever the parser makes of it", body = Value))
)]
pub(crate) async fn parse_named(
    State(app): State<App>,
    Segment(name): Segment,
    request: Request,
) -> Result<Response, ApiError> {
    parse_by(&app, Some(name), request).await
}

async fn parse_by(app: &App, name: Option<String>, request: Request) -> Result<Response, ApiError> {
    let mut call = read(app, name, "", &["name", "parser"], request).await?;
    let service = service(app)?;
    if call.name.is_empty() {
        return Err(ApiError::bad("Parser name is required"));
    }
    if !service.parsers().contains(&call.name) {
        look_again(app, &service).await?;
    }
    if !service.parsers().contains(&call.name) {
        return Err(ApiError::missing(format!("Parser {} not found", call.name)));
    }
    let text = match call.context.take() {
        Some(Value::String(text)) => text,
        None => return Err(ApiError::bad("`context` is required: the text to parse")),
        Some(other) => {
            let mut error = netpulse_model::FieldError::new(
                &["context"],
                "Input should be a valid string: the text to parse",
            );
            error.kind = "string_type".into();
            error.input = other;
            return Err(ApiError::unprocessable("body", vec![error]));
        }
    };
    let value = on_thread(app, move || service.parse(&call, &text, None)).await?;
    Ok(reply::json(StatusCode::OK, &value))
}

fn service(app: &App) -> Result<Arc<dyn Templates>, ApiError> {
    app.templates.clone().ok_or_else(|| {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "This server was built without template engines")
    })
}

/// A name that is not known may be a plugin's that nobody asked for so far.
async fn look_again(app: &App, service: &Arc<dyn Templates>) -> Result<(), ApiError> {
    let service = Arc::clone(service);
    on_thread(app, move || {
        service.look_again();
        Ok(())
    })
    .await
}

/// Reads a call; a name in the path beats one in the body.
async fn read(
    app: &App,
    path_name: Option<String>,
    default_name: &str,
    names: &[&str],
    request: Request,
) -> Result<TemplateCall, ApiError> {
    let (parts, raw) = request.into_parts();
    let read = body::read(app, &parts.headers, raw).await?;
    let value = body::json(&read.bytes)?;
    let mut errors = Vec::new();
    let call = Fields::of(&value, Vec::new(), &mut errors).map(|mut fields| {
        let given =
            names.iter().find_map(|key| fields.get(key).is_some().then(|| fields.string(key)).flatten());
        TemplateCall {
            name: path_name.or(given).unwrap_or_else(|| default_name.to_owned()).trim().to_owned(),
            template: fields.string("template"),
            context: fields.get("context").cloned(),
            extra: fields
                .map()
                .iter()
                .filter(|(key, _)| {
                    !["name", "parser", "renderer", "template", "context"].contains(&key.as_str())
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    });
    match call {
        Some(call) if errors.is_empty() => Ok(call),
        _ => Err(ApiError::unprocessable("body", errors)),
    }
}

/// Runs an engine off the async threads, a bounded number at a time.
async fn on_thread<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> Result<T, TemplateFailure> + Send + 'static,
) -> Result<T, ApiError> {
    let run = async {
        let turn = app.renders.clone().acquire_owned().await.map_err(ApiError::internal)?;
        tokio::task::spawn_blocking(move || {
            let answer = work();
            drop(turn);
            answer
        })
        .await
        .map_err(|_| ApiError::internal("a template engine panicked; please report this template"))?
        .map_err(|error| ApiError::bad(error.message).with("code", error.code))
    };
    tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("The template engine did not answer within {} s", DEADLINE.as_secs()),
        )
        .retry_after(5))
    })
}
