//! `GET /info`: describes the embedding model in the interface of text-embeddings-inference.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::embed::EmbedProblem;
use crate::embedding::Pooling;
use crate::problem::Problem;
use crate::state::Shared;

/// The path of its requests.
pub(super) const INFO: &str = "/info";

/// The server's first embedding model, and what it takes on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedInfo {
    model_id: String,
    /// Always null: a served model need not be a commit.
    model_sha: Option<String>,
    /// Such as `float32`, or `int8`.
    model_dtype: &'static str,
    model_type: EmbedModelType,
    /// Connections open at once; more wait.
    max_concurrent_requests: usize,
    /// Tokens of a text; what is longer is cut, unless the request has `"truncate": false`.
    max_input_length: usize,
    max_batch_tokens: usize,
    /// Always null: a batch is limited by its tokens alone.
    max_batch_requests: Option<usize>,
    /// Inputs of a request.
    max_client_batch_size: usize,
    auto_truncate: bool,
    /// This server's.
    version: &'static str,
}

/// A kind of model. All here are for embeddings.
#[derive(Debug, Serialize, ToSchema)]
struct EmbedModelType {
    embedding: EmbedPooling,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbedPooling {
    /// `cls`, `mean` or `last-token`; null where models of the same family differ.
    pooling: Option<&'static str>,
}

/// Describe the embedding model, which is loaded for that the first time.
#[utoipa::path(
    get,
    path = "/info",
    responses(
        (status = 200, description = "The model and the limits", body = EmbedInfo),
        (status = "4XX", description = "The request cannot be answered", body = EmbedProblem),
        (status = "5XX", description = "The server failed", body = EmbedProblem),
    )
)]
pub(crate) async fn info(
    Extract(state): Extract<Shared>,
    headers: HeaderMap,
) -> Result<Json<EmbedInfo>, Problem> {
    let deadline = state.deadline(&headers)?;
    let queue = state.embedding_model(None)?;
    let model = queue.description(deadline).await?;
    let limits = &state.options.limits;
    Ok(Json(EmbedInfo {
        model_id: queue.name.clone(),
        model_sha: None,
        model_dtype: dtype_name(model.arithmetic),
        model_type: EmbedModelType { embedding: EmbedPooling { pooling: model.pooling.map(pooling_name) } },
        max_concurrent_requests: limits.connections,
        max_input_length: model.max_tokens,
        max_batch_tokens: limits.batch_tokens,
        max_batch_requests: None,
        max_client_batch_size: limits.inputs,
        auto_truncate: true,
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// A number type's name there.
fn dtype_name(arithmetic: &'static str) -> &'static str {
    match arithmetic {
        "f32" => "float32",
        "f16" => "float16",
        "bf16" => "bfloat16",
        other => other,
    }
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::First => "cls",
        Pooling::Last => "last-token",
        Pooling::Mean => "mean",
    }
}
