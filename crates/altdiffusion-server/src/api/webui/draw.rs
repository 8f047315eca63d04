//! `POST /sdapi/v1/txt2img` and `img2img`: draw images.

use axum::Json;
use axum::extract::{Request, State as Extract};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::info::info;
use super::problem::WebuiProblem;
use super::request::WebuiRequest;
use crate::body::{self, in_words};
use crate::problem::Problem;
use crate::state::{Shared, shown};

/// The images, in base64.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebuiImages {
    images: Vec<String>,
    /// The request.
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
    /// JSON in a string: seeds, sizes, and how each image was drawn.
    info: String,
}

/// Draw images from a prompt.
#[utoipa::path(
    post,
    path = "/sdapi/v1/txt2img",
    request_body = WebuiRequest,
    responses(
        (status = 200, description = "The images", body = WebuiImages),
        (status = "4XX", description = "The request cannot be answered", body = WebuiProblem),
        (status = "5XX", description = "The server failed", body = WebuiProblem),
    )
)]
pub(crate) async fn txt2img(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<WebuiImages>, Problem> {
    draw(&state, request, false).await
}

/// Draw images from an image and a prompt.
#[utoipa::path(
    post,
    path = "/sdapi/v1/img2img",
    request_body = WebuiRequest,
    responses(
        (status = 200, description = "The images", body = WebuiImages),
        (status = "4XX", description = "The request cannot be answered", body = WebuiProblem),
        (status = "5XX", description = "The server failed", body = WebuiProblem),
    )
)]
pub(crate) async fn img2img(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<WebuiImages>, Problem> {
    draw(&state, request, true).await
}

async fn draw(state: &Shared, request: Request, from_image: bool) -> Result<Json<WebuiImages>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (mut parameters, _room): (Map<String, Value>, _) = body::json(state, request).await?;
    let mut request: WebuiRequest = parse(&parameters)?;
    match (from_image, request.init_images.as_deref()) {
        (true, None | Some([])) => return Err(Problem::field("init_images", "expected an image")),
        // Fields of the other path mean nothing here.
        (false, _) => (request.init_images, request.mask) = (None, None),
        (true, _) => {}
    }
    let queue = state.image_model(request.model(state).as_deref())?;
    let unknown = request.unknown();
    if !unknown.is_empty() {
        tracing::info!("ignored unknown fields: {}", shown(&unknown.join(", ")));
    }
    if state.options.log_prompts {
        tracing::info!(prompt = shown(request.prompt.as_deref().unwrap_or_default()), "drawing");
    }
    let drawing = request.drawing(state, queue).await?;
    let options = drawing.options.clone();
    let images = queue.add(drawing, deadline)?.images().await?;
    let info = info(queue, &options, &images, &unknown);
    // Images are long, and the client has them.
    for field in ["init_images", "mask"] {
        if parameters.contains_key(field) {
            parameters.insert(field.to_owned(), Value::Null);
        }
    }
    let sends = request.send_images.unwrap_or(true);
    let files = images.iter().filter(|_| sends).map(|drawn| BASE64_STANDARD.encode(&drawn.file));
    Ok(Json(WebuiImages { images: files.collect(), parameters, info: info.to_string() }))
}

fn parse(parameters: &Map<String, Value>) -> Result<WebuiRequest, Problem> {
    let value = Value::Object(parameters.clone());
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let problem = Problem::invalid(format!("{path}: {}", in_words(&error.inner().to_string())));
        Problem { field: Some(path), ..problem }
    })
}
