//! `POST /v1/similarity`: compares texts with images.

use altclip_encoder::altclip::normalize;
use axum::Json;
use axum::extract::{Request, State as Extract};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::inputs::{check_texts, given_images};
use super::openai::error::ErrorBody;
use crate::body;
use crate::limits::Limits;
use crate::problem::Problem;
use crate::state::Shared;

/// Texts and images to compare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimilarityRequest {
    /// The model; by default the server's first.
    #[serde(default)]
    model: Option<String>,
    #[schema(min_items = 1)]
    texts: Vec<String>,
    /// In base64, or data URIs.
    #[schema(min_items = 1)]
    images: Vec<String>,
}

/// How alike they are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SimilarityAnswer {
    model: String,
    /// Cosines: a row for each text, a column for each image.
    similarity: Vec<Vec<f32>>,
    /// A row for each image, over the texts: the softmax of the cosines times the model's logit
    /// scale; for SigLIP the sigmoid, with its bias, which says whether a text matches.
    probabilities: Vec<Vec<f32>>,
}

/// Compare texts with images.
#[utoipa::path(
    post,
    path = "/v1/similarity",
    request_body = SimilarityRequest,
    responses(
        (status = 200, description = "The cosines", body = SimilarityAnswer),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn similarity(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<SimilarityAnswer>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (SimilarityRequest, _) = body::json(&state, request).await?;
    let queue = state.embedding_model(request.model.as_deref())?;
    let texts = request.texts;
    check_texts(&state, "texts", &texts)?;
    let (images, rooms) = given_images(&state, "images", request.images).await?;
    let tokens = texts.iter().map(String::len).sum::<usize>() + images.len() * Limits::IMAGE_TOKENS;
    let found = queue.call(tokens, deadline, move |embedder| {
        let _rooms = rooms;
        let compare = || {
            let images = normalize(&embedder.embed_images(&images)?)?;
            let texts = normalize(&embedder.embed_texts(&texts)?)?;
            let logits = embedder.similarity(&images, &texts)?;
            let probabilities = embedder.probabilities(&logits)?.to_vec2::<f32>()?;
            Ok((texts.matmul(&images.t()?)?.to_vec2::<f32>()?, probabilities))
        };
        compare().map_err(|error: altclip_encoder::Error| Problem::from(error))
    });
    let (similarity, probabilities) = found.await?;
    Ok(Json(SimilarityAnswer { model: queue.name.clone(), similarity, probabilities }))
}
