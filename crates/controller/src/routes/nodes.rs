//! `/nodes`: which processes work, and how much they may take.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use netpulse_model::api::{ErrorBody, NodeInResponse, NodeState};
use netpulse_model::worker::WorkerRecord;
use netpulse_queue::NodeStatus;

use crate::app::App;
use crate::error::ApiError;
use crate::reply;

/// List nodes: those that live, and those that fell silent and have not come back.
#[utoipa::path(
    get, path = "/nodes", tag = "workers",
    responses(
        (status = 200, description = "The nodes, by name", body = [NodeInResponse]),
        (status = 503, description = "The store does not answer", body = ErrorBody),
    )
)]
pub(crate) async fn list(axum::extract::State(app): State<App>) -> Result<Response, ApiError> {
    let mut nodes = app.store(app.queue.nodes()).await?;
    let workers = app.store(app.queue.workers()).await?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let answer: Vec<NodeInResponse> = nodes.into_iter().map(|node| shown(node, &workers)).collect();
    Ok(reply::json(StatusCode::OK, &answer))
}

fn shown(node: NodeStatus, workers: &[WorkerRecord]) -> NodeInResponse {
    let mine = || workers.iter().filter(|worker| worker.hostname == node.name);
    let roles = [(node.role.devices, "devices"), (node.role.fifo, "fifo")];
    let roles: Vec<String> =
        roles.iter().filter(|(has, _)| *has).map(|(_, name)| (*name).to_owned()).collect();
    NodeInResponse {
        state: match (node.alive, roles.is_empty()) {
            (false, _) => NodeState::Silent,
            (true, true) => NodeState::Draining,
            (true, false) => NodeState::Ready,
        },
        roles,
        capacity: node.role.capacity as u64,
        devices: node.devices as u64,
        running: node.running as u64,
        workers: mine().count() as u64,
        pid: mine().map(|worker| worker.pid).next(),
        self_healing: mine().map(|worker| worker.self_healing).sum(),
        joined_at: node.joined_at,
        renewed_at: node.renewed_at,
        name: node.name,
    }
}
