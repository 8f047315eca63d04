//! `GET /v1/models`: lists what the server offers.

use altdiffusion_pipeline::schedulers::SchedulerKind;
use axum::Json;
use axum::extract::State as Extract;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ErrorBody;
use crate::api::path_parameters::{PathOf, path_of};
use crate::drawing::DrawingQueue;
use crate::embedding::EmbeddingQueue;
use crate::problem::Problem;
use crate::state::{Shared, State};

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// `images`, `hidden_states` or `embeddings`.
    capabilities: Vec<&'static str>,
    loaded: bool,
    /// What requests for images get if they do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    defaults: Option<Defaults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedulers: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loras: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    controlnets: Option<Vec<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Defaults {
    steps: usize,
    guidance_scale: f64,
    /// What the model draws, before it is enlarged. Known once the model was loaded.
    width: Option<usize>,
    height: Option<usize>,
    /// How many times the sides of images are enlarged.
    scale: usize,
}

impl Model {
    fn of_images(state: &State, queue: &DrawingQueue) -> Self {
        let mut capabilities = vec!["images"];
        if queue.model.prompt_encoder.is_some() {
            capabilities.push("hidden_states");
        }
        let size = queue.status.default_size.get();
        Self {
            id: queue.model.name.clone(),
            object: "model",
            created: 0,
            owned_by: "altdiffusion",
            capabilities,
            loaded: queue.stage().is_loaded(),
            defaults: Some(Defaults {
                steps: queue.model.steps,
                guidance_scale: queue.model.guidance_scale,
                width: size.map(|size| size.0),
                height: size.map(|size| size.1),
                scale: queue.model.scale,
            }),
            schedulers: Some(SchedulerKind::ALL.into_iter().map(SchedulerKind::name).collect()),
            loras: Some(state.folders.lora_names()),
            controlnets: Some(state.folders.controlnet_names()),
        }
    }

    fn of_embeddings(queue: &EmbeddingQueue) -> Self {
        Self {
            id: queue.name.clone(),
            object: "model",
            created: 0,
            owned_by: "altdiffusion",
            capabilities: vec!["embeddings"],
            loaded: queue.stage().is_loaded(),
            defaults: None,
            schedulers: None,
            loras: None,
            controlnets: None,
        }
    }
}

fn all(state: &State) -> Vec<Model> {
    let mut models: Vec<Model> = state.drawing.iter().map(|queue| Model::of_images(state, queue)).collect();
    for queue in &state.embedding {
        match models.iter_mut().find(|model| model.id == queue.name) {
            Some(model) => model.capabilities.push("embeddings"),
            None => models.push(Model::of_embeddings(queue)),
        }
    }
    models
}

/// List the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses((status = 200, description = "The models", body = ModelList))
)]
pub(crate) async fn models(Extract(state): Extract<Shared>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: all(&state) })
}

/// Describe a model.
#[utoipa::path(
    get,
    path = "/v1/models/{*id}",
    params(("id" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 404, description = "No such model", body = ErrorBody),
    )
)]
pub(crate) async fn model(
    Extract(state): Extract<Shared>,
    path: PathOf<String>,
) -> Result<Json<Model>, Problem> {
    let id = path_of(path)?;
    let found = all(&state).into_iter().find(|model| model.id == id);
    found.map(Json).ok_or_else(|| {
        let problem = Problem::not_found(format!("no model {id:?} here; /v1/models lists them"));
        Problem { field: Some("model".to_owned()), ..problem }
    })
}
