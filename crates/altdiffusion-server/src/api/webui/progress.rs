//! `/sdapi/v1/progress` and `interrupt`: says what is being drawn, and ends it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::problem::WebuiProblem;
use crate::drawing::Running;
use crate::problem::Problem;
use crate::state::{Shared, State};

/// How far the drawing is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// From 0 to 1.
    progress: f64,
    /// Seconds left.
    eta_relative: f64,
    state: JobState,
    /// A preview in base64, one pixel per latent.
    current_image: Option<String>,
    textinfo: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct JobState {
    skipped: bool,
    interrupted: bool,
    stopping_generation: bool,
    job: String,
    job_count: usize,
    job_timestamp: String,
    job_no: usize,
    sampling_step: usize,
    sampling_steps: usize,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProgressQuery {
    /// Whether to leave out the preview.
    #[serde(default)]
    #[param(value_type = bool, required = false)]
    skip_current_image: Option<String>,
}

impl ProgressQuery {
    fn skips(&self) -> Result<bool, Problem> {
        match self.skip_current_image.as_deref().map(str::to_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(Problem::field("skip_current_image", format!("{other:?}, expected true or false")))
            }
        }
    }
}

/// Say how far the drawing is.
#[utoipa::path(
    get,
    path = "/sdapi/v1/progress",
    params(ProgressQuery),
    responses(
        (status = 200, description = "Progress", body = Progress),
        (status = "4XX", description = "The request cannot be answered", body = WebuiProblem),
    )
)]
pub(crate) async fn progress(
    Extract(state): Extract<Shared>,
    query: Result<Query<ProgressQuery>, QueryRejection>,
) -> Result<Json<Progress>, Problem> {
    let Query(query) = query.map_err(|error| Problem::invalid(error.body_text()))?;
    let running = running(&state);
    let skips = query.skips()?;
    let preview = running.as_ref().and_then(|running| running.preview.as_ref()).filter(|_| !skips);
    let current_image = preview.map(|file| BASE64_STANDARD.encode(file));
    let share = running.as_ref().map_or(0.0, share);
    let left = running.as_ref().filter(|_| share > 0.0);
    let left = left.map_or(0.0, |running| running.since.elapsed().as_secs_f64() * (1.0 - share) / share);
    let is_interrupted = running.as_ref().is_some_and(|running| running.interruption.is_interrupted());
    let number = |of: fn(&Running) -> usize| running.as_ref().map_or(0, of);
    Ok(Json(Progress {
        progress: share,
        eta_relative: left,
        state: JobState {
            skipped: false,
            interrupted: is_interrupted,
            stopping_generation: false,
            job: if running.is_some() { "draw".to_owned() } else { String::new() },
            job_count: number(|running| running.images),
            job_timestamp: "0".to_owned(),
            job_no: number(|running| running.image),
            sampling_step: number(|running| running.step),
            sampling_steps: number(|running| running.steps),
        },
        current_image,
        textinfo: None,
    }))
}

/// The share of the work that is done.
fn share(running: &Running) -> f64 {
    let of_image = running.step as f64 / running.steps.max(1) as f64;
    (running.image as f64 + of_image) / running.images.max(1) as f64
}

fn running(state: &State) -> Option<Running> {
    state.drawing.iter().find_map(|queue| queue.status.running())
}

/// End the drawing, which is answered with the images so far.
#[utoipa::path(post, path = "/sdapi/v1/interrupt", responses((status = 200, description = "Done", body = Object)))]
pub(crate) async fn interrupt(Extract(state): Extract<Shared>) -> Json<Map<String, Value>> {
    for running in state.drawing.iter().filter_map(|queue| queue.status.running()) {
        running.interruption.interrupt();
    }
    Json(Map::new())
}

/// The same: there is one image at a time.
#[utoipa::path(post, path = "/sdapi/v1/skip", responses((status = 200, description = "Done", body = Object)))]
pub(crate) async fn skip(state: Extract<Shared>) -> Json<Map<String, Value>> {
    interrupt(state).await
}
