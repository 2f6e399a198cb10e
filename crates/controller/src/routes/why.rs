//! `/jobs/{id}/why`: what a job waits for.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use netpulse_model::api::{ErrorBody, WhyKind, WhyResponse};
use netpulse_model::{ErrorCode, Job, JobStatus, QueueName};
use netpulse_queue::{NodeStatus, Waiting};

use super::jobs::{known_id, not_found};
use crate::app::App;
use crate::error::ApiError;
use crate::reply::{self, Segment};

/// Why a job waits.
///
/// `kind` is one word for programs, `reason` a sentence for people. Where several things hold, `kind`
/// names the one that must go first; the sentence has them all.
#[utoipa::path(
    get, path = "/jobs/{id}/why", tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "What it waits for", body = WhyResponse, example = json!({
            "id": "0b8f7a52-4c56-4a0b-9f0e-0d6a5a3c9a11", "status": "queued", "waiting": true, "ahead": 2,
            "behind": "5f1d1b0e-3d0b-4b52-8a3a-4f8a3a1b9d77", "not_before": null, "node": "node-a", "kind": "device_busy",
            "reason": "In HostQ_192.0.2.11: job 5f1d1b0e-3d0b-4b52-8a3a-4f8a3a1b9d77 holds its device on node node-a; 2 jobs go before it"})),
        (status = 404, description = "No such job", body = ErrorBody),
    )
)]
pub(crate) async fn why(State(app): State<App>, Segment(id): Segment) -> Result<Response, ApiError> {
    let known = known_id(&id)?;
    let waiting = app.store(app.queue.waiting(known)).await?;
    let job = app.store(app.queue.job(known)).await?.ok_or_else(|| not_found(&id))?;
    let Some(waiting) = waiting else {
        return Ok(reply::json(StatusCode::OK, &at_rest(&job)));
    };
    let nodes = app.store(app.queue.nodes()).await?;
    // Who holds the device says on which node.
    let holder = match waiting.behind {
        Some(holder) => app.store(app.queue.job(holder)).await?,
        None => None,
    };
    Ok(reply::json(StatusCode::OK, &explained(&job, waiting, &nodes, holder.as_ref())))
}

/// A job that does not wait.
fn at_rest(job: &Job) -> WhyResponse {
    let (kind, reason) = match (job.status, &job.worker) {
        (JobStatus::Started, Some(worker)) => (WhyKind::Runs, format!("It does not wait: {worker} runs it")),
        (JobStatus::Started, None) => (WhyKind::Runs, "It does not wait: it runs".to_owned()),
        // It was put back between the two questions.
        (JobStatus::Queued, _) => (WhyKind::Next, "It is being handed to a worker".to_owned()),
        (status, _) => (WhyKind::Ended, format!("It does not wait: it is {status}")),
    };
    WhyResponse {
        id: job.id,
        status: job.status,
        waiting: false,
        ahead: None,
        behind: None,
        not_before: None,
        node: None,
        kind,
        reason,
    }
}

fn explained(job: &Job, waiting: Waiting, nodes: &[NodeStatus], holder: Option<&Job>) -> WhyResponse {
    let fifo = job.queue == QueueName::Fifo;
    let able = |node: &&NodeStatus| node.alive && if fifo { node.role.fifo } else { node.role.devices };
    let nobody = if !nodes.iter().any(|node| able(&node)) {
        let what = if fifo { "serves FifoQ" } else { "owns devices" };
        Some((
            WhyKind::NoNode,
            format!("no living node {what}: start `netpulse worker {}`", if fifo { "fifo" } else { "node" }),
        ))
    } else if let Some(why) = &waiting.nobody {
        Some((WhyKind::Capacity, why.clone()))
    } else if !fifo && waiting.node.is_none() && waiting.behind.is_none() {
        let full = |node: &NodeStatus| node.devices >= node.role.capacity;
        let all_full = nodes.iter().filter(able).all(full);
        all_full.then(|| {
            (
                WhyKind::Capacity,
                "every node owns as many devices as it may (`worker.pinned_per_node`)".to_owned(),
            )
        })
    } else {
        None
    };
    // In the order in which one must go before the next counts.
    let mut all: Vec<(WhyKind, String)> = Vec::new();
    if let Some(at) = waiting.not_before {
        let broken = waiting.held_for.as_ref().is_some_and(|why| why.code == ErrorCode::BreakerOpen);
        let kind = if broken { WhyKind::Breaker } else { WhyKind::HeldUntil };
        let because = waiting.held_for.as_ref().map(|why| format!(" ({})", why.message)).unwrap_or_default();
        all.push((kind, format!("it is tried again at {at}{because}")));
    }
    all.extend(nobody);
    if let Some(behind) = waiting.behind {
        let on = holder.and_then(|job| node_of(job, nodes)).or(waiting.node.as_deref());
        let on = on.map(|node| format!(" on node {node}")).unwrap_or_default();
        all.push((WhyKind::DeviceBusy, format!("job {behind} holds its device{on}")));
    }
    match waiting.ahead {
        0 => {}
        1 => all.push((WhyKind::Order, "one job goes before it".to_owned())),
        n => all.push((WhyKind::Order, format!("{n} jobs go before it"))),
    }
    if all.is_empty() {
        let next = match (fifo, &waiting.node) {
            (true, _) => "it is next, and waits for a free slot".to_owned(),
            (false, Some(node)) => format!("it is next, and waits for its worker on node {node}"),
            (false, None) => "it is next, and waits for its worker".to_owned(),
        };
        all.push((WhyKind::Next, next));
    }
    let kind = all.first().map_or(WhyKind::Next, |(kind, _)| *kind);
    let sentences: Vec<String> = all.into_iter().map(|(_, sentence)| sentence).collect();
    WhyResponse {
        id: job.id,
        status: job.status,
        waiting: true,
        ahead: Some(waiting.ahead),
        behind: waiting.behind,
        not_before: waiting.not_before,
        node: waiting.node,
        kind,
        reason: format!("In {}: {}", job.queue, sentences.join("; ")),
    }
}

/// The node whose worker runs a job: the longest known name that the worker's begins with.
fn node_of<'n>(job: &Job, nodes: &'n [NodeStatus]) -> Option<&'n str> {
    let worker = job.worker.as_deref()?;
    let begins =
        |name: &&str| worker == *name || worker.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
    nodes.iter().map(|node| node.name.as_str()).filter(begins).max_by_key(|name| name.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netpulse_model::{DeviceKey, JobId, JobKind, Priority, Timestamp};
    use netpulse_queue::Role;

    use super::*;

    fn job(queue: QueueName) -> Job {
        Job {
            id: JobId::random(),
            status: JobStatus::Queued,
            created_at: Timestamp::now(),
            enqueued_at: Some(Timestamp::now()),
            started_at: None,
            ended_at: None,
            queue,
            worker: None,
            result: None,
            task_id: None,
            device_name: None,
            command: None,
            driver: "netmiko".into(),
            kind: JobKind::Query,
            priority: Priority::Normal,
            attempt: 0,
            device: None,
        }
    }

    fn host() -> QueueName {
        QueueName::Host(DeviceKey::new("sw1", 22, 22))
    }

    fn node(name: &str, devices: usize, role: Role) -> NodeStatus {
        let now = Timestamp::now();
        NodeStatus {
            name: name.into(),
            role,
            devices,
            running: 0,
            alive: true,
            joined_at: now,
            renewed_at: now,
        }
    }

    fn why(queue: QueueName, waiting: Waiting, nodes: &[NodeStatus]) -> (WhyKind, String) {
        let answer = explained(&job(queue), waiting, nodes, None);
        (answer.kind, answer.reason)
    }

    #[test]
    fn each_kind_has_its_word_and_sentence() {
        let all = Role { capacity: 2, devices: true, fifo: true };
        let nodes = [node("a", 1, all)];
        let plain = Waiting::default;
        let (kind, reason) = why(host(), plain(), &nodes);
        assert_eq!(
            (kind, reason.as_str()),
            (WhyKind::Next, "In HostQ_sw1: it is next, and waits for its worker")
        );
        assert_eq!(
            why(QueueName::Fifo, plain(), &nodes).1,
            "In FifoQ: it is next, and waits for a free slot"
        );
        let chosen = Waiting { node: Some("a".into()), ..plain() };
        assert!(why(host(), chosen, &nodes).1.ends_with("waits for its worker on node a"));

        let (kind, reason) = why(host(), plain(), &[]);
        assert_eq!(kind, WhyKind::NoNode);
        assert!(reason.ends_with("no living node owns devices: start `netpulse worker node`"), "{reason}");
        let only_devices = [node("a", 0, Role { fifo: false, ..all })];
        let (kind, reason) = why(QueueName::Fifo, plain(), &only_devices);
        assert_eq!(kind, WhyKind::NoNode);
        assert!(reason.ends_with("no living node serves FifoQ: start `netpulse worker fifo`"), "{reason}");
        let silent = [NodeStatus { alive: false, ..node("a", 0, all) }];
        assert_eq!(why(host(), plain(), &silent).0, WhyKind::NoNode);

        assert_eq!(why(host(), plain(), &[node("a", 2, all)]).0, WhyKind::Capacity);
        let said = Waiting { nobody: Some("No capacity on nodes".into()), ..plain() };
        assert_eq!(
            why(host(), said, &nodes),
            (WhyKind::Capacity, "In HostQ_sw1: No capacity on nodes".into())
        );

        let later = Waiting { not_before: Some(Timestamp::now().plus(Duration::from_secs(9))), ..plain() };
        assert_eq!(why(host(), later, &nodes).0, WhyKind::HeldUntil);
        assert_eq!(
            why(host(), Waiting { ahead: 3, ..plain() }, &nodes).1,
            "In HostQ_sw1: 3 jobs go before it"
        );
        assert_eq!(why(host(), Waiting { ahead: 1, ..plain() }, &nodes).0, WhyKind::Order);
    }

    #[test]
    fn a_busy_device_names_the_job_and_its_node() {
        let all = Role { capacity: 9, devices: true, fifo: true };
        let nodes = [node("a", 1, all), node("a_b", 1, all)];
        let mut holder = job(QueueName::Fifo);
        holder.worker = Some("a_b_FifoQ".into());
        let waiting =
            Waiting { ahead: 2, behind: Some(holder.id), node: Some("a".into()), ..Waiting::default() };
        let answer = explained(&job(host()), waiting.clone(), &nodes, Some(&holder));
        assert_eq!(answer.kind, WhyKind::DeviceBusy);
        let expected =
            format!("In HostQ_sw1: job {} holds its device on node a_b; 2 jobs go before it", holder.id);
        assert_eq!(answer.reason, expected);
        let gone = explained(&job(host()), waiting, &nodes, None);
        assert!(gone.reason.contains("holds its device on node a;"), "{}", gone.reason);
    }
}
