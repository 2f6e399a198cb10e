//! `/device/...`: asking one device, many devices, or whether a device lets us in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use netpulse_model::api::{
    BulkBody, BulkResponse, ErrorBody, ExecBody, JobInResponse, TestBody, TestResponse,
};
use netpulse_model::request::{BulkFailure, TestRequest};
use netpulse_model::{
    BulkRequest, ConnectionArgs, CredentialRef, ErrorCode, ErrorInfo, ExecutionRequest, FieldError, Job,
    JobId, Timestamp, secret,
};
use netpulse_plugin::Fill;
use serde_json::{Map, Value};

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::query::{Params, Wait};
use crate::reply::Shape;
use crate::submit;

/// Seconds a connection test may take unless the arguments' own timeouts are longer.
const TEST_DEADLINE: u64 = 60;
/// Seconds it may take whatever they say.
const LONGEST_TEST: u64 = 180;
/// Bulk bodies from this size on are taken apart on a thread of their own.
const LARGE: usize = 128 * 1024;

/// Run commands on one device, or change its configuration.
///
/// The job is durable when this answers. With `wait` the answer comes when the job has ended, or
/// after so many seconds as it then stands. The same `Idempotency-Key` gives the same job.
#[utoipa::path(
    post, path = "/device/exec", tag = "device",
    params(
        ("wait" = Option<f64>, Query, description = "Seconds to hold the answer until the job has ended (at most `server.max_wait`)"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, as the parameter; answered by `Preference-Applied`"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters; the same key gives the same job"),
    ),
    request_body(content = ExecBody, examples(
        ("query" = (summary = "Two commands on a switch", value = json!({
            "driver": "netmiko",
            "connection_args": {"device_type": "cisco_ios", "host": "192.0.2.11", "username": "ops", "password": "pw"},
            "command": ["show clock", "show ip interface brief"]}))),
        ("config" = (summary = "A rendered change, saved", value = json!({
            "driver": "netmiko", "enable_mode": true, "save": true,
            "connection_args": {"device_type": "arista_eos", "host": "192.0.2.20", "username": "ops", "password": "pw"},
            "config": {"vlan": 30, "label": "printers"},
            "rendering": {"name": "jinja2", "template": "vlan {{ vlan }}\n name {{ label }}"}}))),
    )),
    responses(
        (status = 201, description = "Accepted and durable", body = JobInResponse),
        (status = 400, description = "No host, an unknown driver, or what the driver (a plugin's own check included) finds wrong", body = ErrorBody),
        (status = 409, description = "The Idempotency-Key was used for another request", body = ErrorBody),
        (status = 413, description = "The body is larger than `server.max_body`", body = ErrorBody),
        (status = 422, description = "The body is no JSON, or has wrong types", body = ErrorBody),
        (status = 429, description = "A queue is full: see `Retry-After`", body = ErrorBody),
        (status = 503, description = "The store cannot be written", body = ErrorBody),
    )
)]
pub(crate) async fn exec(
    State(app): State<App>,
    shape: Shape,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, raw) = request.into_parts();
    let read = body::read(&app, &parts.headers, raw).await?;
    let params = Params::of(&parts.uri);
    let body = body::exec(&parts.headers, &read.bytes).await?;
    let request = ExecutionRequest::read(&body, 300).map_err(ApiError::invalid_request)?;
    let wait = wait_of(&app, &params, &parts.headers, &body)?;
    let key = submit::idempotency_key(&parts.headers)?;
    submit::known(&app, &request.driver).await;
    if let Some(webhook) = &request.webhook {
        // A kind that is not built in: it may be a plugin that nobody asked for so far.
        app.webhooks.find(&webhook.name).await;
    }
    let examination = submit::examination(&app, &request);
    let new = submit::new_job(&app, request, key)?;
    drop((body, read));
    if let Some(examination) = examination {
        examination.hold().await?;
    }
    let mut answers = app.store(app.queue.submit(vec![new])).await?;
    app.metrics.accepted(&answers);
    let answer = answers.pop().ok_or_else(|| ApiError::internal("the queue gave no answer"))?;
    let (job, known) = submit::accepted(answer)?;
    let job = held(&app, job, tokio::time::Instant::now() + wait.time).await?;
    let mut response = shape.reply(StatusCode::CREATED, &JobInResponse::from(job));
    note(&mut response, wait, known);
    Ok(response)
}

/// Run commands on many devices, or change them; one job each.
///
/// Each device's fields override the shared ones. One device's mistake never rejects the others:
/// it is listed in `failed`, and all others are accepted in one transaction.
#[utoipa::path(
    post, path = "/device/bulk", tag = "device",
    params(
        ("wait" = Option<f64>, Query, description = "Seconds to hold the answer until all jobs have ended"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, as the parameter"),
        ("Idempotency-Key" = Option<String>, Header, description = "Stands for the whole request, device by device"),
    ),
    request_body(content = BulkBody, example = json!({
        "driver": "netmiko",
        "connection_args": {"device_type": "huawei", "username": "ops", "password": "pw"},
        "command": "display clock",
        "devices": [{"host": "192.0.2.31"}, {"host": "192.0.2.32", "port": 2222, "command": "display version"}]})),
    responses(
        (status = 201, description = "What was accepted, in the order of the request, and what was not", body = BulkResponse),
        (status = 400, description = "A device without a host, or an unknown driver", body = ErrorBody),
        (status = 413, description = "Too large, or more devices than `server.max_bulk`", body = ErrorBody),
        (status = 422, description = "The body is no JSON, or has wrong types", body = ErrorBody),
        (status = 429, description = "Every queue asked for is full", body = ErrorBody),
        (status = 503, description = "The store cannot be written", body = ErrorBody),
    )
)]
pub(crate) async fn bulk(
    State(app): State<App>,
    shape: Shape,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, raw) = request.into_parts();
    let read = body::read(&app, &parts.headers, raw).await?;
    let params = Params::of(&parts.uri);
    let key = submit::idempotency_key(&parts.headers)?;
    let bytes = read.bytes.clone();
    let prepare = {
        let (app, headers) = (app.clone(), parts.headers.clone());
        Arc::new(move || prepare_bulk(&app, &params, &headers, &bytes, key.clone()))
    };
    let large = read.bytes.len() >= LARGE;
    let plugins = app.drivers.plugins();
    let misses = plugins.misses();
    let prepare = async || {
        let prepare = Arc::clone(&prepare);
        if large {
            tokio::task::spawn_blocking(move || prepare()).await.map_err(ApiError::internal)?
        } else {
            prepare()
        }
    };
    let mut prepared = prepare().await;
    if plugins.misses() != misses {
        // A driver that is not built in: it may be a plugin that nobody asked for so far.
        plugins.discovered().await;
        prepared = prepare().await;
    }
    let mut prepared = prepared?;
    drop(read);
    examine(&mut prepared).await;
    let Bulk { items, jobs, wait, .. } = prepared;

    let answers = if jobs.is_empty() { Vec::new() } else { app.store(app.queue.submit(jobs)).await? };
    app.metrics.accepted(&answers);
    let mut answers = answers.into_iter();
    let mut accepted = Vec::new();
    let mut failed = Vec::new();
    let mut refusal: Option<ApiError> = None;
    let mut known_any = false;
    for item in items {
        match item {
            Item::Failed(failure) => failed.push(failure),
            Item::Submitted(host) => match answers.next().map(submit::accepted) {
                Some(Ok((job, known))) => {
                    known_any |= known;
                    accepted.push(job);
                }
                Some(Err(error)) => {
                    failed.push(BulkFailure { host, reason: error.sentence() });
                    refusal.get_or_insert(error);
                }
                None => failed.push(BulkFailure { host, reason: "the queue gave no answer".into() }),
            },
        }
    }
    // Nothing went in, and the queue is why: the client is to come back later.
    if let (true, Some(error)) = (accepted.is_empty(), refusal) {
        return Err(error);
    }
    let mut ended = if wait.time.is_zero() {
        Vec::new()
    } else {
        let ids: Vec<JobId> = accepted.iter().map(|job| job.id).collect();
        app.ended_all(&ids, wait.time).await
    }
    .into_iter();
    // They were accepted: whatever the store says now, the client must learn their ids.
    let succeeded =
        accepted.into_iter().map(|job| JobInResponse::from(ended.next().flatten().unwrap_or(job))).collect();
    let mut response = shape.reply(StatusCode::CREATED, &BulkResponse { succeeded, failed });
    note(&mut response, wait, known_any);
    Ok(response)
}

enum Item {
    Submitted(String),
    Failed(BulkFailure),
}

struct Bulk {
    items: Vec<Item>,
    jobs: Vec<netpulse_queue::NewJob>,
    /// What plugins are to be asked, by the place of the item.
    examinations: Vec<(usize, submit::Examination)>,
    wait: Wait,
}

/// Questions to plugins at a time.
const ASKED_AT_ONCE: usize = 16;
/// For all questions of a bulk request; what is left is the worker's to find.
const EXAMINED_WITHIN: Duration = Duration::from_secs(3);

/// Asks plugins about each device's request; a refused one is listed in `failed`.
async fn examine(bulk: &mut Bulk) {
    let examinations = std::mem::take(&mut bulk.examinations);
    if examinations.is_empty() {
        return;
    }
    let mut refused = BTreeMap::new();
    let asked = stream::iter(examinations)
        .map(|(index, examination)| async move { (index, examination.hold().await) })
        .buffer_unordered(ASKED_AT_ONCE)
        .for_each(|(index, found)| {
            if let Err(error) = found {
                refused.insert(index, error.sentence());
            }
            std::future::ready(())
        });
    if tokio::time::timeout(EXAMINED_WITHIN, asked).await.is_err() {
        tracing::info!("not every device's request could be shown to its plugin in time; the worker does it");
    }
    if refused.is_empty() {
        return;
    }
    let mut jobs = std::mem::take(&mut bulk.jobs).into_iter();
    for (index, item) in bulk.items.iter_mut().enumerate() {
        let Item::Submitted(host) = item else { continue };
        let Some(job) = jobs.next() else { break };
        match refused.remove(&index) {
            Some(reason) => *item = Item::Failed(BulkFailure { host: std::mem::take(host), reason }),
            None => bulk.jobs.push(job),
        }
    }
}

fn prepare_bulk(
    app: &App,
    params: &Params,
    headers: &HeaderMap,
    bytes: &[u8],
    key: Option<String>,
) -> Result<Bulk, ApiError> {
    let body = body::json(bytes)?;
    let count = body.get("devices").and_then(Value::as_array).map_or(0, Vec::len);
    let most = app.config.server.max_bulk;
    if count > most {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{count} devices in one request; at most {most} (`server.max_bulk`): split the request"),
        ));
    }
    let wait = wait_of(app, params, headers, &body)?;
    let bulk = BulkRequest::read(&body).map_err(bulk_errors)?;
    drop(body);
    // A driver that nobody knows is everybody's fault, not that of each device; so is a reference
    // that holds for all of them.
    submit::check_credential(app, bulk.credential.as_ref())?;
    if let Some(first) = bulk.devices.iter().find_map(|device| device.as_ref().ok()) {
        submit::driver(app, &first.driver)?;
    }
    let mut items = Vec::with_capacity(bulk.devices.len());
    let mut jobs = Vec::with_capacity(bulk.devices.len());
    let mut examinations = Vec::new();
    for (index, device) in bulk.devices.into_iter().enumerate() {
        items.push(match device {
            Err(failure) => Item::Failed(failure),
            Ok(request) => {
                let host = request.connection_args.host().unwrap_or_default().to_owned();
                let examination = submit::examination(app, &request);
                match submit::new_job(app, request, key.as_ref().map(|key| format!("{key}#{index}"))) {
                    Ok(job) => {
                        jobs.push(job);
                        examinations.extend(examination.map(|examination| (index, examination)));
                        Item::Submitted(host)
                    }
                    Err(error) => Item::Failed(BulkFailure { host, reason: error.sentence() }),
                }
            }
        });
    }
    Ok(Bulk { items, jobs, examinations, wait })
}

/// A device without a host is upstream's 400; everything else is the validation library's 422.
fn bulk_errors(errors: Vec<FieldError>) -> ApiError {
    const NO_HOST: &str = "'host' is required for each device";
    if errors.iter().all(|error| error.msg == NO_HOST) {
        ApiError::bad(NO_HOST).with_errors(errors)
    } else {
        ApiError::unprocessable("body", errors)
    }
}

/// The query string, `Prefer`, the body's `wait`, `server.exec_wait`, in this order.
fn wait_of(app: &App, params: &Params, headers: &HeaderMap, body: &Value) -> Result<Wait, ApiError> {
    let default = match body.get("wait") {
        None | Some(Value::Null) => Duration::from_secs(app.config.server.exec_wait),
        Some(value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            crate::query::seconds(&text).map_err(|msg| {
                let mut error = FieldError::new(&["wait"], msg);
                error.input = value.clone();
                ApiError::unprocessable("body", vec![error])
            })?
        }
    };
    Wait::of(app, params, headers, default)
}

/// The job once it has ended, or as it stands at `until`.
async fn held(app: &App, job: Job, until: tokio::time::Instant) -> Result<Job, ApiError> {
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    if left.is_zero() || job.status.is_final() {
        return Ok(job);
    }
    // It was accepted: whatever the store says now, the client must learn its id.
    match app.ended(job.id, left).await {
        Ok(Some(ended)) => Ok(ended),
        Ok(None) | Err(_) => Ok(job),
    }
}

fn note(response: &mut Response, wait: Wait, known: bool) {
    let headers = response.headers_mut();
    if wait.preferred
        && let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.time.as_secs_f64()))
    {
        headers.insert("preference-applied", value);
    }
    if known {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
}

/// Connect to a device, look, disconnect.
///
/// Answers at once, without a queue. A device that cannot be reached or refuses the login is an
/// answer (`success: false`), not an error.
#[utoipa::path(
    post, path = "/device/test", tag = "device",
    request_body(content = TestBody, example = json!({
        "driver": "netmiko",
        "connection_args": {"device_type": "cisco_ios", "host": "192.0.2.11", "username": "ops", "password": "pw"}})),
    responses(
        (status = 200, description = "What the device said", body = TestResponse, example = json!({
            "success": true, "latency": 0.31, "error": null, "error_type": null,
            "result": {"driver": "netmiko", "host": "192.0.2.11", "prompt": "sw1#", "device_type": "cisco_ios"},
            "timestamp": "2026-02-03T04:05:06.789012+00:00"})),
        (status = 400, description = "No host, an unknown driver, a wrong credential reference, or what the driver finds wrong", body = ErrorBody),
        (status = 422, description = "The body is no JSON, or has wrong types", body = ErrorBody),
        (status = 429, description = "Too many tests at a time", body = ErrorBody),
    )
)]
pub(crate) async fn test(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let answer = run_test(&app, request).await?;
    Ok(crate::reply::json(StatusCode::OK, &answer))
}

/// Connection arguments of a test: what a secret put into them is zeroed when it is over.
struct Filled {
    args: ConnectionArgs,
    fill: Fill,
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.fill.wipe(&mut self.args);
    }
}

impl Filled {
    /// Fills the arguments from what they refer to.
    async fn from(
        app: &App,
        args: ConnectionArgs,
        reference: Option<&CredentialRef>,
        within: Duration,
    ) -> Result<Self, ErrorInfo> {
        let mut filled = Self { args, fill: Fill::default() };
        if let Some(reference) = reference {
            let values = app.credentials.resolve(reference, &filled.args, within).await?;
            filled.fill = Fill::apply(values, &mut filled.args);
        }
        Ok(filled)
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets = secret::collect(&Value::Object(self.args.0.clone()));
        secrets.extend(self.fill.secrets(&self.args));
        secrets.sort_by_key(|text| std::cmp::Reverse(text.len()));
        secrets
    }
}

/// Reads and runs a connection test.
///
/// # Errors
/// As [`test`].
pub(crate) async fn run_test(app: &App, request: Request) -> Result<TestResponse, ApiError> {
    let (parts, raw) = request.into_parts();
    let read = body::read(app, &parts.headers, raw).await?;
    let TestRequest { driver: name, connection_args, credential } =
        TestRequest::read(&body::json(&read.bytes)?)
            .map_err(|errors| ApiError::unprocessable("body", errors))?;
    drop(read);
    submit::check_credential(app, credential.as_ref())?;
    submit::require_host(&connection_args)?;
    submit::known(app, &name).await;
    let driver = submit::driver(app, &name)?;
    let errors = match &credential {
        None => driver.validate_connection(&connection_args),
        Some(reference) => driver.validate_connection(&submit::as_if_resolved(&connection_args, reference)),
    };
    if !errors.is_empty() {
        return Err(ApiError::validation(errors));
    }
    let own = ["timeout", "conn_timeout", "auth_timeout", "session_timeout"]
        .iter()
        .filter_map(|key| connection_args.0.get(*key)?.as_f64())
        .fold(0.0, f64::max)
        .clamp(0.0, f64::from(u32::MAX));
    let deadline = Duration::from_secs_f64(own)
        .max(Duration::from_secs(TEST_DEADLINE))
        .min(Duration::from_secs(LONGEST_TEST));
    let host = connection_args.host().unwrap_or_default().to_owned();
    let filled = Filled::from(app, connection_args, credential.as_ref(), deadline).await;
    let started = Instant::now();
    let (secrets, outcome) = match &filled {
        Ok(filled) => {
            let run = async {
                let Ok(_turn) = app.tests.acquire().await else { return None };
                Some(driver.test(&filled.args).await)
            };
            (filled.secrets(), tokio::time::timeout(deadline, run).await)
        }
        // The device was not even asked.
        Err(error) => (Vec::new(), Ok(Some(Err(error.clone())))),
    };
    drop(filled);
    if let (Some(reference), Ok(Some(Err(error)))) = (&credential, &outcome)
        && matches!(error.code, ErrorCode::AuthenticationFailed | ErrorCode::EnableFailed)
    {
        app.credentials.refused(reference);
    }
    let latency = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    let failed = |message: &str, code: &str| TestResponse {
        success: false,
        latency: None,
        error: Some(secret::scrub(message, &secrets)),
        error_type: Some(code.to_owned()),
        result: None,
        timestamp: Timestamp::now(),
    };
    Ok(match outcome {
        Ok(Some(Ok(seen))) => {
            let mut result = Map::new();
            result.insert("driver".into(), Value::from(name.as_str()));
            result.insert("host".into(), Value::from(host.as_str()));
            result.extend(seen);
            TestResponse {
                success: true,
                latency: Some(latency),
                error: None,
                error_type: None,
                result: Some(secret::masked_map(&result)),
                timestamp: Timestamp::now(),
            }
        }
        Ok(Some(Err(error))) => failed(&error.message, error.code.as_str()),
        Ok(None) => return Err(ApiError::internal("the server is stopping")),
        Err(_) => failed(
            &format!("The device did not let us in within {} s", deadline.as_secs()),
            ErrorCode::ConnectFailed.as_str(),
        ),
    })
}
