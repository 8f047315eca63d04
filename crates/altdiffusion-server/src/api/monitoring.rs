//! Says whether the server is alive and ready, and serves its metrics and its description.

use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::openai::error::ErrorBody;
use crate::problem::Problem;
use crate::state::{Shared, State};

/// The media type of metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    /// Whether no model is being loaded, so that requests are answered at once.
    ready: bool,
    version: &'static str,
}

/// Say that the server is alive.
#[utoipa::path(get, path = "/health", responses((status = 200, description = "It is alive", body = Health)))]
pub(crate) async fn health(Extract(state): Extract<Shared>) -> Json<Health> {
    Json(Health { status: "ok", ready: is_ready(&state), version: env!("CARGO_PKG_VERSION") })
}

/// Say whether requests are answered at once.
#[utoipa::path(
    get,
    path = "/ready",
    responses(
        (status = 200, description = "They are", body = Health),
        (status = 503, description = "A model is being loaded", body = ErrorBody),
    )
)]
pub(crate) async fn ready(Extract(state): Extract<Shared>) -> Result<Json<Health>, Problem> {
    match is_ready(&state) {
        true => Ok(health(Extract(state)).await),
        false => Err(Problem::loading()),
    }
}

fn is_ready(state: &State) -> bool {
    let images = state.drawing.iter().map(|queue| queue.stage());
    let prompts = state.prompts.values().map(|queue| queue.stage());
    let stages = images.chain(prompts).chain(state.embedding.iter().map(|queue| queue.stage()));
    !stages.into_iter().any(|stage| stage.is_loading())
}

/// Count what the server does, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "A key is needed", body = ErrorBody),
    )
)]
pub(crate) async fn metrics(Extract(state): Extract<Shared>) -> Response {
    for queue in &state.drawing {
        state.metrics.set_queue_length("images", &queue.model.name, queue.length());
    }
    for queue in &state.embedding {
        state.metrics.set_queue_length("tokens", &queue.name, queue.length());
    }
    for (name, queue) in &state.prompts {
        state.metrics.set_queue_length("prompts", name, queue.length());
    }
    ([(header::CONTENT_TYPE, OPEN_METRICS)], state.metrics.text()).into_response()
}

/// The interface in OpenAPI's format, as JSON.
#[derive(Clone)]
pub(super) struct OpenApiDocument(pub(super) String);

pub(super) fn openapi_route(document: OpenApiDocument) -> Router<Shared> {
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], document.0) };
    Router::new().route("/openapi.json", get(answer))
}
