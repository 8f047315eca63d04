//! `POST /v1/images/edits`: draws from an image, in whole or under a mask.

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request, State as Extract};
use axum::response::Response;
use utoipa::ToSchema;

use super::answer::{AnswerFields, AnswerForm, ImageList};
use super::draw_options::{DrawFields, size};
use super::error::ErrorBody;
use super::events::EventSchema;
use super::images::draw;
use crate::body::{self, Room};
use crate::image_data::GivenImage;
use crate::problem::Problem;
use crate::state::Shared;

/// The fields of a form.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form")]
pub(crate) struct EditForm {
    /// The image to start from.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// Where it is redrawn: transparent or, in an image without transparency, white.
    #[schema(value_type = Option<String>, format = Binary)]
    mask: Option<Vec<u8>>,
    prompt: String,
    model: Option<String>,
    n: Option<usize>,
    size: Option<String>,
    scale: Option<usize>,
    response_format: Option<String>,
    output_format: Option<String>,
    output_compression: Option<usize>,
    background: Option<String>,
    negative_prompt: Option<String>,
    seed: Option<u64>,
    steps: Option<usize>,
    guidance_scale: Option<f64>,
    guidance_rescale: Option<f64>,
    scheduler: Option<String>,
    clip_skip: Option<usize>,
    prompt_weights: Option<bool>,
    strength: Option<f64>,
    stream: Option<bool>,
    partial_images: Option<usize>,
}

/// Draw images from an image and a prompt.
#[utoipa::path(
    post,
    path = "/v1/images/edits",
    request_body(content = EditForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The images, or with `stream` their events", content(
            (ImageList = "application/json"), (EventSchema = "text/event-stream")
        )),
        (status = "4XX", description = "The request cannot be answered", body = ErrorBody),
        (status = "5XX", description = "The server failed", body = ErrorBody),
    )
)]
pub(crate) async fn edits(Extract(state): Extract<Shared>, request: Request) -> Result<Response, Problem> {
    let deadline = state.deadline(request.headers())?;
    let form = Form::read(&state, request).await?;
    let answer = AnswerForm::read(AnswerFields {
        response_format: form.text("response_format"),
        output_format: form.text("output_format"),
        output_compression: form.parsed("output_compression", WHOLE)?,
        background: form.text("background"),
    })?;
    let answer = answer.of_edits();
    let stream = form.parsed::<bool>("stream", SWITCH)?.unwrap_or(false);
    let previews = form.parsed::<usize>("partial_images", WHOLE)?.unwrap_or(0);
    if form.0.iter().filter(|(name, _)| matches!(name.as_str(), "image" | "image[]")).count() > 1 {
        return Err(Problem::field("image", "expected one image"));
    }
    let Some(image) = form.file(&["image", "image[]"]) else {
        return Err(Problem::field("image", "expected an image file"));
    };
    let image = GivenImage::of_file(&state.decoding, "image", image).await?;
    let mask = match form.file(&["mask"]) {
        Some(mask) => Some(GivenImage::of_file(&state.decoding, "mask", mask).await?),
        None => None,
    };
    let fields = DrawFields {
        prompt: form.text("prompt").ok_or_else(|| Problem::field("prompt", "expected one"))?.to_owned(),
        negative_prompt: form.text("negative_prompt").map(str::to_owned),
        n: form.parsed("n", WHOLE)?,
        size: form.text("size").map_or(Ok(None), size)?,
        scale: form.parsed("scale", WHOLE)?,
        seed: form.parsed("seed", WHOLE)?,
        steps: form.parsed("steps", WHOLE)?,
        guidance_scale: form.parsed("guidance_scale", NUMBER)?,
        guidance_rescale: form.parsed("guidance_rescale", NUMBER)?,
        scheduler: form.text("scheduler").map(str::to_owned),
        clip_skip: form.parsed("clip_skip", WHOLE)?,
        prompt_weights: form.parsed("prompt_weights", SWITCH)?.unwrap_or(false),
        strength: form.parsed("strength", NUMBER)?,
        image: Some(image),
        mask,
        format: Some(answer.format),
        quality: answer.quality,
        ..DrawFields::default()
    };
    draw(&state, form.text("model"), fields, answer, stream.then_some(previews), deadline).await
}

/// What fields of a form are expected to be.
const WHOLE: &str = "a whole number from 0";
const NUMBER: &str = "a number";
const SWITCH: &str = "true or false";

/// The fields of a form that are known, and those of OpenAI's clients that have no meaning here.
const KNOWN: [&str; 29] = [
    "image",
    "image[]",
    "mask",
    "prompt",
    "model",
    "n",
    "size",
    "scale",
    "response_format",
    "output_format",
    "negative_prompt",
    "seed",
    "steps",
    "guidance_scale",
    "guidance_rescale",
    "scheduler",
    "clip_skip",
    "prompt_weights",
    "strength",
    "stream",
    "partial_images",
    "user",
    "quality",
    "background",
    "input_fidelity",
    "moderation",
    "output_compression",
    "style",
    "safety_identifier",
];

/// A form with files, and its share of the room for bodies.
pub(crate) struct Form(Vec<(String, Bytes)>, #[allow(dead_code, reason = "held")] Room);

impl Form {
    async fn read(state: &Shared, request: Request) -> Result<Self, Problem> {
        let form = Self::read_any(state, request).await?;
        match form.0.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
            Some((name, _)) => Err(Problem::field(name, "no such field")),
            None => Ok(form),
        }
    }

    /// Reads a form with any fields.
    ///
    /// # Errors
    /// If it is too large, takes too long, or is damaged.
    pub(crate) async fn read_any(state: &Shared, request: Request) -> Result<Self, Problem> {
        let (parts, content) = request.into_parts();
        let content = body::read(state, &parts.headers, content).await?;
        let whole = Request::from_parts(parts, Body::from(content.bytes));
        let multipart = Multipart::from_request(whole, &()).await;
        let mut multipart = multipart.map_err(|error| Problem::new(error.status(), error.body_text()))?;
        let mut fields = Vec::new();
        loop {
            let field = multipart.next_field().await;
            let Some(field) = field.map_err(|error| Problem::invalid(error.body_text()))? else { break };
            let name = field.name().unwrap_or_default().to_owned();
            let bytes = bytes_of(field).await.map_err(|error| Problem::invalid(error.body_text()))?;
            fields.push((name, bytes));
        }
        Ok(Self(fields, content.room))
    }

    /// A file.
    pub(crate) fn file(&self, names: &[&str]) -> Option<Bytes> {
        self.field(names).cloned()
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.field(&[name]).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn field(&self, names: &[&str]) -> Option<&Bytes> {
        let field = self.0.iter().find(|(name, _)| names.contains(&name.as_str()));
        field.map(|(_, bytes)| bytes)
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let problem = || Problem::field(name, format!("{text:?}, expected {expected}"));
        text.trim().parse().map(Some).map_err(|_| problem())
    }
}

/// The bytes of a field, without another copy: a body that was read whole has each field in one chunk.
async fn bytes_of(mut field: Field<'_>) -> Result<Bytes, MultipartError> {
    let first = field.chunk().await?.unwrap_or_default();
    let Some(second) = field.chunk().await? else { return Ok(first) };
    let mut bytes = [first, second].concat();
    while let Some(chunk) = field.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
