//! `POST /embed`: embeds texts and images in the interface of text-embeddings-inference.

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::openai::embeddings::{Inputs, inputs};
use crate::body;
use crate::problem::Problem;
use crate::state::Shared;
use crate::whole_number::whole_number;

/// The path of its requests.
pub(super) const EMBED: &str = "/embed";

/// A request for vectors of the server's first embedding model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedRequest {
    inputs: Inputs,
    /// Whether vectors have length 1.
    #[serde(default)]
    normalize: Option<bool>,
    /// Must be the dimension of the model's vectors: these models are not trained to be cut.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Whether texts are cut to the model's length; those that are longer fail if it is false.
    #[serde(default)]
    truncate: Option<bool>,
    /// Texts are cut on the right.
    #[serde(default)]
    truncation_direction: Option<String>,
    /// Must be missing: these models have no prompts for tasks.
    #[serde(default)]
    prompt_name: Option<String>,
}

/// A problem, in the form of text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedProblem {
    /// One line.
    error: String,
    error_type: &'static str,
}

pub(super) fn problem_response(problem: &Problem) -> Response {
    let error_type = match problem.status {
        StatusCode::TOO_MANY_REQUESTS => "Overloaded",
        StatusCode::SERVICE_UNAVAILABLE => "Unhealthy",
        status if status.is_client_error() => "Validation",
        _ => "Backend",
    };
    Json(EmbedProblem { error: problem.message.clone(), error_type }).into_response()
}

/// Embed texts and images.
#[utoipa::path(
    post,
    path = "/embed",
    request_body = EmbedRequest,
    responses(
        (status = 200, description = "A vector for each input", body = Vec<Vec<f32>>),
        (status = "4XX", description = "The request cannot be answered", body = EmbedProblem),
        (status = "5XX", description = "The server failed", body = EmbedProblem),
    )
)]
pub(crate) async fn embed(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<Vec<Vec<f32>>>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (EmbedRequest, _) = body::json(&state, request).await?;
    if let Some(direction) = request.truncation_direction.filter(|from| !from.eq_ignore_ascii_case("right")) {
        return Err(Problem::field("truncation_direction", format!("{direction:?}, expected Right")));
    }
    if let Some(name) = request.prompt_name {
        let problem = format!("{name:?}, expected none: the models here have no prompts for tasks");
        return Err(Problem::field("prompt_name", problem));
    }
    let queue = state.embedding_model(None)?;
    let inputs = inputs(&state, request.inputs, None, request.truncate.unwrap_or(true)).await?;
    let mut vectors = queue.embed(inputs, deadline).await?;
    vectors.check_dim(request.dimensions)?;
    if request.normalize.unwrap_or(true) {
        vectors.normalize();
    }
    Ok(Json(vectors.rows().map(<[f32]>::to_vec).collect()))
}
