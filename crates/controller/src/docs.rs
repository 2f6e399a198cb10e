//! `/docs` and `/redoc`: one page that shows the OpenAPI document and tries requests, from this
//! server alone.

use axum::http::header;
use axum::response::{Html, IntoResponse};

const PAGE: &str = include_str!("docs.html");

/// The page. It loads nothing but `openapi.json` from here.
pub(crate) async fn page() -> impl IntoResponse {
    (
        [
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                 img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            ),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        Html(PAGE),
    )
}
