//! `/health...`, `/metrics` and `/system/stats`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use netpulse_model::QueueName;
use netpulse_model::api::{
    ErrorBody, HealthResponse, JobStats, NodeStats, SelfHealing, StatsResponse, WorkerStats,
};
use netpulse_model::worker::WorkerState;

use serde_json::json;

use crate::app::App;
use crate::error::ApiError;
use crate::health;
use crate::reply::{self, Shape};

/// Longest that a scrape waits for the store.
const SCRAPE: Duration = Duration::from_secs(5);

/// Whether the server is up and its store answers.
#[utoipa::path(
    get, path = "/health", tag = "system",
    responses(
        (status = 200, description = "All is well", body = HealthResponse, example = json!({"status": "ok"})),
        (status = 503, description = "The store does not answer or cannot be written", body = ErrorBody),
    )
)]
pub(crate) async fn health(State(app): State<App>, shape: Shape) -> Result<Response, ApiError> {
    app.store(app.queue.health()).await?;
    Ok(match shape {
        Shape::Plain => reply::json(StatusCode::OK, &HealthResponse { status: "ok".into() }),
        Shape::Enveloped => reply::envelope(StatusCode::OK, "success", "ok".into()),
    })
}

/// Whether this process runs. Asks nobody: for liveness probes, without the key.
#[utoipa::path(
    get, path = "/health/live", tag = "system", security(()),
    responses((status = 200, description = "It runs", body = HealthResponse, example = json!({"status": "ok"})))
)]
pub(crate) async fn live() -> Response {
    reply::json(StatusCode::OK, &HealthResponse { status: "ok".into() })
}

/// Whether requests should be sent here: for readiness probes and proxies, without the key.
///
/// 503 while the store does not answer, and once the process drains.
#[utoipa::path(
    get, path = "/health/ready", tag = "system", security(()),
    responses(
        (status = 200, description = "It serves", body = HealthResponse, example = json!({"status": "ok"})),
        (status = 503, description = "It does not: `status` is `draining` or `store`", body = Object,
            example = json!({"status": "draining", "detail": "This process is about to end and takes nothing new"})),
    )
)]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    match health::ready(&app).await {
        Ok(()) => reply::json(StatusCode::OK, &HealthResponse { status: "ok".into() }),
        Err((status, detail)) => {
            reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": status, "detail": detail}))
        }
    }
}

/// The figures of this process and of the system, for Prometheus (OpenMetrics text).
#[utoipa::path(
    get, path = "/metrics", tag = "system",
    responses((status = 200, description = "The figures", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let seen = async {
        let counts = app.store(app.queue.counts()).await?;
        Ok::<_, ApiError>((counts, app.store(app.queue.nodes()).await?))
    };
    // A scraper waits ten seconds by default, and wants this process' own figures in any case.
    let seen = match tokio::time::timeout(SCRAPE, seen).await {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            tracing::warn!("figures without the store: {}", error.sentence());
            None
        }
        Err(_elapsed) => {
            tracing::warn!("figures without the store: no answer within {} s", SCRAPE.as_secs());
            None
        }
    };
    app.metrics.refresh(seen);
    let text = app.metrics.text().map_err(ApiError::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The state of the whole system in numbers.
#[utoipa::path(
    get, path = "/system/stats", tag = "system",
    responses((status = 200, description = "The numbers", body = StatsResponse, example = json!({
        "status": "online", "workers": {"total": 5, "pinned": 2, "fifo": 1, "node": 2, "idle": 4, "busy": 1},
        "jobs": {"total": 37, "succeeded": 30, "failed": 2, "in_progress": 1, "queued": 4, "canceled": 0},
        "nodes": {"active": 2, "total_capacity": 64}, "self_healing": {"total_triggers": 1}, "uptime_seconds": 8123})))
)]
pub(crate) async fn stats(State(app): State<App>) -> Result<Response, ApiError> {
    let counts = app.store(app.queue.counts()).await?;
    let nodes = app.store(app.queue.nodes()).await?;
    let mut workers = WorkerStats::default();
    let mut healed = 0;
    for worker in app.store(app.queue.workers()).await? {
        workers.total += 1;
        healed += worker.self_healing;
        if worker.status == WorkerState::Busy {
            workers.busy += 1;
        } else {
            workers.idle += 1;
        }
        match worker.queues.first() {
            Some(QueueName::Host(_)) => workers.pinned += 1,
            Some(QueueName::Fifo) => workers.fifo += 1,
            Some(QueueName::Node(_)) => workers.node += 1,
            None => {}
        }
    }
    let jobs = JobStats {
        total: counts.finished + counts.failed + counts.started + counts.queued,
        succeeded: counts.finished,
        failed: counts.failed,
        in_progress: counts.started,
        queued: counts.queued,
        canceled: counts.canceled,
    };
    Ok(reply::json(
        StatusCode::OK,
        &StatsResponse {
            status: "online".into(),
            nodes: NodeStats {
                active: nodes.iter().filter(|node| node.alive).count() as u64,
                total_capacity: nodes
                    .iter()
                    .filter(|node| node.alive && node.role.devices)
                    .map(|node| node.role.capacity as u64)
                    .sum(),
            },
            workers,
            jobs,
            self_healing: SelfHealing { total_triggers: healed },
            uptime_seconds: app.started.elapsed().as_secs(),
        },
    ))
}
