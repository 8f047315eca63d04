//! Formats problems as stable-diffusion-webui's clients expect them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::problem::Problem;

/// A problem, in FastAPI's form and with the fields that its clients read.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "describes the form")]
pub(super) struct WebuiProblem {
    error: String,
    detail: String,
    body: String,
    errors: String,
}

pub(in crate::api) fn problem_response(problem: &Problem) -> Response {
    let name = match problem.status {
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => "ValueError",
        _ => "HTTPException",
    };
    let message = &problem.message;
    Json(json!({ "error": name, "detail": message, "body": "", "errors": message })).into_response()
}
