//! Speaks the protocol of immich's machine-learning server, for its CLIP tasks.

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use image::GenericImageView;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::inputs::check_text;
use super::openai::edits::Form;
use crate::embedding::Input;
use crate::image_data::GivenImage;
use crate::problem::Problem;
use crate::state::Shared;

/// The path of its requests.
pub(super) const PREDICT: &str = "/predict";

/// The fields of a form.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form")]
pub(crate) struct PredictForm {
    /// JSON: `{"clip": {"textual" | "visual": {"modelName": …, "options": {…}}}}`.
    entries: String,
    text: Option<String>,
    #[schema(value_type = Option<String>, format = Binary)]
    image: Option<Vec<u8>>,
}

/// A vector, and the size of an image.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Prediction {
    /// The vector, as JSON in a string.
    clip: String,
    #[serde(rename = "imageHeight", skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(rename = "imageWidth", skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
}

/// A problem, in FastAPI's form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detail {
    detail: String,
}

pub(super) fn problem_response(problem: &Problem) -> Response {
    Json(json!({ "detail": problem.message })).into_response()
}

/// Say that the server is there.
#[utoipa::path(get, path = "/ping", responses((status = 200, description = "pong", body = String)))]
pub(crate) async fn ping() -> &'static str {
    "pong"
}

/// Embed a text or an image.
#[utoipa::path(
    post,
    path = "/predict",
    request_body(content = PredictForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The vector", body = Prediction),
        (status = "4XX", description = "The request cannot be answered", body = Detail),
        (status = "5XX", description = "The server failed", body = Detail),
    )
)]
pub(crate) async fn predict(
    Extract(state): Extract<Shared>,
    request: Request,
) -> Result<Json<Prediction>, Problem> {
    let deadline = state.deadline(request.headers())?;
    let form = Form::read_any(&state, request).await?;
    let entry = Entry::read(form.text("entries"))?;
    let queue = state.embedding_model(Some(&entry.model))?;
    let (input, size) = match (entry.is_visual, form.text("text"), form.file(&["image"])) {
        (true, _, Some(bytes)) => {
            let image = GivenImage::of_file(&state.decoding, "image", bytes).await?;
            let size = image.image.dimensions();
            (Input::Image(Box::new(image)), Some(size))
        }
        (false, Some(text), _) => {
            check_text(&state, "text", text)?;
            (Input::Text(text.to_owned()), None)
        }
        (true, ..) => return Err(Problem::invalid("expected an image for a visual model")),
        (false, ..) => return Err(Problem::invalid("expected a text for a textual model")),
    };
    let mut vectors = queue.embed(vec![input], deadline).await?;
    vectors.normalize();
    let clip = serde_json::to_string(&vectors.values).unwrap_or_default();
    Ok(Json(Prediction { clip, height: size.map(|size| size.1), width: size.map(|size| size.0) }))
}

/// What is asked.
struct Entry {
    is_visual: bool,
    model: String,
}

#[derive(Deserialize)]
struct EntryOptions {
    #[serde(rename = "modelName")]
    model: String,
}

impl Entry {
    fn read(entries: Option<&str>) -> Result<Self, Problem> {
        let problem =
            |problem: &str| Problem::field("entries", problem).with_status(StatusCode::UNPROCESSABLE_ENTITY);
        let Some(entries) = entries else { return Err(problem("expected JSON")) };
        let tasks: Map<String, Value> =
            serde_json::from_str(entries).map_err(|error| problem(&format!("expected JSON: {error}")))?;
        if let Some(other) = tasks.keys().find(|task| *task != "clip") {
            return Err(problem(&format!("task {other:?}, expected clip: this server has no other models")));
        }
        let clip = tasks.get("clip").and_then(Value::as_object);
        let mut types = clip.into_iter().flatten();
        let (Some((kind, options)), None) = (types.next(), types.next()) else {
            return Err(problem("expected one of clip.textual and clip.visual"));
        };
        let is_visual = match kind.as_str() {
            "visual" => true,
            "textual" => false,
            other => return Err(problem(&format!("clip.{other}, expected clip.textual or clip.visual"))),
        };
        let options = EntryOptions::deserialize(options);
        let EntryOptions { model } = options.map_err(|error| problem(&format!("clip.{kind}: {error}")))?;
        Ok(Self { is_visual, model })
    }
}
