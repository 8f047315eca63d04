//! `POST /sdapi/v1/png-info`: reads how an image was drawn.

use altdiffusion_pipeline::image_metadata::{GenerationParameters, parameters_text_of};
use axum::Json;
use axum::extract::{Request, State as Extract};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem::WebuiProblem;
use crate::problem::Problem;
use crate::state::Shared;
use crate::{body, image_data};

/// An image file, in base64.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PngInfoRequest {
    image: String,
}

/// How it was drawn; empty if it does not say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PngInfo {
    info: String,
    #[schema(value_type = Object)]
    items: Map<String, Value>,
    /// The fields of the record by name, with `Prompt` and `Negative prompt`.
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
}

/// Read how an image was drawn.
#[utoipa::path(
    post,
    path = "/sdapi/v1/png-info",
    request_body = PngInfoRequest,
    responses(
        (status = 200, description = "The record", body = PngInfo),
        (status = "4XX", description = "The request cannot be answered", body = WebuiProblem),
    )
)]
pub(crate) async fn png_info(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<PngInfo>, Problem> {
    let (request, _room): (PngInfoRequest, _) = body::json(&state, request).await?;
    let bytes = image_data::bytes("image", &request.image)?;
    image::guess_format(&bytes).map_err(|_| Problem::field("image", "expected a PNG, JPEG or WebP file"))?;
    let read = tokio::task::spawn_blocking(move || parameters_text_of("image", &bytes));
    let text = read.await.map_err(|_| Problem::failed())?.unwrap_or_default();
    let mut parameters = Map::new();
    if !text.is_empty() {
        let found = GenerationParameters::parse(&text);
        parameters.insert("Prompt".to_owned(), found.prompt.into());
        parameters.insert("Negative prompt".to_owned(), found.negative_prompt.into());
        for (name, value) in found.fields.iter() {
            parameters.insert(name.to_owned(), value.into());
        }
    }
    let mut items = Map::new();
    if !text.is_empty() {
        items.insert("parameters".to_owned(), text.as_str().into());
    }
    Ok(Json(PngInfo { info: text, items, parameters }))
}
