//! `/sdapi/v1/options`: chooses the model of later requests.

use std::sync::PoisonError;

use axum::Json;
use axum::extract::{Request, State as Extract};
use serde_json::{Map, Value, json};

use super::problem::WebuiProblem;
use super::request::{CHECKPOINT, LAST_LAYERS, model_name};
use crate::body;
use crate::problem::Problem;
use crate::state::Shared;

/// Say which model is chosen.
#[utoipa::path(get, path = "/sdapi/v1/options", responses((status = 200, description = "Settings", body = Object)))]
pub(crate) async fn options(Extract(state): Extract<Shared>) -> Json<Value> {
    let first = || state.drawing.first().map(|queue| queue.model.name.clone());
    let model = state.webui_model().or_else(first);
    Json(json!({ CHECKPOINT: model, LAST_LAYERS: 1, "sd_vae": "Automatic", "samples_format": "png" }))
}

/// Choose the model of requests that name none. Other settings are accepted, and change nothing.
#[utoipa::path(
    post,
    path = "/sdapi/v1/options",
    request_body = Object,
    responses(
        (status = 200, description = "Done"),
        (status = "4XX", description = "No such model", body = WebuiProblem),
    )
)]
pub(crate) async fn set_options(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (settings, _room): (Map<String, Value>, _) = body::json(&state, request).await?;
    match settings.get(CHECKPOINT) {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) => {
            let name = state.image_model(Some(model_name(name)))?.model.name.clone();
            *state.webui_model.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
        }
        Some(_) => return Err(Problem::field(CHECKPOINT, "expected a model's name")),
    }
    Ok(Json(Value::Null))
}
