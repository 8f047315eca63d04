//! Serves the page.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use include_dir::{Dir, include_dir};

use super::path_parameters::{PathOf, path_of};
use crate::problem::Problem;
use crate::state::Shared;

static PAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/page");

/// The page loads nothing from elsewhere, and nothing may embed it.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(|| async { file("index.html") }))
        .route("/page/{*path}", get(|path: PathOf<String>| async move { file(&path_of(path)?) }))
}

fn file(path: &str) -> Result<Response, Problem> {
    let file =
        PAGE.get_file(path).ok_or_else(|| Problem::not_found("no such path; /openapi.json lists them"))?;
    let media_type = match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json" | "webmanifest") => "application/json",
        _ => "application/octet-stream",
    };
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, media_type),
        // A new version of the program has a new page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, file.contents()).into_response())
}
