//! From a validated request to a job in the queue.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use netpulse_model::request::Strategy;
use netpulse_model::webhook::Notice;
use netpulse_model::{
    ConnectionArgs, CredentialRef, ExecutionRequest, FieldError, Job, JobId, QueueName, secret,
};
use netpulse_plugin::{Driver, Webhook};
use netpulse_queue::{NewJob, Submitted};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;

use crate::app::App;
use crate::error::ApiError;

/// The driver of that name.
///
/// # Errors
/// 400 in upstream's words, with the names that exist.
pub(crate) fn driver(app: &App, name: &str) -> Result<Arc<dyn Driver>, ApiError> {
    app.drivers.get(name).ok_or_else(|| {
        ApiError::bad(format!("Unsupported driver: {name}"))
            .with("supported", app.drivers.names().into_iter().map(Value::from).collect::<Vec<_>>())
    })
}

/// Looks into the plugin folders for a driver that nobody knows yet.
pub(crate) async fn known(app: &App, name: &str) {
    app.drivers.find(name).await;
}

/// 400 unless the connection arguments name a host.
pub(crate) fn require_host(args: &ConnectionArgs) -> Result<(), ApiError> {
    if args.host().is_some_and(|host| !host.is_empty()) {
        return Ok(());
    }
    Err(ApiError::bad("'host' in connection_args is required"))
}

/// 400 when a reference is wrong in a way that can be seen without its secret.
pub(crate) fn check_credential(app: &App, reference: Option<&CredentialRef>) -> Result<(), ApiError> {
    match reference {
        Some(reference) => app.credentials.check(reference).map_err(|error| ApiError::bad(error.message)),
        None => Ok(()),
    }
}

/// Connection arguments as they will be when the worker has the secret: what a driver requires and
/// the secret will bring is there, under a word that says so. For validation only.
pub(crate) fn as_if_resolved(args: &ConnectionArgs, reference: &CredentialRef) -> ConnectionArgs {
    let mut filled = args.clone();
    for key in reference.destinations() {
        if secret::is_secret_key(key) || key.ends_with("username") {
            filled.0.insert(key.to_owned(), Value::from("from-the-credential"));
        } else {
            filled.0.shift_remove(key);
        }
    }
    filled
}

/// A job for the queue, checked by its driver. `key` is the idempotency key, if any.
///
/// # Errors
/// 400: no host, no such driver, or what the driver finds wrong.
pub(crate) fn new_job(
    app: &App,
    mut request: ExecutionRequest,
    key: Option<String>,
) -> Result<NewJob, ApiError> {
    check_credential(app, request.credential.as_ref())?;
    require_host(&request.connection_args)?;
    let driver = driver(app, &request.driver)?;
    let strategy = request.queue_strategy.unwrap_or_else(|| default_strategy(app, driver.as_ref()));
    let mut errors = match &request.credential {
        None => driver.validate(&request),
        Some(reference) => {
            let connection_args = as_if_resolved(&request.connection_args, reference);
            driver.validate(&ExecutionRequest { connection_args, ..request.clone() })
        }
    };
    errors.extend(webhook_errors(app, &request));
    if !errors.is_empty() {
        return Err(ApiError::validation(errors));
    }
    let device =
        driver.device(&request.connection_args).map_err(|error| ApiError::validation(vec![error]))?;
    // Only now: a mistake is told with the client's own input.
    if strategy == Strategy::Pinned && request.connection_args.0.get("keepalive").is_none_or(Value::is_null) {
        request.connection_args.0.insert("keepalive".into(), Value::from(app.config.worker.keepalive));
    }
    let defaults = &app.config.job;
    let whole = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    let digest = if key.is_some() { digest(app, &whole) } else { [0; 32] };
    let device_type = request.connection_args.device_type().map(str::to_owned);
    // The worker has no use for the receiver, nor for its secrets.
    let (notify, payload) = match request.webhook.take() {
        None => (None, whole),
        Some(webhook) => {
            let notice = Notice { webhook, device_type };
            let notify = serde_json::to_vec(&notice).map_err(ApiError::internal)?;
            (Some(notify), serde_json::to_vec(&request).map_err(ApiError::internal)?)
        }
    };
    Ok(NewJob {
        id: JobId::random(),
        queue: match strategy {
            Strategy::Fifo => QueueName::Fifo,
            Strategy::Pinned => QueueName::Host(device.clone()),
        },
        device: Some(device),
        kind: request.kind(),
        priority: request.priority,
        driver: request.driver.clone(),
        device_name: request.connection_args.host().map(str::to_owned),
        command: request.listed_command(),
        ttl: Duration::from_secs(request.ttl),
        timeout: Duration::from_secs(request.execution_timeout.unwrap_or(defaults.timeout)),
        result_ttl: Duration::from_secs(request.result_ttl.unwrap_or(defaults.result_ttl)),
        digest,
        notify,
        retry: request.retry,
        idempotency_key: key,
        payload,
    })
}

/// What plugins are asked about a request beside what their schemas say.
pub(crate) struct Examination {
    driver: Option<(Arc<dyn Driver>, ExecutionRequest)>,
    webhook: Option<(Arc<dyn Webhook>, Value)>,
}

/// What is to be asked about a request, if its driver or its webhook has more to say than a schema
/// can. A plugin that this process does not have is asked by the worker, or not at all.
pub(crate) fn examination(app: &App, request: &ExecutionRequest) -> Option<Examination> {
    let driver = app.drivers.get(&request.driver).filter(|driver| driver.examines());
    let webhook = request.webhook.as_ref().and_then(|webhook| {
        let kind = app.webhooks.get(&webhook.name).filter(|kind| kind.examines())?;
        Some((kind, webhook.given()))
    });
    if driver.is_none() && webhook.is_none() {
        return None;
    }
    Some(Examination { driver: driver.map(|driver| (driver, request.clone())), webhook })
}

impl Examination {
    /// Asks. Bounded; whoever does not answer is left out.
    ///
    /// # Errors
    /// 400 with what was found, each with its path.
    pub(crate) async fn hold(self) -> Result<(), ApiError> {
        let driver = async {
            match &self.driver {
                Some((driver, request)) => driver.examine(request).await,
                None => Vec::new(),
            }
        };
        let webhook = async {
            match &self.webhook {
                Some((kind, webhook)) => below_webhook(kind.examine(webhook).await),
                None => Vec::new(),
            }
        };
        let (mut errors, more) = tokio::join!(driver, webhook);
        errors.extend(more);
        if errors.is_empty() { Ok(()) } else { Err(ApiError::validation(errors)) }
    }
}

fn below_webhook(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    for error in &mut errors {
        error.loc.insert(0, "webhook".into());
    }
    errors
}

/// What the kind that is to be called finds wrong, each with its path.
fn webhook_errors(app: &App, request: &ExecutionRequest) -> Vec<FieldError> {
    let Some(webhook) = &request.webhook else { return Vec::new() };
    let Some(kind) = app.webhooks.get(&webhook.name) else {
        let known = app.webhooks.names().join(", ");
        let sentence = format!("Webhook {} not found: expected one of {known}", webhook.name);
        return vec![FieldError::new(&["webhook", "name"], sentence)];
    };
    below_webhook(kind.validate(&webhook.given()))
}

/// What requests that do not say get: the site's choice, else the driver's.
fn default_strategy(app: &App, driver: &dyn Driver) -> Strategy {
    match app.config.job.default_strategy.get(driver.name()).map(String::as_str) {
        Some("pinned") => Strategy::Pinned,
        Some("fifo") => Strategy::Fifo,
        _ => driver.default_strategy(),
    }
}

/// Tells one request from another. Keyed with the API key, since the digest is stored unsealed and
/// must not serve to guess a weak device password; independent of the order of object keys.
fn digest(app: &App, payload: &[u8]) -> [u8; 32] {
    fn canonical(value: &Value, hash: &mut Sha256) {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort();
                hash.update(b"{");
                for key in keys {
                    hash.update(Value::from(key.as_str()).to_string());
                    hash.update(b":");
                    if let Some(value) = map.get(key) {
                        canonical(value, hash);
                    }
                    hash.update(b",");
                }
                hash.update(b"}");
            }
            Value::Array(items) => {
                hash.update(b"[");
                for item in items {
                    canonical(item, hash);
                    hash.update(b",");
                }
                hash.update(b"]");
            }
            scalar => hash.update(scalar.to_string()),
        }
    }
    let mut hash = Sha256::new();
    hash.update(b"netpulse request digest 1\0");
    hash.update(Sha256::digest(app.config.server.api_key.as_bytes()));
    match serde_json::from_slice(payload) {
        Ok(value) => canonical(&value, &mut hash),
        Err(_) => hash.update(payload),
    }
    hash.finalize().into()
}

/// The `Idempotency-Key` header.
///
/// # Errors
/// 422 when it is no key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if (1..=255).contains(&text.trim().len()) => Ok(Some(text.trim().to_owned())),
        _ => Err(ApiError::unprocessable(
            "header",
            vec![FieldError::new(&["Idempotency-Key"], "Input should be 1 to 255 visible ASCII characters")],
        )),
    }
}

/// What an answer of the queue means to a client: the job and whether it was known already.
///
/// # Errors
/// 409 for a key used for another request, 429 for a bound that was reached.
pub(crate) fn accepted(submitted: Submitted) -> Result<(Job, bool), ApiError> {
    match submitted {
        Submitted::Accepted(job) => Ok((job, false)),
        Submitted::Known(job) => Ok((job, true)),
        Submitted::KeyReused(id) => Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("This Idempotency-Key was used for another request (job {id}); use a new key for a new request"),
        )
        .with("job", id.to_string())),
        Submitted::Full { what, retry_after } => {
            let seconds = retry_after.as_secs().max(1);
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, format!("{what}; try again in {seconds} s"))
                .retry_after(seconds))
        }
        // Upstream's sentence and status, which its clients know.
        Submitted::NoNode { why } => {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("Internal Server Error: {why}")))
        }
    }
}
