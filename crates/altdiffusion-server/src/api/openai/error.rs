//! Formats problems as OpenAI's clients expect them.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// A problem, in OpenAI's form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// One line.
    message: String,
    /// The kind of problem.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field of the request that is at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

/// The form of a problem.
pub(super) fn error_body(problem: &Problem) -> ErrorBody {
    let (kind, code) = match problem.status.as_u16() {
        401 => ("authentication_error", Some("invalid_api_key")),
        403 => ("permission_error", None),
        404 => ("not_found_error", problem.field.as_ref().map(|_| "model_not_found")),
        429 => ("rate_limit_error", Some("queue_full")),
        status if status < 500 => ("invalid_request_error", None),
        _ => ("server_error", None),
    };
    let (message, param) = (problem.message.clone(), problem.field.clone());
    ErrorBody { error: ErrorDetail { message, kind, param, code } }
}

pub(in crate::api) fn problem_response(problem: &Problem) -> Response {
    Json(error_body(problem)).into_response()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
