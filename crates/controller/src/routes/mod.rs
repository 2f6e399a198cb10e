//! The routes, and where each is handled.

pub(crate) mod credential;
pub(crate) mod device;
pub(crate) mod early;
pub(crate) mod events;
pub(crate) mod jobs;
pub(crate) mod later;
pub(crate) mod nodes;
pub(crate) mod plugins;
pub(crate) mod system;
pub(crate) mod template;
pub(crate) mod why;
pub(crate) mod workers;

use axum::Router;
use axum::routing::{any, delete, get, post};

use crate::app::App;
use crate::{docs, openapi};

/// Every route; the state is still to be given.
pub(crate) fn all() -> Router<App> {
    Router::new()
        .route("/device/exec", post(device::exec))
        .route("/device/execute", post(device::exec))
        .route("/device/bulk", post(device::bulk))
        .route("/device/test", post(device::test))
        .route("/device/test-connection", post(early::test_connection))
        .route("/template/render", post(template::render))
        .route("/template/render/{name}", post(template::render_named))
        .route("/template/parse", post(template::parse))
        .route("/template/parse/{name}", post(template::parse_named))
        .route("/jobs", get(jobs::list).delete(jobs::cancel_waiting))
        .route("/jobs/{id}", get(jobs::one).delete(jobs::cancel))
        .route("/jobs/{id}/why", get(why::why))
        .route("/jobs/{id}/events", get(events::of_job))
        .route("/events", get(events::all))
        .route("/workers", get(workers::list).delete(workers::stop_some))
        .route("/workers/{name}", delete(workers::stop))
        .route("/nodes", get(nodes::list))
        .route("/plugins", get(plugins::list))
        .route("/plugins/reload", post(plugins::reload))
        .route("/plugins/{kind}/{name}", get(plugins::one))
        .route("/health", get(system::health))
        .merge(probes())
        .route("/system/stats", get(system::stats))
        .route("/detached-tasks", any(later::detached))
        .route("/detached-tasks/{*rest}", any(later::detached))
        .route("/storage/fetch/{*path}", get(later::storage))
        .route("/credential/vault/test", post(credential::test))
        .route("/credential/vault/create", post(credential::create))
        .route("/credential/vault/read", post(credential::read))
        .route("/credential/vault/delete", post(credential::delete))
        .route("/credential/vault/list", post(credential::list))
        .route("/credential/vault/metadata", post(credential::metadata))
        .route("/credential/vault/batch-read", post(credential::batch_read))
        .route("/job", get(early::jobs).delete(early::cancel))
        .route("/worker", get(early::workers).delete(early::stop_workers))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(docs::page))
        .route("/redoc", get(docs::page))
}

/// What monitoring asks of any process.
pub(crate) fn probes() -> Router<App> {
    Router::new()
        .route("/health/live", get(system::live))
        .route("/health/ready", get(system::ready))
        .route("/metrics", get(system::metrics))
}
