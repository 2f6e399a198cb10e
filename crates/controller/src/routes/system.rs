//! `/health` and `/system/stats`.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use netpulse_model::QueueName;
use netpulse_model::api::{
    ErrorBody, HealthResponse, JobStats, NodeStats, SelfHealing, StatsResponse, WorkerStats,
};
use netpulse_model::worker::WorkerState;

use crate::app::App;
use crate::error::ApiError;
use crate::reply::{self, Shape};

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
    let mut workers = WorkerStats::default();
    for worker in app.store(app.queue.workers()).await? {
        workers.total += 1;
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
    let healed = app.self_healing.load(Ordering::Relaxed).saturating_sub(app.self_healing_at_start);
    Ok(reply::json(
        StatusCode::OK,
        &StatsResponse {
            status: "online".into(),
            nodes: NodeStats {
                active: workers.node,
                total_capacity: workers.node * app.config.worker.pinned_per_node as u64,
            },
            workers,
            jobs,
            self_healing: SelfHealing { total_triggers: healed },
            uptime_seconds: app.started.elapsed().as_secs(),
        },
    ))
}
