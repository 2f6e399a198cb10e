//! What every request passes: its id, the key, a net under panics, and the access log.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::app::App;
use crate::auth;
use crate::error::ApiError;
use crate::reply::Shape;

/// Carries a request's id in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) async fn pass(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _in_hand = app.requests.token();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request_id(&app, request.headers());
    let method = request.method().clone();
    let uri = request.uri().clone();
    let shape = Shape::of(&app, uri.path(), request.headers());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());

    let known = auth::is_open(uri.path()) || auth::allowed(&app, request.headers(), uri.query());
    let mut response = if known && method == Method::POST && app.draining.is_cancelled() {
        let sentence = "This server is about to end and takes nothing new; try again: another one answers, or it is back";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, sentence).retry_after(2).into_response()
    } else if known {
        match AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await {
            Ok(response) => response,
            Err(panic) => {
                let what = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                span.in_scope(|| tracing::error!(%method, path = uri.path(), what, "a handler panicked: please report this"));
                ApiError::internal(format_args!(
                    "a defect in NetPulse; the log has it under request {}",
                    id.to_str().unwrap_or_default()
                ))
                .into_response()
            }
        }
    } else {
        ApiError::new(StatusCode::FORBIDDEN, "Invalid or missing API key.").into_response()
    };

    let status = response.status();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        if shape == Shape::Enveloped {
            response = error.enveloped();
        }
        if status.is_server_error() {
            span.in_scope(|| tracing::error!(%method, path = uri.path(), status = status.as_u16(), "{}", error.sentence()));
        }
    }
    response.headers_mut().insert(REQUEST_ID, id);
    app.metrics.answered(&method, route.as_ref().map(MatchedPath::as_str), status, started.elapsed());
    span.in_scope(|| log(&app, &method, &uri, status, started));
    response
}

/// One line per request. Good answers are debug lines: at thousands of requests a second the log
/// would cost more than the work.
fn log(app: &App, method: &Method, uri: &axum::http::Uri, status: StatusCode, started: Instant) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                %method,
                path = uri.path(),
                query = uri.query().map(|q| auth::scrubbed(app, q)),
                status = status.as_u16(),
                ms = started.elapsed().as_secs_f64() * 1e3,
                "answered"
            )
        };
    }
    if status.is_client_error() || status.is_server_error() { line!(info) } else { line!(debug) }
}

/// The client's own id when it is one that can stand in a log, else a new one.
fn request_id(app: &App, headers: &HeaderMap) -> HeaderValue {
    let sound = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
    };
    headers
        .get(REQUEST_ID)
        .filter(sound)
        .cloned()
        .or_else(|| HeaderValue::from_str(&app.next_request_id()).ok())
        .unwrap_or(HeaderValue::from_static("-"))
}
