//! Turns errors of SQLite into the reasons why a library's database cannot be used.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{DatabaseProblem, Error};

/// For `map_err`: the error of a database.
pub(super) fn at(file: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |error| problem_at(file, of_sqlite(&error))
}

/// A problem with the database at this path.
pub(super) fn problem_at(file: &Path, problem: DatabaseProblem) -> Error {
    Error::Database { file: file.to_owned(), problem }
}

fn of_sqlite(error: &rusqlite::Error) -> DatabaseProblem {
    let message = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseProblem::Locked,
        Some(ErrorCode::ReadOnly) => DatabaseProblem::ReadOnly,
        Some(ErrorCode::DiskFull) => DatabaseProblem::Full,
        Some(ErrorCode::NotADatabase) => DatabaseProblem::NoIndex("another kind of file".to_owned()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::TooBig) => DatabaseProblem::Damaged(message),
        Some(_) => DatabaseProblem::Other(message),
        // A value of another type than its column has, or none.
        None => DatabaseProblem::Damaged(message),
    }
}
