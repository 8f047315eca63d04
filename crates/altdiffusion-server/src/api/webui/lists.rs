//! Lists what clients offer to choose from.

use std::collections::BTreeMap;
use std::sync::Arc;

use altdiffusion_pipeline::schedulers::{SchedulerKind, SigmaSpacing};
use axum::Json;
use axum::extract::State as Extract;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::drawing::AdapterFolders;
use crate::problem::Problem;
use crate::state::Shared;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebuiModel {
    title: String,
    model_name: String,
    hash: Option<String>,
    sha256: Option<String>,
    filename: String,
    config: Option<String>,
}

/// List the diffusion models.
#[utoipa::path(get, path = "/sdapi/v1/sd-models", responses((status = 200, description = "Models", body = Vec<WebuiModel>)))]
pub(crate) async fn sd_models(Extract(state): Extract<Shared>) -> Json<Vec<WebuiModel>> {
    let models = state.drawing.iter().map(|queue| {
        let name = queue.model.name.clone();
        let (hash, sha256, config) = (None, None, None);
        WebuiModel { title: name.clone(), model_name: name.clone(), hash, sha256, filename: name, config }
    });
    Json(models.collect())
}

/// Look for new models; there are none, since a server's models are its options.
#[utoipa::path(post, path = "/sdapi/v1/refresh-checkpoints", responses((status = 200, description = "Done")))]
pub(crate) async fn refresh_checkpoints() -> Json<()> {
    Json(())
}

/// A sampler.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebuiSampler {
    name: &'static str,
    aliases: Vec<&'static str>,
    #[schema(value_type = Object)]
    options: Map<String, Value>,
}

/// List the samplers.
#[utoipa::path(get, path = "/sdapi/v1/samplers", responses((status = 200, description = "Samplers", body = Vec<WebuiSampler>)))]
pub(crate) async fn samplers() -> Json<Vec<WebuiSampler>> {
    let samplers = SchedulerKind::ALL.into_iter().map(|kind| WebuiSampler {
        name: kind.sampler_name(),
        aliases: vec![kind.name(), kind.class_name()],
        options: Map::new(),
    });
    Json(samplers.collect())
}

/// A spacing of noise levels.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebuiScheduler {
    name: String,
    label: String,
    aliases: Option<Vec<String>>,
    default_rho: f64,
    need_inner_model: bool,
}

/// List the spacings of noise levels.
#[utoipa::path(get, path = "/sdapi/v1/schedulers", responses((status = 200, description = "Schedulers", body = Vec<WebuiScheduler>)))]
pub(crate) async fn schedulers() -> Json<Vec<WebuiScheduler>> {
    let spacings = SigmaSpacing::ALL.into_iter().filter(|spacing| *spacing != SigmaSpacing::Timesteps);
    let names = std::iter::once("automatic").chain(spacings.map(SigmaSpacing::name));
    let schedulers = names.map(|name| {
        let mut letters = name.chars();
        let label =
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default();
        let (aliases, default_rho) = (None, if name == "karras" { 7.0 } else { -1.0 });
        WebuiScheduler { name: name.to_owned(), label, aliases, default_rho, need_inner_model: false }
    });
    Json(schedulers.collect())
}

/// A LoRA.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebuiLora {
    name: String,
    alias: String,
    path: String,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

/// List the LoRAs.
#[utoipa::path(get, path = "/sdapi/v1/loras", responses((status = 200, description = "LoRAs", body = Vec<WebuiLora>)))]
pub(crate) async fn loras(Extract(state): Extract<Shared>) -> Json<Vec<WebuiLora>> {
    let loras = state.folders.lora_names().into_iter();
    let loras =
        loras.map(|name| WebuiLora { alias: name.clone(), path: name.clone(), name, metadata: Map::new() });
    Json(loras.collect())
}

/// Look for new LoRAs; the folder is read at each request.
#[utoipa::path(post, path = "/sdapi/v1/refresh-loras", responses((status = 200, description = "Done")))]
pub(crate) async fn refresh_loras() -> Json<()> {
    Json(())
}

/// Textual inversions by their words.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct WebuiEmbeddings {
    loaded: BTreeMap<String, WebuiEmbedding>,
    /// Those of another text encoder than the model's.
    skipped: BTreeMap<String, WebuiEmbedding>,
}

/// A textual inversion.
#[derive(Debug, Serialize, ToSchema)]
struct WebuiEmbedding {
    step: Option<usize>,
    sd_checkpoint: Option<String>,
    sd_checkpoint_name: Option<String>,
    /// The length of a vector.
    shape: usize,
    /// Their number.
    vectors: usize,
}

/// List textual inversions. Before the model is loaded, all count as loaded.
#[utoipa::path(get, path = "/sdapi/v1/embeddings", responses((status = 200, description = "Embeddings", body = WebuiEmbeddings)))]
pub(crate) async fn embeddings(Extract(state): Extract<Shared>) -> Result<Json<WebuiEmbeddings>, Problem> {
    let chosen = state.image_model(state.webui().model.as_deref()).ok();
    let width = chosen.and_then(|queue| queue.status.word_width.get().copied());
    let folders = Arc::clone(&state.folders);
    let list = move || embeddings_of(&folders, width);
    tokio::task::spawn_blocking(list).await.map(Json).map_err(|_| Problem::failed())
}

/// The textual inversions of a folder, for a text encoder whose words have vectors of `width`, if that is known. Files
/// that cannot be read are left out.
fn embeddings_of(folders: &AdapterFolders, width: Option<usize>) -> WebuiEmbeddings {
    let mut found = WebuiEmbeddings::default();
    for word in folders.words() {
        let Ok(learned) = folders.word(&word) else { continue };
        let &[vectors, shape] = learned.vectors().dims() else { continue };
        let (step, sd_checkpoint, sd_checkpoint_name) = (None, None, None);
        let embedding = WebuiEmbedding { step, sd_checkpoint, sd_checkpoint_name, shape, vectors };
        let fits = width.is_none_or(|width| width == shape);
        if fits { &mut found.loaded } else { &mut found.skipped }.insert(word, embedding);
    }
    found
}

/// Look for new textual inversions; the folder is read at each request.
#[utoipa::path(post, path = "/sdapi/v1/refresh-embeddings", responses((status = 200, description = "Done")))]
pub(crate) async fn refresh_embeddings() -> Json<()> {
    Json(())
}

/// List upscalers: none.
#[utoipa::path(get, path = "/sdapi/v1/upscalers", responses((status = 200, description = "Upscalers", body = Vec<Object>)))]
pub(crate) async fn upscalers() -> Json<Value> {
    let none =
        json!({ "name": "None", "model_name": null, "model_path": null, "model_url": null, "scale": 1 });
    Json(json!([none]))
}

/// List upscalers of latents: none.
#[utoipa::path(get, path = "/sdapi/v1/latent-upscale-modes", responses((status = 200, description = "Modes", body = Vec<Object>)))]
pub(crate) async fn latent_upscale_modes() -> Json<Value> {
    Json(json!([]))
}

/// List autoencoders: each model has its own.
#[utoipa::path(get, path = "/sdapi/v1/sd-vae", responses((status = 200, description = "Autoencoders", body = Vec<Object>)))]
pub(crate) async fn sd_vae() -> Json<Value> {
    Json(json!([]))
}

/// List styles: none.
#[utoipa::path(get, path = "/sdapi/v1/prompt-styles", responses((status = 200, description = "Styles", body = Vec<Object>)))]
pub(crate) async fn prompt_styles() -> Json<Value> {
    Json(json!([]))
}

/// List hypernetworks: none.
#[utoipa::path(get, path = "/sdapi/v1/hypernetworks", responses((status = 200, description = "Hypernetworks", body = Vec<Object>)))]
pub(crate) async fn hypernetworks() -> Json<Value> {
    Json(json!([]))
}

/// List models that restore faces: none.
#[utoipa::path(get, path = "/sdapi/v1/face-restorers", responses((status = 200, description = "Models", body = Vec<Object>)))]
pub(crate) async fn face_restorers() -> Json<Value> {
    Json(json!([]))
}

/// List Real-ESRGAN's models: none.
#[utoipa::path(get, path = "/sdapi/v1/realesrgan-models", responses((status = 200, description = "Models", body = Vec<Object>)))]
pub(crate) async fn realesrgan_models() -> Json<Value> {
    Json(json!([]))
}

/// List scripts: `controlnet`, if the server has a folder of ControlNets.
#[utoipa::path(get, path = "/sdapi/v1/scripts", responses((status = 200, description = "Scripts", body = Object)))]
pub(crate) async fn scripts(Extract(state): Extract<Shared>) -> Json<Value> {
    let names = Vec::from_iter(state.folders.controlnets.is_some().then_some("controlnet"));
    Json(json!({ "txt2img": names, "img2img": names }))
}

/// Describe the arguments of scripts: ControlNet's units have names instead.
#[utoipa::path(get, path = "/sdapi/v1/script-info", responses((status = 200, description = "Arguments", body = Vec<Object>)))]
pub(crate) async fn script_info() -> Json<Value> {
    Json(json!([]))
}

/// List extensions: none.
#[utoipa::path(get, path = "/sdapi/v1/extensions", responses((status = 200, description = "Extensions", body = Vec<Object>)))]
pub(crate) async fn extensions() -> Json<Value> {
    Json(json!([]))
}

/// Say how the server was started: some clients look whether it has this path.
#[utoipa::path(get, path = "/sdapi/v1/cmd-flags", responses((status = 200, description = "Flags", body = Object)))]
pub(crate) async fn cmd_flags() -> Json<Value> {
    Json(json!({ "api": true }))
}
