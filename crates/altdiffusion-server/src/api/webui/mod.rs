//! Speaks stable-diffusion-webui's interface, as far as its clients use it.

mod draw;
mod info;
mod lists;
mod memory;
mod options;
mod png_info;
mod progress;
mod request;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::Problem;
use crate::state::Shared;

/// What its paths begin with.
pub(super) const PREFIX: &str = "/sdapi/";

/// A problem, in FastAPI's form and with the fields that its clients read.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "describes the form")]
pub(super) struct WebuiProblem {
    error: String,
    detail: String,
    body: String,
    errors: String,
}

pub(super) fn problem_response(problem: &Problem) -> Response {
    let name = match problem.status {
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => "ValueError",
        _ => "HTTPException",
    };
    let message = &problem.message;
    Json(json!({ "error": name, "detail": message, "body": "", "errors": message })).into_response()
}

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(draw::txt2img))
        .routes(routes!(draw::img2img))
        .routes(routes!(progress::progress))
        .routes(routes!(progress::interrupt))
        .routes(routes!(progress::skip))
        .routes(routes!(options::options, options::set_options))
        .routes(routes!(lists::sd_models))
        .routes(routes!(lists::refresh_checkpoints))
        .routes(routes!(lists::samplers))
        .routes(routes!(lists::schedulers))
        .routes(routes!(lists::loras))
        .routes(routes!(lists::refresh_loras))
        .routes(routes!(lists::embeddings))
        .routes(routes!(lists::upscalers))
        .routes(routes!(lists::latent_upscale_modes))
        .routes(routes!(lists::sd_vae))
        .routes(routes!(lists::prompt_styles))
        .routes(routes!(lists::cmd_flags))
        .routes(routes!(png_info::png_info))
        .routes(routes!(memory::memory))
}
