//! `POST /v1/images/generations`: draws images.

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use std::time::Instant;
use utoipa::ToSchema;

use super::answer::{AnswerFields, AnswerForm, ImageList};
use super::draw_options::{ControlField, DrawFields, LoraField, controls, loras, size};
use super::error::ErrorBody;
use super::events;
use super::events::EventSchema;
use crate::body;
use crate::image_data::GivenImage;
use crate::problem::Problem;
use crate::state::{Shared, shown};
use crate::whole_number::whole_number;

/// A request for images, as OpenAI's, with this program's options beside.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRequest {
    /// The model; by default the server's first.
    #[serde(default)]
    model: Option<String>,
    prompt: String,
    /// How many images, with consecutive seeds.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1)]
    n: Option<usize>,
    /// `WIDTHxHEIGHT` in pixels: the image's or, with `scale`, before it is enlarged. `auto` is the model's.
    #[serde(default)]
    #[schema(pattern = "^(auto|[0-9]+x[0-9]+)$")]
    size: Option<String>,
    /// `b64_json`, or `url` for a data URI.
    #[serde(default)]
    #[schema(pattern = "^(b64_json|url)$")]
    response_format: Option<String>,
    /// png, jpeg or webp.
    #[serde(default)]
    #[schema(pattern = "^(png|jpe?g|webp)$")]
    output_format: Option<String>,
    /// The quality of a JPEG; 100, for the others too, loses least.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 0, maximum = 100)]
    output_compression: Option<usize>,
    /// auto or opaque: no image here is transparent.
    #[serde(default)]
    #[schema(pattern = "^(auto|opaque)$")]
    background: Option<String>,
    /// Whether to send events as the images are drawn.
    #[serde(default)]
    stream: Option<bool>,
    /// With `stream`: 0 for no previews, otherwise about ten a second, and at least this many of each image, up to 3.
    #[serde(default, deserialize_with = "whole_number")]
    partial_images: Option<usize>,
    #[serde(default)]
    negative_prompt: Option<String>,
    /// How many times larger the images get along each side once they are drawn. By default, with neither it nor a
    /// size, the model's.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 4)]
    scale: Option<usize>,
    #[serde(default, deserialize_with = "whole_number")]
    seed: Option<u64>,
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(minimum = 1)]
    steps: Option<usize>,
    #[serde(default)]
    #[schema(minimum = -1000, maximum = 1000)]
    guidance_scale: Option<f64>,
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    guidance_rescale: Option<f64>,
    /// A scheduler by any of its names, such as `ddim`, `DPM++ 2M Karras` or `euler_a`.
    #[serde(default)]
    scheduler: Option<String>,
    #[serde(default, deserialize_with = "whole_number")]
    clip_skip: Option<usize>,
    /// Whether `(word:1.3)` sets weights.
    #[serde(default)]
    prompt_weights: Option<bool>,
    /// The image to start from, in base64 or a data URI.
    #[serde(default)]
    image: Option<String>,
    /// Where the image is redrawn: white, or transparent.
    #[serde(default)]
    mask: Option<String>,
    /// How much of the image may change, from 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    strength: Option<f64>,
    #[serde(default)]
    loras: Option<Vec<LoraField>>,
    #[serde(default)]
    controls: Option<Vec<ControlField>>,
    /// Ignored, as are the fields after it, which OpenAI's clients may send.
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's clients may send it")]
    quality: Option<Value>,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's clients may send it")]
    style: Option<Value>,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's clients may send it")]
    user: Option<Value>,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's clients may send it")]
    safety_identifier: Option<Value>,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's clients may send it")]
    moderation: Option<Value>,
}

/// Draw images from a prompt.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    request_body = ImageRequest,
    responses(
        (status = 200, description = "The images, or with `stream` their events", content(
            (ImageList = "application/json"), (EventSchema = "text/event-stream")
        )),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn generations(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = state.deadline(request.headers())?;
    let (request, _room): (ImageRequest, _) = body::json(&state, request).await?;
    let form = AnswerForm::read(AnswerFields {
        response_format: request.response_format.as_deref(),
        output_format: request.output_format.as_deref(),
        output_compression: request.output_compression,
        background: request.background.as_deref(),
    })?;
    let (stream, previews) = (request.stream.unwrap_or(false), request.partial_images.unwrap_or(0));
    let model = request.model.clone();
    let fields = fields(&state, request, form).await?;
    draw(&state, model.as_deref(), fields, form, stream.then_some(previews), deadline).await
}

async fn fields(state: &Shared, request: ImageRequest, form: AnswerForm) -> Result<DrawFields, Problem> {
    let image = match request.image {
        Some(image) => Some(GivenImage::of_text(&state.decoding, "image", image).await?),
        None => None,
    };
    let mask = match request.mask {
        Some(mask) => Some(GivenImage::of_text(&state.decoding, "mask", mask).await?),
        None => None,
    };
    Ok(DrawFields {
        prompt: request.prompt,
        negative_prompt: request.negative_prompt,
        n: request.n,
        size: request.size.as_deref().map_or(Ok(None), size)?,
        scale: request.scale,
        seed: request.seed,
        steps: request.steps,
        guidance_scale: request.guidance_scale,
        guidance_rescale: request.guidance_rescale,
        scheduler: request.scheduler,
        clip_skip: request.clip_skip,
        prompt_weights: request.prompt_weights.unwrap_or(false),
        image,
        mask,
        strength: request.strength,
        loras: loras(state, request.loras.unwrap_or_default())?,
        controls: controls(state, request.controls.unwrap_or_default()).await?,
        format: Some(form.format),
        quality: form.quality,
    })
}

/// Draws what the fields say; `stream` says whether to send events, and at least how many previews of each image.
pub(super) async fn draw(
    state: &Shared,
    model: Option<&str>,
    fields: DrawFields,
    form: AnswerForm,
    stream: Option<usize>,
    deadline: Instant,
) -> Result<Response, Problem> {
    let queue = state.image_model(model)?;
    if state.options.log_prompts {
        tracing::info!(prompt = shown(&fields.prompt), "drawing");
    }
    let mut request = fields.request(state, queue)?;
    request.previews = stream.filter(|previews| *previews > 0);
    let drawing = queue.add(request, deadline)?;
    match stream {
        Some(_) => Ok(events::stream(drawing, form)),
        None => Ok(Json(form.list(&drawing.images().await?)).into_response()),
    }
}
