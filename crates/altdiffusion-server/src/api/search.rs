//! `POST /v1/search`: finds what is nearest in an index.

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use embedding_index::ItemKind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::inputs::check_text;
use super::openai::draw_options::within;
use super::openai::error::ErrorBody;
use super::path_parameters::{BinaryFile, PathOf, path_of};
use crate::body;
use crate::embedding::Input;
use crate::image_data::GivenImage;
use crate::problem::Problem;
use crate::state::Shared;
use crate::whole_number::whole_number;

/// How many items are returned by default, and at most.
const TOP: usize = 50;
const MOST: usize = 10_000;

/// The indexes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexList {
    indexes: Vec<IndexItem>,
}

#[derive(Debug, Serialize, ToSchema)]
struct IndexItem {
    name: String,
    /// Texts and images.
    count: usize,
    /// The model that made the vectors.
    model: Option<String>,
}

/// What to look for: either a text or an image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// The index; by default the server's first.
    #[serde(default)]
    index: Option<String>,
    /// The model to embed with; by default the one that made the index, or the server's first.
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    text: Option<String>,
    /// In base64, or a data URI.
    #[serde(default)]
    image: Option<String>,
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
}

/// What was found, the nearest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchAnswer {
    hits: Vec<SearchHit>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SearchHit {
    /// The row among the items of its kind.
    id: usize,
    /// `text` or `image`.
    kind: String,
    /// The text, or the image's name.
    name: String,
    /// The cosine.
    score: f32,
    /// Where the image can be had.
    image: Option<String>,
}

/// List the indexes.
#[utoipa::path(
    get,
    path = "/v1/index",
    responses((status = 200, description = "The indexes", body = IndexList))
)]
pub(crate) async fn indexes(Extract(state): Extract<Shared>) -> Json<IndexList> {
    let indexes = state.indexes.iter().map(|served| IndexItem {
        name: served.name.clone(),
        count: served.len(),
        model: served.model().map(str::to_owned),
    });
    Json(IndexList { indexes: indexes.collect() })
}

/// Find what is nearest to a text or an image.
#[utoipa::path(
    post,
    path = "/v1/search",
    request_body = SearchRequest,
    responses(
        (status = 200, description = "What was found", body = SearchAnswer),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn search(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<SearchAnswer>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (SearchRequest, _) = body::json(&state, request).await?;
    let index = state.index(request.index.as_deref())?.clone();
    let top = within("limit", request.limit.unwrap_or(TOP), 1, MOST)?;
    let queue = match (&request.model, index.model()) {
        (Some(model), _) => state.embedding_model(Some(model))?,
        (None, Some(model)) => state.embedding_model(Some(model)).or_else(|_| state.embedding_model(None))?,
        (None, None) => state.embedding_model(None)?,
    };
    let input = match (request.text, request.image) {
        (Some(text), None) => {
            check_text(&state, "text", &text)?;
            Input::Text(text)
        }
        (None, Some(image)) => {
            Input::Image(Box::new(GivenImage::of_text(&state.decoding, "image", image).await?))
        }
        _ => return Err(Problem::invalid("expected either a text or an image")),
    };
    let vector = queue.embed(vec![input], deadline).await?.values;
    let name = index.name.clone();
    let search = move || index.search(&vector, top);
    let hits = tokio::task::spawn_blocking(search).await.unwrap_or_else(|_| Err(Problem::failed()))?;
    let hits = hits.into_iter().map(|hit| SearchHit {
        id: hit.row,
        kind: hit.kind.to_string(),
        image: (hit.kind == ItemKind::Image).then(|| format!("/v1/index/{name}/images/{}", hit.row)),
        name: hit.item,
        score: hit.score,
    });
    Ok(Json(SearchAnswer { hits: hits.collect() }))
}

/// Get an image that an index lists.
#[utoipa::path(
    get,
    path = "/v1/index/{index}/images/{id}",
    params(
        ("index" = String, Path, description = "The index's name"),
        ("id" = usize, Path, description = "The image's row"),
    ),
    responses(
        (status = 200, description = "The image file", body = BinaryFile, content_type = "image/*"),
        (status = "4XX", description = "No such image", body = ErrorBody),
    )
)]
pub(crate) async fn image(
    Extract(state): Extract<Shared>,
    path: PathOf<(String, String)>,
) -> Result<Response, Problem> {
    let (index, id) = path_of(path)?;
    let index = state.index(Some(&index))?.clone();
    let row = id.parse().map_err(|_| Problem::not_found("expected the number of an image"))?;
    let read = move || index.image(row);
    let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(Problem::failed()));
    let (bytes, media_type) = read?;
    Ok(([(header::CONTENT_TYPE, media_type)], bytes).into_response())
}
