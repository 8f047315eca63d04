//! What can go wrong while the emoji data set is prepared or read.

use std::path::{Path, PathBuf};

/// An error of the emoji data set; its text names the file (or the option) and says what was expected there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file was read, and does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] model_files::Error),
    /// An option that no data set can satisfy.
    #[error("{option}: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
}

/// The result of an operation on the emoji data set.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn data(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Data { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// For `map_err`: the path that the failed operation was about.
    pub(super) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Error::Io { path: path.as_ref().to_owned(), source }
    }
}
