//! `/sdapi/v1/options`: chooses the model of later requests, and the layers that they skip.

use axum::Json;
use axum::extract::{Request, State as Extract};
use serde_json::{Map, Value, json};

use super::problem::WebuiProblem;
use super::request::{CHECKPOINT, LAST_LAYERS, model_name, skipped_layers};
use crate::body;
use crate::problem::Problem;
use crate::state::Shared;

/// Say what is chosen.
#[utoipa::path(get, path = "/sdapi/v1/options", responses((status = 200, description = "Settings", body = Object)))]
pub(crate) async fn options(Extract(state): Extract<Shared>) -> Json<Value> {
    let first = || state.drawing.first().map(|queue| queue.model.name.clone());
    let chosen = state.webui();
    let (model, layers) = (chosen.model.or_else(first), chosen.clip_skip + 1);
    Json(json!({ CHECKPOINT: model, LAST_LAYERS: layers, "sd_vae": "Automatic", "samples_format": "png" }))
}

/// Choose the model of requests that name none, and the layers that they skip. Other settings are accepted, and change
/// nothing.
#[utoipa::path(
    post,
    path = "/sdapi/v1/options",
    request_body = Object,
    responses(
        (status = 200, description = "Done"),
        (status = "4XX", description = "No such model, or not a number of layers", body = WebuiProblem),
    )
)]
pub(crate) async fn set_options(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (settings, _room): (Map<String, Value>, _) = body::json(&state, request).await?;
    let model = match settings.get(CHECKPOINT) {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(state.image_model(Some(model_name(name)))?.model.name.clone()),
        Some(_) => return Err(Problem::field(CHECKPOINT, "expected a model's name")),
    };
    let clip_skip = skipped_layers(&settings, LAST_LAYERS)?;
    state.change_webui(|chosen| {
        if model.is_some() {
            chosen.model = model;
        }
        chosen.clip_skip = clip_skip.unwrap_or(chosen.clip_skip);
    });
    Ok(Json(Value::Null))
}
