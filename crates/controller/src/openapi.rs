//! The OpenAPI document, generated from the handlers.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};

use crate::reply;
use crate::routes::{credential, device, events, jobs, nodes, plugins, system, template, why, workers};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "NetPulse Controller",
        description = "Switches, routers, firewalls and Linux servers as one REST API.\n\nEvery request needs the key in the header `X-API-KEY` (the name is configurable), or in a query parameter or cookie of that name. Errors are `{\"detail\": \"a sentence\"}`; for a body of wrong types `detail` is the list of mistakes, each with its path in `loc`. The paths of the early API (`/job`, `/worker`, `/device/execute`, `/device/test-connection`, `/credential/...`) answer the same in the envelope `{code, message, data}`.",
    ),
    paths(
        device::exec, device::bulk, device::test,
        jobs::list, jobs::cancel_waiting, jobs::one, jobs::cancel, why::why,
        events::of_job, events::all,
        workers::list, workers::stop, workers::stop_some, nodes::list,
        credential::test, credential::create, credential::read, credential::delete, credential::list,
        credential::metadata, credential::batch_read,
        template::render, template::render_named, template::parse, template::parse_named,
        plugins::list, plugins::one, plugins::reload,
        system::health, system::live, system::ready, system::stats, system::metrics,
    ),
    components(schemas(netpulse_model::api::GapBody)),
    tags(
        (name = "device", description = "Ask devices"),
        (name = "jobs", description = "What became of it"),
        (name = "events", description = "What happens, as it happens"),
        (name = "workers", description = "Who does the work"),
        (name = "credential", description = "Look after secrets in Vault"),
        (name = "template", description = "Render and parse without a device"),
        (name = "plugins", description = "What NetPulse is made of, and what was added"),
        (name = "system", description = "How the server is"),
    ),
    security(("key" = [])),
    modifiers(&Key)
)]
struct Document;

struct Key;

impl utoipa::Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-KEY")));
        document.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// The document as JSON, indented; the same text as `openapi.json` at the root of the sources.
#[must_use]
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// `GET /openapi.json`
pub(crate) async fn serve() -> Response {
    static TEXT: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    reply::bytes_as_json(StatusCode::OK, TEXT.get_or_init(|| Bytes::from(document())).clone())
}
