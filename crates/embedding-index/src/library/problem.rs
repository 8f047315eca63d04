//! Says why the database of a library cannot be used.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::Error;

/// Why the database of an [`ImageLibrary`](super::ImageLibrary) cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseProblem {
    /// There is no such file.
    #[error("no index here, expected one that `altdiffusion index add` made")]
    Missing,
    /// It is another kind of file, or a database of another program.
    #[error("expected an index that `altdiffusion index add` made, found {0}")]
    NoIndex(String),
    /// A newer release made it.
    #[error("made by a newer release: its format is {found}, expected at most {known}")]
    Newer {
        /// The format of the file.
        found: i32,
        /// The newest format that this release knows.
        known: i32,
    },
    /// Another process is writing to it.
    #[error("another program is writing to it, wait until it is done")]
    Locked,
    /// The file or its folder cannot be written to.
    #[error("is read-only, expected a file and a folder that can be written to")]
    ReadOnly,
    /// The disk is full.
    #[error("the disk is full; everything indexed before is kept, free some space and run it again")]
    Full,
    /// The file is damaged.
    #[error("damaged ({0}); delete it and index its folders again")]
    Damaged(String),
    /// Its vectors are of another model.
    #[error("made with {made_with}, and the model given is {given}; expected the same model")]
    OtherModel {
        /// The model that made the vectors.
        made_with: String,
        /// The model of the caller.
        given: String,
    },
    /// Its vectors are of a model of the same name with other weights.
    #[error("made with other weights of {0}, or another revision of it; expected the same ones")]
    OtherWeights(String),
    /// The database failed for another reason.
    #[error("{0}")]
    Other(String),
}

/// For `map_err`: the error of a database.
pub(super) fn at(file: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |error| problem_at(file, of_sqlite(&error))
}

/// A problem with the database at this path.
pub(super) fn problem_at(file: &Path, problem: DatabaseProblem) -> Error {
    Error::Database { file: file.to_owned(), problem }
}

fn of_sqlite(error: &rusqlite::Error) -> DatabaseProblem {
    let told = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseProblem::Locked,
        Some(ErrorCode::ReadOnly) => DatabaseProblem::ReadOnly,
        Some(ErrorCode::DiskFull) => DatabaseProblem::Full,
        Some(ErrorCode::NotADatabase) => DatabaseProblem::NoIndex("another kind of file".to_owned()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::TooBig) => DatabaseProblem::Damaged(told),
        Some(_) => DatabaseProblem::Other(told),
        // A value of another type than its column has, or none.
        None => DatabaseProblem::Damaged(told),
    }
}
