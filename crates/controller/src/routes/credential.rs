//! `/credential/vault/...`: secrets looked after through us, in the early API's envelope.
//!
//! Secrets come in by `create` only and go out masked, unless the configuration allows to show
//! passwords. What a request carried is zeroed when it has been answered.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use netpulse_model::api::{
    CredentialCreate, CredentialList, CredentialPath, CredentialPaths, CredentialRead, ErrorBody,
};
use netpulse_model::fields::Fields;
use netpulse_plugin::{CredentialManager, CredentialProvider, Failed, NewSecret, PluginError, SecretValues};
use serde_json::{Map, Value, json};
use zeroize::{Zeroize, Zeroizing};

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::reply;

/// Longest that one request may keep a provider busy.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
/// What stands for a secret here: the early API's own word.
const HIDDEN: &str = "***";
/// Paths in one `batch-read`.
const MOST_PATHS: usize = 100;
/// Paths of it that are read at a time.
const AT_A_TIME: usize = 8;

fn refusal(error: PluginError) -> ApiError {
    let status = match error.kind {
        Failed::BadRequest => StatusCode::BAD_REQUEST,
        Failed::Denied => StatusCode::FORBIDDEN,
        Failed::NotFound => StatusCode::NOT_FOUND,
        Failed::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Failed::Faulty => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiError::new(status, error.message)
}

fn managing(app: &App) -> Result<(&dyn CredentialProvider, &dyn CredentialManager), ApiError> {
    let unavailable = |sentence: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, sentence);
    if !app.credentials.enabled() {
        return Err(unavailable("Credential support is disabled in server configuration"));
    }
    let (provider, manager) = app.credentials.managing().ok_or_else(|| {
        unavailable("No configured credential provider manages secrets: `credential.name` is not vault_kv")
    })?;
    Ok((provider.as_ref(), manager))
}

/// A provider's answer in time.
async fn within<T>(call: impl Future<Output = Result<T, PluginError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(refusal),
        Err(_elapsed) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("The credential provider gave no answer within {} s", PATIENCE.as_secs()),
        )),
    }
}

/// Every text in `value`, zeroed.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        _ => {}
    }
}

/// A body that is zeroed when it has been read.
struct Body(Value);

impl Drop for Body {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl Body {
    async fn of(app: &App, request: Request) -> Result<Self, ApiError> {
        let (parts, raw) = request.into_parts();
        let read = body::read(app, &parts.headers, raw).await?;
        // All of them may be called with nothing to say.
        let value = if read.bytes.is_empty() { Ok(json!({})) } else { body::json(&read.bytes) };
        let bytes: Bytes = read.bytes;
        if let Ok(mut own) = bytes.try_into_mut() {
            own.as_mut().zeroize();
        }
        value.map(Self)
    }

    /// Reads fields; every mistake at once.
    fn fields<T>(&self, read: impl FnOnce(&mut Fields<'_>) -> T) -> Result<T, ApiError> {
        let mut errors = Vec::new();
        let found = Fields::of(&self.0, Vec::new(), &mut errors).map(|mut f| read(&mut f));
        match found {
            Some(found) if errors.is_empty() => Ok(found),
            _ => Err(ApiError::unprocessable("body", errors)),
        }
    }
}

fn path_field(f: &mut Fields<'_>) -> String {
    let path = f.required_string("path");
    if path.trim().is_empty() && !f.has_errors() {
        f.error("path", "value_error", "Input should be the path of a secret");
    }
    path.trim().to_owned()
}

fn done(data: Value) -> Response {
    reply::envelope(StatusCode::OK, "success", data)
}

/// Whether Vault can be reached, is unsealed, and accepts us.
#[utoipa::path(
    post, path = "/credential/vault/test", tag = "credential",
    responses(
        (status = 200, description = "It can; `data` has `success`, `vault_version`, `sealed`, `standby`, `url`, `mount_point`"),
        (status = 403, description = "Vault does not accept our token or AppRole", body = ErrorBody),
        (status = 503, description = "Vault is down or sealed, or credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn test(State(app): State<App>) -> Result<Response, ApiError> {
    let (provider, _) = managing(&app)?;
    Ok(done(Value::Object(within(provider.validate()).await?)))
}

/// Write a secret, or a new version of one.
#[utoipa::path(
    post, path = "/credential/vault/create", tag = "credential",
    request_body(content = CredentialCreate, example = json!({
        "path": "sites/hq/admin", "username": "ops", "password": "s3cret", "metadata": {"owner": "noc"}})),
    responses(
        (status = 200, description = "Written"),
        (status = 403, description = "Not allowed by Vault, or by `credential.allowed_paths`", body = ErrorBody),
        (status = 422, description = "A field is missing or has the wrong type", body = ErrorBody),
        (status = 503, description = "Vault is down or sealed, or credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn create(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (_, manager) = managing(&app)?;
    let body = Body::of(&app, request).await?;
    let secret = body.fields(|f| {
        let path = path_field(f);
        let key = |f: &mut Fields<'_>, name: &str, default: &str| {
            f.string(name).filter(|key| !key.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let username_key = key(f, "username_key", "username");
        let password_key = key(f, "password_key", "password");
        if username_key == password_key {
            f.error("password_key", "value_error", "Input should be another field than `username_key`");
        }
        let mut fields = BTreeMap::new();
        fields.insert(username_key, Zeroizing::new(f.required_string("username")));
        fields.insert(password_key, Zeroizing::new(f.required_string("password")));
        let mut metadata = BTreeMap::new();
        for (name, value) in f.object("metadata").unwrap_or_default() {
            match value {
                Value::String(text) => metadata.insert(name, text),
                Value::Number(_) | Value::Bool(_) => metadata.insert(name, value.to_string()),
                Value::Null => None,
                _ => {
                    f.error("metadata", "value_error", format!("`{name}` should be a text"));
                    None
                }
            };
        }
        NewSecret { path, fields: SecretValues(fields), metadata }
    })?;
    let path = secret.path.clone();
    within(manager.create(secret)).await?;
    tracing::info!(path, "credential written");
    Ok(done(json!({"success": true, "path": path, "message": "Credential created"})))
}

/// What may be shown of a secret.
fn shown(path: &str, fields: &SecretValues, (username, password): (&str, &str), show: bool) -> Value {
    let mut data = Map::new();
    data.insert("path".into(), path.into());
    let name = fields.0.get(username).map(|name| name.to_string());
    data.insert("username".into(), name.into());
    let word = fields.0.get(password).map(|word| if show { word.to_string() } else { HIDDEN.to_owned() });
    data.insert("password".into(), word.into());
    for field in fields.0.keys().filter(|field| ![username, password].contains(&field.as_str())) {
        data.entry(field.clone()).or_insert_with(|| HIDDEN.into());
    }
    Value::Object(data)
}

/// Whether to show a password that is asked for: the configuration has the last word.
fn may_show(app: &App, f: &mut Fields<'_>) -> bool {
    f.boolean("show_password").unwrap_or(false) && app.config.credential.allow_show_password
}

fn names(f: &mut Fields<'_>) -> (String, String) {
    let key = |f: &mut Fields<'_>, name: &str, default: &str| {
        f.string(name).filter(|key| !key.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    (key(f, "username_key", "username"), key(f, "password_key", "password"))
}

/// Look at a secret: the user's name, and everything else masked.
#[utoipa::path(
    post, path = "/credential/vault/read", tag = "credential",
    request_body(content = CredentialRead, example = json!({"path": "sites/hq/admin"})),
    responses(
        (status = 200, description = "`path`, `username`, and each other field as `***`; the password itself with `show_password` where `credential.allow_show_password` is on"),
        (status = 403, description = "Not allowed by Vault, or by `credential.allowed_paths`", body = ErrorBody),
        (status = 404, description = "There is no such secret", body = ErrorBody),
        (status = 503, description = "Vault is down or sealed, or credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn read(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (_, manager) = managing(&app)?;
    let body = Body::of(&app, request).await?;
    let (path, show, names) = body.fields(|f| (path_field(f), may_show(&app, f), names(f)))?;
    let fields = within(manager.read(&path)).await?;
    Ok(done(shown(&path, &fields, (&names.0, &names.1), show)))
}

/// Remove a secret with all its versions.
#[utoipa::path(
    post, path = "/credential/vault/delete", tag = "credential",
    request_body(content = CredentialPath, example = json!({"path": "sites/hq/admin"})),
    responses(
        (status = 200, description = "Removed"),
        (status = 403, description = "Not allowed by Vault, or by `credential.allowed_paths`", body = ErrorBody),
        (status = 404, description = "There is no such secret", body = ErrorBody),
        (status = 503, description = "Vault is down or sealed, or credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn delete(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (_, manager) = managing(&app)?;
    let path = Body::of(&app, request).await?.fields(path_field)?;
    within(manager.delete(&path)).await?;
    tracing::info!(path, "credential deleted");
    Ok(done(json!({"success": true, "path": path, "message": "Credential deleted"})))
}

/// The paths below a prefix; with `recursive` the secrets at any depth.
#[utoipa::path(
    post, path = "/credential/vault/list", tag = "credential",
    request_body(content = CredentialList, example = json!({"path_prefix": "sites", "recursive": true})),
    responses(
        (status = 200, description = "`paths` (folders end in `/`) and their `count`"),
        (status = 403, description = "Not allowed by Vault, or by `credential.allowed_paths`", body = ErrorBody),
        (status = 503, description = "Vault is down or sealed, or credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (_, manager) = managing(&app)?;
    let (prefix, recursive) = Body::of(&app, request)
        .await?
        .fields(|f| (f.string("path_prefix").unwrap_or_default(), f.boolean("recursive").unwrap_or(false)))?;
    let paths = within(manager.list(&prefix, recursive)).await?;
    Ok(done(json!({"count": paths.len(), "paths": paths})))
}

/// What is known about a secret and its versions.
#[utoipa::path(
    post, path = "/credential/vault/metadata", tag = "credential",
    request_body(content = CredentialPath, example = json!({"path": "sites/hq/admin"})),
    responses(
        (status = 200, description = "`path`, `current_version`, `created_time`, `updated_time`, `custom_metadata`, `versions`"),
        (status = 403, description = "Not allowed by Vault, or by `credential.allowed_paths`", body = ErrorBody),
        (status = 404, description = "There is no such secret", body = ErrorBody),
        (status = 503, description = "Vault is down or sealed, or credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn metadata(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (_, manager) = managing(&app)?;
    let path = Body::of(&app, request).await?.fields(path_field)?;
    let mut known = within(manager.metadata(&path)).await?;
    let mut data = Map::new();
    data.insert("path".into(), path.into());
    for key in ["current_version", "created_time", "updated_time", "custom_metadata", "versions"] {
        data.insert(key.into(), known.shift_remove(key).unwrap_or_default());
    }
    Ok(done(Value::Object(data)))
}

/// Look at many secrets; one that cannot be read is listed in `failed`.
#[utoipa::path(
    post, path = "/credential/vault/batch-read", tag = "credential",
    request_body(content = CredentialPaths, example = json!({"paths": ["sites/hq/admin", "nope"]})),
    responses(
        (status = 200, description = "`succeeded`, `failed`, `total`, `success_count`, `failed_count`"),
        (status = 422, description = "No path, or more than 100", body = ErrorBody),
        (status = 503, description = "Credentials are off", body = ErrorBody),
    )
)]
pub(crate) async fn batch_read(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (_, manager) = managing(&app)?;
    let body = Body::of(&app, request).await?;
    let (paths, show, names) = body.fields(|f| {
        let given = f.list("paths").map(Vec::as_slice).unwrap_or_default();
        let paths: Vec<String> =
            given.iter().filter_map(|path| Some(path.as_str()?.trim().to_owned())).collect();
        if f.get("paths").is_none() {
            f.missing("paths");
        } else if paths.len() != given.len() || !(1..=MOST_PATHS).contains(&given.len()) {
            f.error("paths", "value_error", format!("Input should be 1 to {MOST_PATHS} paths of secrets"));
        }
        (paths, may_show(&app, f), names(f))
    })?;
    let mut reads = Vec::with_capacity(paths.len());
    for path in &paths {
        reads.push(async move { (path, within(manager.read(path)).await) });
    }
    let answers: Vec<_> = futures_util::stream::iter(reads).buffered(AT_A_TIME).collect().await;
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for (path, answer) in answers {
        match answer {
            Ok(fields) => succeeded.push(shown(path, &fields, (&names.0, &names.1), show)),
            Err(error) => failed.push(json!({"path": path, "error": error.sentence()})),
        }
    }
    let counts = (paths.len(), succeeded.len(), failed.len());
    Ok(done(json!({"succeeded": succeeded, "failed": failed, "total": counts.0, "success_count": counts.1,
        "failed_count": counts.2})))
}
