//! `POST /v1/embeddings`: embeds texts and images.

use axum::Json;
use axum::extract::{Request, State as Extract};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ErrorBody;
use crate::api::inputs::{check_count, check_text};
use crate::body;
use crate::embedding::Input;
use crate::image_data::GivenImage;
use crate::problem::Problem;
use crate::state::Shared;
use crate::whole_number::whole_number;

/// A request for vectors, as OpenAI's; images as in Jina's interface or, with `modality`, infinity's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    /// The model; by default the server's first.
    #[serde(default)]
    model: Option<String>,
    /// A text, token ids of the model's tokenizer with special tokens, or a list of either, or of objects with a `text`
    /// or an `image` in base64.
    input: Inputs,
    /// How vectors are written: numbers, or base64 of little-endian f32.
    #[serde(default, alias = "embedding_type", alias = "encoding_type")]
    encoding_format: Option<EncodingFormat>,
    /// Must be the dimension of the model's vectors: these models are not trained to be cut.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Whether vectors have length 1.
    #[serde(default)]
    normalized: Option<bool>,
    /// What strings in `input` are.
    #[serde(default)]
    modality: Option<Modality>,
    /// Must be false or missing: each input has a vector of its own.
    #[serde(default)]
    late_chunking: Option<bool>,
    /// Whether texts are cut to the model's length; those that are longer fail if it is false.
    #[serde(default)]
    truncate: Option<bool>,
    /// Ignored, as is the field after it.
    #[serde(default)]
    #[allow(dead_code, reason = "Jina's clients send it, and these models have one task")]
    task: Option<String>,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's clients may send it")]
    user: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, token ids, or a list of texts, rows of token ids or objects with a text or an image"
)]
pub(in crate::api) enum Inputs {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    IdRows(Vec<Vec<u32>>),
    Objects(Vec<InputObject>),
}

/// A text or an image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct InputObject {
    #[serde(default)]
    text: Option<String>,
    /// In base64, or a data URI.
    #[serde(default, alias = "bytes")]
    image: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    Float,
    Base64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::api) enum Modality {
    Text,
    Image,
}

/// Vectors in the order of the inputs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingList {
    object: &'static str,
    data: Vec<EmbeddingItem>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingItem {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// Counted tokens.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Embed texts and images.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    request_body = EmbeddingRequest,
    responses(
        (status = 200, description = "The vectors", body = EmbeddingList),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn embeddings(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<EmbeddingList>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (EmbeddingRequest, _) = body::json(&state, request).await?;
    if request.late_chunking == Some(true) {
        let problem = "true, expected false: each input has a vector of its own";
        return Err(Problem::field("late_chunking", problem));
    }
    let queue = state.embedding_model(request.model.as_deref())?;
    let inputs = inputs(&state, request.input, request.modality, request.truncate.unwrap_or(true)).await?;
    let mut vectors = queue.embed(inputs, deadline).await?;
    vectors.check_dim(request.dimensions)?;
    if request.normalized.unwrap_or(true) {
        vectors.normalize();
    }
    let format = request.encoding_format.unwrap_or(EncodingFormat::Float);
    let data = vectors.rows().enumerate().map(|(index, row)| EmbeddingItem {
        object: "embedding",
        index,
        embedding: match format {
            EncodingFormat::Float => Vector::Numbers(row.to_vec()),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
                Vector::Base64(BASE64_STANDARD.encode(bytes))
            }
        },
    });
    let usage = Usage { prompt_tokens: vectors.tokens, total_tokens: vectors.tokens };
    Ok(Json(EmbeddingList { object: "list", data: data.collect(), model: queue.name.clone(), usage }))
}

/// Checks and decodes inputs; `modality` says what strings are, texts by default, and `cuts` whether texts that are too
/// long are cut.
///
/// # Errors
/// If there are none or too many, one is too long, or an image cannot be decoded.
pub(in crate::api) async fn inputs(
    state: &Shared,
    inputs: Inputs,
    modality: Option<Modality>,
    cuts: bool,
) -> Result<Vec<Input>, Problem> {
    let is_image = modality == Some(Modality::Image);
    let texts = match inputs {
        Inputs::Text(text) => vec![text],
        Inputs::Texts(texts) => texts,
        Inputs::Ids(ids) => return Ok(vec![Input::Ids(ids)]),
        Inputs::IdRows(rows) => {
            check_count(state, "input", rows.len())?;
            return Ok(rows.into_iter().map(Input::Ids).collect());
        }
        Inputs::Objects(objects) => {
            check_count(state, "input", objects.len())?;
            let mut inputs = Vec::with_capacity(objects.len());
            for (index, object) in objects.into_iter().enumerate() {
                inputs.push(match (object.text, object.image) {
                    (Some(text), None) => text_input(state, index, text, cuts)?,
                    (None, Some(image)) => image_input(state, index, image).await?,
                    _ => {
                        let field = format!("input[{index}]");
                        return Err(Problem::field(&field, "expected either a text or an image"));
                    }
                });
            }
            return Ok(inputs);
        }
    };
    check_count(state, "input", texts.len())?;
    let mut inputs = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        inputs.push(match is_image {
            true => image_input(state, index, text).await?,
            false => text_input(state, index, text, cuts)?,
        });
    }
    Ok(inputs)
}

fn text_input(state: &Shared, index: usize, text: String, cuts: bool) -> Result<Input, Problem> {
    check_text(state, &format!("input[{index}]"), &text)?;
    Ok(if cuts { Input::Text(text) } else { Input::WholeText(text) })
}

async fn image_input(state: &Shared, index: usize, image: String) -> Result<Input, Problem> {
    Ok(Input::Image(Box::new(GivenImage::of_text(&state.decoding, &format!("input[{index}]"), image).await?)))
}
