//! `/workers...`: who does the work.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use netpulse_model::QueueName;
use netpulse_model::api::{ErrorBody, NameResponse};
use netpulse_model::worker::WorkerRecord;

use crate::app::App;
use crate::error::ApiError;
use crate::query::Params;
use crate::reply::{self, Segment};

/// List workers: nodes, FIFO workers, and the owners of devices.
#[utoipa::path(
    get, path = "/workers", tag = "workers",
    params(
        ("queue" = Option<String>, Query, description = "Serving this queue; wins over `node` and `host`"),
        ("node" = Option<String>, Query, description = "Of this node; wins over `host`"),
        ("host" = Option<String>, Query, description = "Owning this device"),
    ),
    responses(
        (status = 200, description = "The workers", body = [WorkerRecord]),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &matching(&app, &Params::of(&uri)).await?))
}

/// The workers that the filters mean; all without one.
///
/// # Errors
/// 422 for what is no queue, 503 without the store.
pub(crate) async fn matching(app: &App, params: &Params) -> Result<Vec<WorkerRecord>, ApiError> {
    let queue = params.parsed("queue", str::parse::<QueueName>)?;
    let (node, host) = (params.get("node"), params.get("host"));
    let mut workers = app.store(app.queue.workers()).await?;
    for worker in &mut workers {
        // A FIFO worker of its own is a node of its own name; its host is that without the queue.
        if let Some(host) = worker.hostname.strip_suffix("_FifoQ") {
            worker.hostname = host.to_owned();
        }
    }
    workers.retain(|worker| match (&queue, node, host) {
        (Some(queue), ..) => worker.queues.contains(queue),
        (None, Some(node), _) => worker.hostname == node,
        (None, None, Some(host)) => {
            worker.queues.iter().any(|q| matches!(q, QueueName::Host(d) if d.matches_host(host)))
        }
        (None, None, None) => true,
    });
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(workers)
}

/// Ask one worker to end after its current job.
#[utoipa::path(
    delete, path = "/workers/{name}", tag = "workers",
    params(("name" = String, Path, description = "The worker")),
    responses(
        (status = 200, description = "It has been asked", body = NameResponse),
        (status = 404, description = "No such worker", body = ErrorBody),
    )
)]
pub(crate) async fn stop(State(app): State<App>, Segment(name): Segment) -> Result<Response, ApiError> {
    stop_one(&app, &name).await?;
    Ok(reply::json(StatusCode::OK, &NameResponse { name }))
}

/// Asks one worker to end.
///
/// # Errors
/// 404 when there is none of that name (D17).
pub(crate) async fn stop_one(app: &App, name: &str) -> Result<(), ApiError> {
    if app.store(app.queue.stop_worker(name)).await? {
        Ok(())
    } else {
        Err(ApiError::missing(format!("Worker {name} not found")))
    }
}

/// Ask the workers of a queue, a node or a host to end after their current jobs.
#[utoipa::path(
    delete, path = "/workers", tag = "workers",
    params(
        ("queue" = Option<String>, Query, description = "Serving this queue"),
        ("node" = Option<String>, Query, description = "Of this node"),
        ("host" = Option<String>, Query, description = "Owning this device"),
    ),
    responses((status = 200, description = "The names of those asked; none without a filter", body = [String]))
)]
pub(crate) async fn stop_some(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &stop_matching(&app, &Params::of(&uri)).await?))
}

/// Asks the workers that the filters mean to end; nobody without a filter.
///
/// # Errors
/// As [`matching`].
pub(crate) async fn stop_matching(app: &App, params: &Params) -> Result<Vec<String>, ApiError> {
    if ["queue", "node", "host"].iter().all(|name| params.get(name).is_none()) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for worker in matching(app, params).await? {
        if app.store(app.queue.stop_worker(&worker.name)).await? {
            names.push(worker.name);
        }
    }
    Ok(names)
}
