//! Answers: JSON written straight into the body, and the early API's envelope.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// `body` as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => bytes_as_json(status, bytes),
        // Only a map with keys that are no texts gets here; the API has none.
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, "").into_response()
        }
    }
}

/// Bytes that are JSON already.
pub(crate) fn bytes_as_json(status: StatusCode, bytes: impl Into<Body>) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `data` in the early API's envelope.
pub(crate) fn envelope(status: StatusCode, message: &str, data: Value) -> Response {
    json(status, &json!({"code": 200, "message": message, "data": early(data)}))
}

/// The early API's words for results and states, wherever a job stands in `data`.
fn early(mut data: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(map) => {
                if map.contains_key("queue") && map.contains_key("status") {
                    if map.get("status").and_then(Value::as_str) == Some("canceled") {
                        map.insert("status".into(), Value::from("cancelled"));
                    }
                    if let Some(result) = map.get_mut("result").and_then(Value::as_object_mut) {
                        let word = match result.get("type").and_then(Value::as_u64) {
                            Some(1) => "success",
                            Some(3) => "stopped",
                            Some(4) => "retried",
                            _ => "failed",
                        };
                        result.insert("type".into(), Value::from(word));
                    }
                } else {
                    map.values_mut().for_each(walk);
                }
            }
            _ => {}
        }
    }
    walk(&mut data);
    data
}

/// Which form an answer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Today's bare body.
    Plain,
    /// The early API's `{code, message, data}`.
    Enveloped,
}

impl Shape {
    /// By path, or on the paths that both APIs share, by header and configuration.
    pub(crate) fn of(app: &App, path: &str, headers: &HeaderMap) -> Self {
        let legacy_path = matches!(path, "/job" | "/worker" | "/device/execute" | "/device/test-connection")
            || path.starts_with("/credential/");
        let shared = || matches!(path, "/device/exec" | "/device/bulk" | "/health");
        let asked = || {
            app.config.server.legacy_envelope
                || headers
                    .get("x-netpulse-envelope")
                    .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"legacy"))
        };
        if legacy_path || (shared() && asked()) { Self::Enveloped } else { Self::Plain }
    }

    /// `body` in this form.
    pub(crate) fn reply<T: Serialize>(self, status: StatusCode, body: &T) -> Response {
        match self {
            Self::Plain => json(status, body),
            Self::Enveloped => envelope(status, "success", serde_json::to_value(body).unwrap_or_default()),
        }
    }
}

impl FromRequestParts<App> for Shape {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self::of(app, parts.uri.path(), &parts.headers))
    }
}

/// The one variable segment of a path. What is no text is answered as every mistake is.
pub(crate) struct Segment(pub(crate) String);

impl FromRequestParts<App> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(_) => Err(ApiError::bad("The path is not valid UTF-8")),
        }
    }
}
