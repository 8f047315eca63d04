//! `/api/embed`, and what its clients ask for around it: embeds texts in the interface of Ollama.

use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::inputs::{check_count, check_text};
use crate::body;
use crate::embedding::Input;
use crate::problem::Problem;
use crate::state::Shared;
use crate::whole_number::whole_number;

/// What its paths begin with.
pub(super) const PREFIX: &str = "/api/";

/// The tag of models that have no other.
const TAG: &str = ":latest";

/// What clients read as a time and as a hash, where there is neither.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A request for vectors.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OllamaRequest {
    /// The model, with or without `:latest`.
    model: String,
    #[serde(default)]
    input: Option<OllamaTexts>,
    /// Whether texts are cut to the model's length; those that are longer fail if it is false.
    #[serde(default)]
    truncate: Option<bool>,
    /// Must be the dimension of the model's vectors, or 0: these models are not trained to be cut.
    #[serde(default, deserialize_with = "whole_number")]
    dimensions: Option<usize>,
    /// Ignored, as is the field after it: these models have none.
    #[serde(default)]
    #[allow(dead_code, reason = "clients send it")]
    options: Option<Value>,
    #[serde(default)]
    #[allow(dead_code, reason = "clients send it")]
    keep_alive: Option<Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OllamaTexts {
    Text(String),
    Texts(Vec<String>),
}

/// Vectors of length 1.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaVectors {
    /// As the request named it.
    model: String,
    embeddings: Vec<Vec<f32>>,
    /// In nanoseconds.
    total_duration: u64,
    load_duration: u64,
    /// The texts' tokens.
    prompt_eval_count: usize,
}

/// A problem, in Ollama's form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaProblem {
    /// One line.
    error: String,
}

pub(super) fn problem_response(problem: &Problem) -> Response {
    Json(OllamaProblem { error: problem.message.clone() }).into_response()
}

/// Embed texts.
#[utoipa::path(
    post,
    path = "/api/embed",
    request_body = OllamaRequest,
    responses(
        (status = 200, description = "A vector for each text", body = OllamaVectors),
        (status = "4XX", description = "The request cannot be answered", body = OllamaProblem),
        (status = "5XX", description = "The server failed", body = OllamaProblem),
    )
)]
pub(crate) async fn api_embed(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<OllamaVectors>, Problem> {
    let start = Instant::now();
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (OllamaRequest, _) = body::json(&state, request).await?;
    let name = request.model.strip_suffix(TAG).unwrap_or(&request.model);
    let queue = state.embedding_model(Some(name))?;
    let texts = match request.input {
        // Says nothing, as there.
        None => Vec::new(),
        Some(OllamaTexts::Text(text)) if text.is_empty() => Vec::new(),
        Some(OllamaTexts::Text(text)) => vec![text],
        Some(OllamaTexts::Texts(texts)) => texts,
    };
    let cuts = request.truncate.unwrap_or(true);
    let mut answer = OllamaVectors {
        model: request.model.clone(),
        embeddings: Vec::new(),
        total_duration: 0,
        load_duration: 0,
        prompt_eval_count: 0,
    };
    if !texts.is_empty() {
        check_count(&state, "input", texts.len())?;
        for (index, text) in texts.iter().enumerate() {
            check_text(&state, &format!("input[{index}]"), text)?;
        }
        let input = |text| if cuts { Input::Text(text) } else { Input::WholeText(text) };
        let mut vectors = queue.embed(texts.into_iter().map(input).collect(), deadline).await?;
        vectors.check_dim(request.dimensions.filter(|dimensions| *dimensions > 0))?;
        vectors.normalize();
        answer.embeddings = vectors.rows().map(<[f32]>::to_vec).collect();
        answer.prompt_eval_count = vectors.tokens;
    }
    answer.total_duration = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(Json(answer))
}

/// List the models for embeddings, in Ollama's form.
#[utoipa::path(get, path = "/api/tags", responses((status = 200, description = "Models", body = Object)))]
pub(crate) async fn api_tags(Extract(state): Extract<Shared>) -> Json<Value> {
    let models = state.embedding.iter().map(|queue| {
        let name = format!("{}{TAG}", queue.name);
        let details = json!({
            "parent_model": "", "format": "", "family": "", "families": null, "parameter_size": "",
            "quantization_level": "",
        });
        json!({
            "name": name, "model": name, "modified_at": NO_TIME, "size": 0, "digest": NO_DIGEST, "details": details,
        })
    });
    let models: Vec<Value> = models.collect();
    Json(json!({ "models": models }))
}

/// Say which version of this server answers.
#[utoipa::path(get, path = "/api/version", responses((status = 200, description = "The version", body = Object)))]
pub(crate) async fn api_version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}
