//! `/jobs...`: what became of what was asked.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use futures_util::stream;
use netpulse_model::api::{CancelResponse, ErrorBody, JobInResponse};
use netpulse_model::{Job, JobId, JobStatus, QueueName};
use netpulse_queue::{Canceled, JobQuery, Page};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::error::ApiError;
use crate::query::{Params, Wait};
use crate::reply::{self, Segment};

/// Jobs on one page at most.
const MOST: u64 = 1000;
/// Jobs read at a time when all are asked for.
const CHUNK: usize = 500;

/// List jobs, newest first.
///
/// Without `limit` every job that matches is streamed, as upstream does. With `limit` the answer
/// is one page; `X-Next-Cursor` and `Link: rel="next"` lead to the next, and pages neither repeat
/// nor skip a job while others come and go. `queue` or `host` without a state lists what waits
/// there, as upstream does; `state=all` lists everything.
#[utoipa::path(
    get, path = "/jobs", tag = "jobs",
    params(
        ("queue" = Option<String>, Query, description = "`FifoQ` or `HostQ_<host>[:<port>]`; wins over `node` and `host`"),
        ("node" = Option<String>, Query, description = "Run by a worker of this node; wins over `host`"),
        ("host" = Option<String>, Query, description = "For this host (every port), or exactly `host:port`"),
        ("status" = Option<String>, Query, description = "One state, several by commas, or `all`"),
        ("state" = Option<String>, Query, description = "The same as `status`"),
        ("since" = Option<String>, Query, description = "Accepted at or after: ISO 8601, a date, or Unix seconds"),
        ("until" = Option<String>, Query, description = "Accepted before"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Jobs on the page"),
        ("cursor" = Option<String>, Query, description = "`X-Next-Cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "The jobs", body = [JobInResponse], headers(
            ("X-Next-Cursor" = String, description = "Where the next page starts; absent on the last"),
            ("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = 422, description = "A parameter is wrong; its name is in `loc`", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::of(&uri);
    let limit = params.integer("limit", 1, MOST)?;
    let mut query = filter(&params)?;
    query.limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(CHUNK);
    let page = read_page(&app, &query).await?;
    match (limit, page.next) {
        (_, None) => Ok(reply::json(
            StatusCode::OK,
            &page.jobs.into_iter().map(JobInResponse::from).collect::<Vec<_>>(),
        )),
        (Some(_), Some(next)) => {
            let mut response = reply::json(
                StatusCode::OK,
                &page.jobs.into_iter().map(JobInResponse::from).collect::<Vec<_>>(),
            );
            lead_on(&mut response, &uri, &next);
            Ok(response)
        }
        (None, Some(next)) => Ok(streamed(app, query, page.jobs, next)),
    }
}

async fn read_page(app: &App, query: &JobQuery) -> Result<Page, ApiError> {
    app.store(app.queue.list(query)).await
}

/// All pages after the first as one JSON list, read as fast as the client takes them.
fn streamed(app: App, mut query: JobQuery, first: Vec<Job>, next: String) -> Response {
    enum At {
        Page(Vec<Job>, Option<String>),
        Read(String),
        End,
    }
    fn written(jobs: Vec<Job>, opening: bool, last: bool) -> Bytes {
        let mut out = Vec::with_capacity(jobs.len() * 512);
        out.extend_from_slice(if opening { b"[" } else { b"" });
        for (index, job) in jobs.into_iter().enumerate() {
            if !(opening && index == 0) {
                out.push(b',');
            }
            // Writing to memory what has text keys only does not fail.
            if let Ok(json) = serde_json::to_vec(&JobInResponse::from(job)) {
                out.extend_from_slice(&json);
            }
        }
        out.extend_from_slice(if last { b"]" } else { b"" });
        Bytes::from(out)
    }
    let start = (At::Page(first, Some(next)), true);
    let pages = stream::unfold(start, move |(at, opening)| {
        let app = app.clone();
        let (jobs, next) = match at {
            At::End => return futures_util::future::Either::Left(std::future::ready(None)),
            At::Page(jobs, next) => (Some(jobs), next),
            At::Read(cursor) => (None, Some(cursor)),
        };
        query.cursor.clone_from(&next);
        let query = query.clone();
        futures_util::future::Either::Right(async move {
            let (jobs, next) = match jobs {
                Some(jobs) => (jobs, next),
                None => match read_page(&app, &query).await {
                    Ok(page) => (page.jobs, page.next),
                    Err(error) => {
                        // The status has been sent: breaking off is the one way left to say so.
                        tracing::error!("a listing broke off: {}", error.sentence());
                        return Some((Err(std::io::Error::other("the store failed")), (At::End, false)));
                    }
                },
            };
            let bytes = written(jobs, opening, next.is_none());
            Some((Ok(bytes), (next.map_or(At::End, At::Read), false)))
        })
    });
    reply::bytes_as_json(StatusCode::OK, Body::from_stream(pages))
}

/// `X-Next-Cursor` and `Link`: the same question, one page on. The key is not repeated in it.
fn lead_on(response: &mut Response, uri: &Uri, next: &str) {
    let kept = uri.query().unwrap_or_default().split('&').filter(|part| {
        let name = part.split('=').next().unwrap_or_default();
        ["limit", "queue", "node", "host", "status", "state", "since", "until"].contains(&name)
    });
    let query: Vec<&str> = kept.collect();
    let next = format!("{next}.{}", checksum(next));
    let encoded: String = next
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    let link = format!("<{}?{}&cursor={encoded}>; rel=\"next\"", uri.path(), query.join("&"));
    if let (Ok(cursor), Ok(link)) = (HeaderValue::from_str(&next), HeaderValue::from_str(&link)) {
        response.headers_mut().insert("x-next-cursor", cursor);
        response.headers_mut().insert(header::LINK, link);
    }
}

/// The filters of a listing; one of `queue`, `node` and `host` at most counts, in this order.
pub(crate) fn filter(params: &Params) -> Result<JobQuery, ApiError> {
    let mut query = place(params)?;
    let name = if params.get("status").is_some() { "status" } else { "state" };
    let states = params.parsed(name, |text| {
        if text.eq_ignore_ascii_case("all") {
            return Ok(Vec::new());
        }
        text.split(',').map(|word| word.trim().parse::<JobStatus>()).collect::<Result<Vec<_>, _>>()
    })?;
    query.status = match states {
        Some(states) => states,
        None if query.queue.is_some() || query.host.is_some() => {
            vec![JobStatus::Queued, JobStatus::Deferred, JobStatus::Scheduled]
        }
        None => Vec::new(),
    };
    query.since = params.time("since")?;
    query.until = params.time("until")?;
    query.cursor = params.parsed("cursor", |text| match text.rsplit_once('.') {
        Some((cursor, sum)) if sum == checksum(cursor) => Ok(cursor.to_owned()),
        _ => Err("Input should be `X-Next-Cursor` of the page before, unchanged"),
    })?;
    Ok(query)
}

/// Tells a cursor of ours from a typing error, which would otherwise find a wrong page.
fn checksum(cursor: &str) -> String {
    let digest = Sha256::digest(cursor.as_bytes());
    digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}

/// `queue`, else `node`, else `host`.
fn place(params: &Params) -> Result<JobQuery, ApiError> {
    let mut query = JobQuery::default();
    let queue = params.parsed("queue", |text| match text.strip_prefix("pinned_") {
        // The early documentation's name for it.
        Some(host) => format!("HostQ_{host}").parse::<QueueName>(),
        None => text.parse::<QueueName>(),
    })?;
    if queue.is_some() {
        query.queue = queue;
    } else if let Some(node) = params.get("node") {
        query.node = Some(node.to_owned());
    } else if let Some(host) = params.get("host") {
        query.host = Some(host.trim().to_owned());
    }
    Ok(query)
}

/// One job; with `wait`, as soon as it has ended.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("wait" = Option<f64>, Query, description = "Seconds to hold the answer until the job has ended"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, as the parameter"),
    ),
    responses(
        (status = 200, description = "The job, whole: a final status always comes with its result", body = JobInResponse, example = json!({
            "id": "6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55", "status": "finished",
            "created_at": "2026-02-03T04:05:06.789012+00:00", "enqueued_at": "2026-02-03T04:05:06.789012+00:00",
            "started_at": "2026-02-03T04:05:06.790100+00:00", "ended_at": "2026-02-03T04:05:06.810000+00:00",
            "queue": "HostQ_192.0.2.11", "worker": "node-a_HostQ_192.0.2.11",
            "result": {"type": 1, "retval": [{"command": "show clock", "stdout": "04:05:09.120 UTC", "stderr": "",
                "exit_status": 0, "download_url": null, "metadata": {"host": "192.0.2.11", "duration_seconds": 0.012,
                "session_reused": true}, "parsed": null}], "error": null},
            "task_id": null, "device_name": "192.0.2.11", "command": ["show clock"], "duration": 0.0199, "queue_time": 0.001088,
            "host": "192.0.2.11", "driver": "netmiko", "kind": "query", "priority": "normal", "attempt": 1})),
        (status = 404, description = "No such job", body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(app): State<App>,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let params = Params::of(&uri);
    let wait = Wait::of(&app, &params, &headers, Duration::ZERO)?;
    let job = app.ended(known_id(&id)?, wait.time).await?.ok_or_else(|| not_found(&id))?;
    let mut response = reply::json(StatusCode::OK, &JobInResponse::from(job));
    if wait.preferred
        && let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.time.as_secs_f64()))
    {
        response.headers_mut().insert("preference-applied", value);
    }
    Ok(response)
}

/// The id, or 404: what is no id is no job's id.
pub(crate) fn known_id(id: &str) -> Result<JobId, ApiError> {
    id.parse().map_err(|_| not_found(id))
}

/// 404 in upstream's words.
pub(crate) fn not_found(id: &str) -> ApiError {
    ApiError::missing(format!("Job {id} not found"))
}

/// Cancel one job, waiting or running.
///
/// A running job's worker is told to stop between lines; the job's result then says where it
/// stopped.
#[utoipa::path(
    delete, path = "/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "It was canceled, or its worker has been told", body = CancelResponse),
        (status = 404, description = "No such job, or it had ended already", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(State(app): State<App>, Segment(id): Segment) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &cancel_one(&app, &id).await?))
}

/// Cancels one job.
///
/// # Errors
/// 404 when it is unknown or over.
pub(crate) async fn cancel_one(app: &App, id: &str) -> Result<CancelResponse, ApiError> {
    let gone = |why: &str| ApiError::missing(format!("Job {id} not found or not in queued state{why}"));
    let known: JobId = id.parse().map_err(|_| gone(""))?;
    // No reason: that it was canceled is what the queue says itself.
    match app.store(app.queue.cancel(known, "")).await? {
        Canceled::BeforeStart(job) => Ok(CancelResponse { id: job.id, canceled: "before_start".into() }),
        Canceled::Asked(job) => Ok(CancelResponse { id: job.id, canceled: "asked".into() }),
        Canceled::TooLate(job) => {
            Err(gone(&format!(" (it is {})", job.status)).with("status", job.status.as_str()))
        }
        Canceled::Unknown => Err(gone("")),
    }
}

/// Cancel every waiting job of a queue or a host.
#[utoipa::path(
    delete, path = "/jobs", tag = "jobs",
    params(
        ("queue" = Option<String>, Query, description = "`FifoQ` or `HostQ_<host>[:<port>]`"),
        ("host" = Option<String>, Query, description = "For this host (every port), or exactly `host:port`"),
    ),
    responses((status = 200, description = "The jobs that were canceled; none without a filter", body = [String]))
)]
pub(crate) async fn cancel_waiting(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &cancel_matching(&app, &Params::of(&uri)).await?))
}

/// Cancels what waits in `queue` or for `host`; nothing without a filter.
///
/// # Errors
/// 422 for what is no queue.
pub(crate) async fn cancel_matching(app: &App, params: &Params) -> Result<Vec<JobId>, ApiError> {
    let query = place(params)?;
    if query.queue.is_none() && query.host.is_none() {
        return Ok(Vec::new());
    }
    app.store(app.queue.cancel_waiting(&query)).await
}
