//! `/plugins...`: what is built in, what was found in folders, and how it is doing.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use netpulse_model::api::{ErrorBody, PluginInfo};
use netpulse_plugin::{Kind, PluginHandle, Source};

use crate::app::App;
use crate::error::ApiError;
use crate::reply;

/// List plugins of every kind: built in and external.
///
/// The first call looks into the plugin folders.
#[utoipa::path(
    get, path = "/plugins", tag = "plugins",
    responses((status = 200, description = "The plugins, by kind and name", body = [PluginInfo], example = json!([{
        "kind": "driver", "name": "acme", "id": "example.org/driver/acme/v1", "version": "0.2.0",
        "description": "Acme CLI driver", "source": "external", "path": "/var/lib/netpulse/plugins/acme",
        "state": "started", "error": null, "features": ["config", "stream"], "starts": 1}])))
)]
pub(crate) async fn list(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &shown(app.drivers.plugins().list().await)))
}

/// Show the plugins of a kind and name: the one that counts first, then those that it stands before.
#[utoipa::path(
    get, path = "/plugins/{kind}/{name}", tag = "plugins",
    params(
        ("kind" = String, Path, description = "`driver`, `template-renderer`, `template-parser`, `scheduler`, `webhook`, `credential`, ..."),
        ("name" = String, Path, description = "The name that requests use"),
    ),
    responses(
        (status = 200, description = "The plugins of that name", body = [PluginInfo]),
        (status = 400, description = "No such kind", body = ErrorBody),
        (status = 404, description = "No such plugin", body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(app): State<App>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Response, ApiError> {
    let Path((kind, name)) = path.map_err(|_| ApiError::bad("The path is not valid UTF-8"))?;
    let kind: Kind =
        kind.parse().map_err(|e: netpulse_model::plugin::NoKind| ApiError::bad(e.to_string()))?;
    let found = app.drivers.plugins().info(kind, &name).await;
    if found.is_empty() {
        return Err(ApiError::missing(format!("Plugin {kind}/{name} not found")));
    }
    Ok(reply::json(StatusCode::OK, &shown(found)))
}

/// Look into the plugin folders again.
///
/// Running jobs keep the plugin that they were given; one whose file changed or is gone ends when
/// its last session does.
#[utoipa::path(
    post, path = "/plugins/reload", tag = "plugins",
    responses((status = 200, description = "The plugins as they now are", body = [PluginInfo]))
)]
pub(crate) async fn reload(State(app): State<App>) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &shown(app.drivers.plugins().reload().await)))
}

fn shown(handles: Vec<PluginHandle>) -> Vec<PluginInfo> {
    handles.into_iter().map(info).collect()
}

fn info(handle: PluginHandle) -> PluginInfo {
    PluginInfo {
        kind: handle.kind.map(|kind| kind.to_string()),
        name: handle.name,
        id: handle.id,
        version: handle.version,
        description: handle.description,
        source: match handle.source {
            Source::BuiltIn => "built-in",
            Source::External => "external",
        }
        .to_owned(),
        path: handle.path.map(|path| path.display().to_string()),
        state: handle.state.as_str().to_owned(),
        error: handle.error,
        features: handle.features,
        starts: handle.starts,
    }
}
