//! The early API's own paths: today's answers in its envelope.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use netpulse_model::api::JobInResponse;
use serde_json::{Value, json};

use super::{device, jobs, workers};
use crate::app::App;
use crate::error::ApiError;
use crate::query::Params;
use crate::reply;

fn data<T: serde::Serialize>(body: &T) -> Result<Value, ApiError> {
    serde_json::to_value(body).map_err(ApiError::internal)
}

/// `GET /job`: always a list; `id` wins over the other filters.
pub(crate) async fn jobs(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::of(&uri);
    let found = if let Some(id) = params.get("id") {
        let job = app.store(app.queue.job(jobs::known_id(id)?)).await?.ok_or_else(|| jobs::not_found(id))?;
        vec![job]
    } else {
        let mut query = jobs::filter(&params)?;
        query.limit = 1000;
        app.store(app.queue.list(&query)).await?.jobs
    };
    let list: Vec<JobInResponse> = found.into_iter().map(JobInResponse::from).collect();
    Ok(reply::envelope(StatusCode::OK, "success", data(&list)?))
}

/// `DELETE /job`: the ids that were canceled.
pub(crate) async fn cancel(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::of(&uri);
    let ids = match params.get("id") {
        Some(id) => vec![jobs::cancel_one(&app, id).await?.id],
        None => jobs::cancel_matching(&app, &params).await?,
    };
    Ok(reply::envelope(StatusCode::OK, "success", data(&ids)?))
}

/// `GET /worker`.
pub(crate) async fn workers(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let list = workers::matching(&app, &Params::of(&uri)).await?;
    Ok(reply::envelope(StatusCode::OK, "success", data(&list)?))
}

/// `DELETE /worker`: the names of those asked to end.
pub(crate) async fn stop_workers(State(app): State<App>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::of(&uri);
    let names = match params.get("name") {
        Some(name) => {
            workers::stop_one(&app, name).await?;
            vec![name.to_owned()]
        }
        None => workers::stop_matching(&app, &params).await?,
    };
    Ok(reply::envelope(StatusCode::OK, "success", data(&names)?))
}

/// `POST /device/test-connection`: today's test under the early names.
pub(crate) async fn test_connection(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let seen = device::run_test(&app, request).await?;
    let message = if seen.success { "Connection test completed" } else { "Connection test failed" };
    let device_info = seen.result.as_ref().map(|result| {
        let pick = |key: &str| result.get(key).cloned().unwrap_or(Value::Null);
        json!({"prompt": pick("prompt"), "device_type": pick("device_type"), "host": pick("host")})
    });
    let data = json!({
        "success": seen.success,
        "connection_time": seen.latency,
        "error_message": seen.error,
        "device_info": device_info,
        "timestamp": seen.timestamp,
    });
    Ok(reply::envelope(StatusCode::OK, message, data))
}
