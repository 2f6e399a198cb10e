//! Paths that the API has but this version does not serve: a sentence each, never a 404.

use axum::http::StatusCode;

use crate::error::ApiError;

/// `/detached-tasks...`
pub(crate) async fn detached() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "Detached tasks are not available in this version; run the command as a job and follow GET /jobs/{id}/events",
    )
}

/// `/storage/fetch/...`
pub(crate) async fn storage() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "File transfer is not available in this version; there is nothing to fetch",
    )
}
