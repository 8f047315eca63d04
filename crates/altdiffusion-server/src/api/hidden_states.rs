//! `POST /v1/hidden_states`: encodes prompts for a diffusion process elsewhere.

use std::collections::HashMap;

use axum::extract::{Request, State as Extract};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use candle_core::{DType, Tensor};
use serde::Deserialize;
use utoipa::ToSchema;

use super::inputs::check_texts;
use super::openai::error::ErrorBody;
use super::path_parameters::BinaryFile;
use crate::body;
use crate::problem::Problem;
use crate::state::Shared;

/// Prompts to encode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HiddenStatesRequest {
    /// The model; by default the server's first.
    #[serde(default)]
    model: Option<String>,
    #[schema(min_items = 1)]
    prompts: Vec<String>,
    /// The type of the hidden states.
    #[serde(default)]
    dtype: Option<StatesType>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StatesType {
    F32,
    F16,
}

/// Encode prompts to hidden states, as a safetensors file with `input_ids`, `attention_mask` (prompts, tokens) and
/// `hidden_states` (prompts, tokens, width).
#[utoipa::path(
    post,
    path = "/v1/hidden_states",
    request_body = HiddenStatesRequest,
    responses(
        (status = 200, description = "A safetensors file", body = BinaryFile, content_type = "application/octet-stream"),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn hidden_states(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (HiddenStatesRequest, _) = body::json(&state, request).await?;
    check_texts(&state, "prompts", &request.prompts)?;
    let (count, most) = (request.prompts.len(), state.options.limits.prompts);
    if count > most {
        return Err(Problem::too_large(format!("prompts: {count}, expected at most {most}")));
    }
    let name = &state.image_model(request.model.as_deref())?.model.name;
    let queue = state.prompts.get(name).ok_or_else(Problem::failed)?;
    let states = queue.encode(request.prompts, deadline).await?;
    let dtype = match request.dtype {
        Some(StatesType::F16) => DType::F16,
        Some(StatesType::F32) | None => DType::F32,
    };
    let file = file(&states.input_ids, &states.attention_mask, &states.hidden_states, dtype);
    let file = file.map_err(altclip_encoder::Error::from)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], file).into_response())
}

fn file(ids: &Tensor, mask: &Tensor, states: &Tensor, dtype: DType) -> candle_core::Result<Vec<u8>> {
    let tensors = HashMap::from([
        ("input_ids", ids.clone()),
        ("attention_mask", mask.clone()),
        ("hidden_states", states.to_dtype(dtype)?),
    ]);
    safetensors::serialize(tensors, None).map_err(candle_core::Error::wrap)
}
