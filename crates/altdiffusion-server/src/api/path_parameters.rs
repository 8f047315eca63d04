//! Reads parameters in paths, and describes answers that are files.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use utoipa::ToSchema;

use crate::problem::Problem;

/// A file of bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "describes answers")]
pub(super) struct BinaryFile(Vec<u8>);

/// The parts of a path, or why they cannot be read.
pub(super) type PathOf<T> = Result<Path<T>, PathRejection>;

pub(super) fn path_of<T>(path: PathOf<T>) -> Result<T, Problem> {
    path.map(|Path(path)| path).map_err(|error| Problem::invalid(error.body_text()))
}
