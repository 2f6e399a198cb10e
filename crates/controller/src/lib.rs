//! The REST API: routes, the key, answers and errors, events, and the server that carries them.
//!
//! [`Controller::router`] is the whole API as an axum router; [`serve`] puts it on a socket, with
//! TLS when the configuration names a certificate. Nothing here knows how a device is spoken to
//! or where a job is stored: it knows the traits `Queue`, `Driver` and `Templates`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

mod app;
mod auth;
mod body;
mod docs;
mod error;
mod gate;
mod health;
mod metrics;
mod openapi;
mod query;
mod reply;
mod routes;
mod serve;
mod submit;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use app::Parts;
pub use openapi::document as openapi_document;
pub use serve::{ServeError, serve};

use app::App;
use error::ApiError;

/// The API, built from its parts.
pub struct Controller {
    app: App,
}

impl Controller {
    /// A controller over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { app: App::new(parts) }
    }

    /// The whole API: routes, key, errors, request ids, CORS as configured.
    pub fn router(&self) -> Router {
        self.finished(routes::all())
    }

    /// What monitoring asks, and nothing else: `/metrics`, `/health/live`, `/health/ready`. For a
    /// process without the API.
    pub fn probes(&self) -> Router {
        self.finished(routes::probes())
    }

    /// The requests in hand: once closed, it says when the last one has been answered.
    #[must_use]
    pub fn requests(&self) -> TaskTracker {
        self.app.requests.clone()
    }

    fn finished(&self, routes: Router<App>) -> Router {
        let app = self.app.clone();
        let router = routes
            .fallback(async || ApiError::missing("Not Found"))
            .method_not_allowed_fallback(async || {
                ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
            })
            .layer(from_fn_with_state(app.clone(), gate::pass));
        let router = match cors(&app) {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router.with_state(app)
    }
}

/// What browsers from elsewhere may do; nothing unless origins are configured.
fn cors(app: &App) -> Option<CorsLayer> {
    let origins = &app.config.server.cors_origins;
    if origins.is_empty() {
        return None;
    }
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let mut headers = vec![
        header::CONTENT_TYPE,
        HeaderName::from_static("prefer"),
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("x-netpulse-envelope"),
        gate::REQUEST_ID,
    ];
    headers.extend(app.key_header.clone());
    Some(
        CorsLayer::new()
            .allow_origin(origin)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(headers)
            .expose_headers([
                gate::REQUEST_ID,
                header::LINK,
                header::RETRY_AFTER,
                HeaderName::from_static("x-next-cursor"),
                HeaderName::from_static("preference-applied"),
                HeaderName::from_static("idempotency-replayed"),
            ]),
    )
}
