//! `POST /v1/classify`: labels images.

use altclip_encoder::embedder::LABEL_PLACE;
use axum::Json;
use axum::extract::{Request, State as Extract};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::inputs::{check_count, check_texts, given_images};
use super::openai::error::ErrorBody;
use crate::body;
use crate::limits::Limits;
use crate::problem::Problem;
use crate::state::Shared;

/// Images, and the labels to choose from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyRequest {
    /// The model; by default the server's first.
    #[serde(default)]
    model: Option<String>,
    /// In base64, or data URIs.
    #[schema(min_items = 1)]
    images: Vec<String>,
    #[schema(min_items = 1)]
    labels: Vec<String>,
    /// Sentences with `{}` where the label belongs; by default the label alone.
    #[serde(default)]
    templates: Option<Vec<String>>,
}

/// The labels of each image.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClassifyAnswer {
    model: String,
    /// For each image, all labels from the likeliest down.
    results: Vec<Vec<LabelScore>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LabelScore {
    label: String,
    probability: f32,
}

/// Label images.
#[utoipa::path(
    post,
    path = "/v1/classify",
    request_body = ClassifyRequest,
    responses(
        (status = 200, description = "The labels", body = ClassifyAnswer),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn classify(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<ClassifyAnswer>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (ClassifyRequest, _) = body::json(&state, request).await?;
    let queue = state.embedding_model(request.model.as_deref())?;
    let (labels, templates) =
        (request.labels, request.templates.unwrap_or_else(|| vec![LABEL_PLACE.to_owned()]));
    check_texts(&state, "labels", &labels)?;
    check_texts(&state, "templates", &templates)?;
    check_count(&state, "labels × templates", labels.len() * templates.len())?;
    if let Some(index) = templates.iter().position(|template| !template.contains(LABEL_PLACE)) {
        let field = format!("templates[{index}]");
        return Err(Problem::field(&field, format!("expected {LABEL_PLACE} where the label belongs")));
    }
    let (images, rooms) = given_images(&state, "images", request.images).await?;
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    // Each label in each template.
    let sentences = bytes(&labels) * templates.len() + bytes(&templates) * labels.len();
    let tokens = sentences + images.len() * Limits::IMAGE_TOKENS;
    let found = queue.call(tokens, deadline, move |embedder| {
        let _rooms = rooms;
        let classify = || {
            let classes = embedder.embed_labels(&labels, &templates)?;
            let logits = embedder.similarity(&embedder.embed_images(&images)?, &classes)?;
            let rows = embedder.probabilities(&logits)?.to_vec2::<f32>()?;
            Ok(rows.into_iter().map(|row| likeliest(&labels, row)).collect::<Vec<_>>())
        };
        classify().map_err(|error: altclip_encoder::Error| Problem::from(error))
    });
    Ok(Json(ClassifyAnswer { model: queue.name.clone(), results: found.await? }))
}

fn likeliest(labels: &[String], probabilities: Vec<f32>) -> Vec<LabelScore> {
    let scores = labels.iter().zip(probabilities);
    let mut scores: Vec<_> =
        scores.map(|(label, probability)| LabelScore { label: label.clone(), probability }).collect();
    scores.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    scores
}
