//! `/controlnet`: lists what the units of the ControlNet extension can name, under the extension's own paths.

use axum::Json;
use axum::extract::State as Extract;
use serde_json::{Value, json};

use crate::state::Shared;

/// What the paths of the extension begin with.
pub(super) const PREFIX: &str = "/controlnet/";

/// The version of the extension's interface that clients compare with.
const VERSION: usize = 3;
/// The preprocessor that follows an image as it is.
const MODULE: &str = "none";
/// As many units as the extension shows by default; a request may have more.
const UNITS: usize = 3;

/// Say which version of the extension's interface this is.
#[utoipa::path(get, path = "/controlnet/version", responses((status = 200, description = "The version", body = Object)))]
pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": VERSION }))
}

/// List the ControlNets; the folder is read at each request.
#[utoipa::path(get, path = "/controlnet/model_list", responses((status = 200, description = "ControlNets", body = Object)))]
pub(crate) async fn model_list(Extract(state): Extract<Shared>) -> Json<Value> {
    Json(json!({ "model_list": state.folders.controlnet_names() }))
}

/// List the preprocessors: none.
#[utoipa::path(get, path = "/controlnet/module_list", responses((status = 200, description = "Preprocessors", body = Object)))]
pub(crate) async fn module_list() -> Json<Value> {
    let detail = json!({ "model_free": false, "sliders": [] });
    Json(json!({ "module_list": [MODULE], "module_detail": { MODULE: detail } }))
}

/// List preprocessors and ControlNets by their kind: all are of one.
#[utoipa::path(get, path = "/controlnet/control_types", responses((status = 200, description = "Kinds", body = Object)))]
pub(crate) async fn control_types(Extract(state): Extract<Shared>) -> Json<Value> {
    let names = state.folders.controlnet_names();
    let models: Vec<&str> = std::iter::once("None").chain(names.iter().map(String::as_str)).collect();
    let all = json!({
        "module_list": [MODULE], "model_list": models, "default_option": MODULE, "default_model": "None",
    });
    Json(json!({ "control_types": { "All": all } }))
}

/// Say how many units clients should offer.
#[utoipa::path(get, path = "/controlnet/settings", responses((status = 200, description = "Settings", body = Object)))]
pub(crate) async fn settings() -> Json<Value> {
    Json(json!({ "control_net_unit_count": UNITS }))
}
