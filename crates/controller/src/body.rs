//! Request bodies: read within their limits, then as JSON or multipart.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use netpulse_model::FieldError;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::error::ApiError;

/// Longest silence within a body.
const STALL: Duration = Duration::from_secs(20);
/// Longest a whole body may take.
const WHOLE: Duration = Duration::from_secs(180);
/// A refused body is read on for so long, so that the client reads the answer instead of a reset.
const DRAIN: Duration = Duration::from_secs(5);
/// Bodies up to this size are not counted against the budget.
const SMALL: usize = 64 * 1024;

/// A body, and its share of the memory for bodies.
pub(crate) struct Read {
    /// The bytes.
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads a whole body.
///
/// # Errors
/// 413 past `server.max_body`, 408 when it stalls, 429 when too much is being read already.
pub(crate) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Read, ApiError> {
    let limit = app.config.server.max_body;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let mut stream = body.into_data_stream();
    let whole = Instant::now() + WHOLE;
    if announced.is_some_and(|n| n > limit as u64) {
        drain(stream).await;
        return Err(too_large(limit));
    }
    let mut share = Share { app, permit: None, counted: 0 };
    let mut bytes = Vec::with_capacity(usize::try_from(announced.unwrap_or(0)).unwrap_or(0).min(SMALL));
    let mut first: Option<Bytes> = None;
    loop {
        let deadline = whole.min(Instant::now() + STALL);
        let chunk = match timeout_at(deadline, stream.next()).await {
            Err(_) => {
                return Err(ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!(
                        "The request body stalled for {} s, or took longer than {} s",
                        STALL.as_secs(),
                        WHOLE.as_secs()
                    ),
                ));
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(ApiError::bad(format!("The request body could not be read: {error}")));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        let so_far = bytes.len() + first.as_ref().map_or(0, Bytes::len);
        if so_far + chunk.len() > limit {
            drain(stream).await;
            return Err(too_large(limit));
        }
        share.count(so_far + chunk.len())?;
        // Most bodies come in one piece and need no copy.
        if so_far == 0 {
            first = Some(chunk);
        } else {
            if let Some(first) = first.take() {
                bytes.extend_from_slice(&first);
            }
            bytes.extend_from_slice(&chunk);
        }
    }
    let bytes = first.unwrap_or_else(|| Bytes::from(bytes));
    Ok(Read { bytes, _share: share.permit })
}

struct Share<'a> {
    app: &'a App,
    permit: Option<OwnedSemaphorePermit>,
    counted: usize,
}

impl Share<'_> {
    fn count(&mut self, total: usize) -> Result<(), ApiError> {
        if total <= SMALL {
            return Ok(());
        }
        let wanted = total.div_ceil(1024);
        let more = wanted.saturating_sub(self.counted);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        match self.app.bodies.clone().try_acquire_many_owned(more) {
            Ok(permit) => {
                self.counted = wanted;
                match &mut self.permit {
                    Some(held) => held.merge(permit),
                    none => *none = Some(permit),
                }
                Ok(())
            }
            Err(_) => Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "Too many large requests at a time: {} MiB of bodies are being worked on; try again",
                    crate::app::BODY_BUDGET_KIB / 1024
                ),
            )
            .retry_after(1)),
        }
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "The request body is larger than {limit} bytes (`server.max_body`); send fewer devices at a time"
        ),
    )
}

async fn drain(mut stream: axum::body::BodyDataStream) {
    let deadline = Instant::now() + DRAIN;
    while let Ok(Some(Ok(_))) = timeout_at(deadline, stream.next()).await {}
}

/// A body as JSON, for the endpoints whose types upstream validates before the handler.
///
/// # Errors
/// 422 in the validation library's form.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    if bytes.is_empty() {
        let mut error = FieldError::new(&[], "Field required");
        error.kind = "missing".into();
        return Err(ApiError::unprocessable("body", vec![error]));
    }
    serde_json::from_slice(bytes).map_err(|reason| {
        let mut error = FieldError::new(&[], format!("JSON decode error: {reason}"));
        error.kind = "json_invalid".into();
        error.loc = vec![Value::from(reason.column())];
        error.input = json!({});
        ApiError::unprocessable("body", vec![error])
    })
}

/// The body of `/device/exec`: JSON, or multipart with the JSON in its part `request`.
///
/// # Errors
/// 422 with a sentence.
pub(crate) async fn exec(headers: &HeaderMap, bytes: &Bytes) -> Result<Value, ApiError> {
    let unprocessable = |text: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !content_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        return serde_json::from_slice(bytes)
            .map_err(|reason| unprocessable(format!("Invalid JSON request: {reason}")));
    }
    let request = axum::http::Request::builder()
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from(bytes.clone()))
        .map_err(|error| unprocessable(format!("Invalid multipart request: {error}")))?;
    let mut parts = <axum::extract::Multipart as axum::extract::FromRequest<()>>::from_request(request, &())
        .await
        .map_err(|error| unprocessable(format!("Invalid multipart request: {error}")))?;
    let mut value = None;
    loop {
        let part = parts
            .next_field()
            .await
            .map_err(|e| unprocessable(format!("Invalid multipart request: {}", e.body_text())))?;
        let Some(part) = part else { break };
        match part.name() {
            Some("request") => {
                let text = part
                    .bytes()
                    .await
                    .map_err(|e| unprocessable(format!("Invalid multipart request: {}", e.body_text())))?;
                let parsed = serde_json::from_slice(&text)
                    .map_err(|reason| unprocessable(format!("Invalid 'request' JSON: {reason}")))?;
                value = Some(parsed);
            }
            Some("file") => {
                return Err(unprocessable(
                    "File transfer is not available in this version; leave the part `file` out".into(),
                ));
            }
            other => {
                let name = other.unwrap_or("(no name)");
                return Err(unprocessable(format!(
                    "Unknown multipart field '{name}': expected `request`, and `file` at most"
                )));
            }
        }
    }
    value.ok_or_else(|| unprocessable("Field 'request' is required in multipart mode".into()))
}
