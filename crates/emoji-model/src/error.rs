//! Defines the errors of this crate, and classifies them.

use crate::tokenizer::UnigramError;
use model_files::{ErrorKind, candle_error};
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate; its message names the file or setting and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// An invalid option.
    #[error("{option}: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
    /// An invalid setting of the recipe.
    #[error("{0}")]
    Setting(String),
    /// The tokenizer could not be trained.
    #[error(transparent)]
    Tokenizer(#[from] UnigramError),
    /// An error of a training stage or its files.
    #[error(transparent)]
    Training(#[from] altclip_training::Error),
    /// An error of the encoder or its files.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),
    /// An error of the diffusion model or its files.
    #[error(transparent)]
    Pipeline(#[from] altdiffusion_pipeline::Error),
    /// An error in a model's files, or in writing one.
    #[error(transparent)]
    Files(#[from] model_files::Error),
    /// A failed tensor operation.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

/// Recovers errors of a model's files that were passed through candle.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        candle_error::carried(error).map_or_else(Self::Tensor, Self::Files)
    }
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Classifies the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            Self::Io { .. } | Self::Data { .. } => ErrorKind::File,
            Self::Option { .. } | Self::Setting(_) | Self::Tokenizer(_) => ErrorKind::Input,
            Self::Training(error) => error.kind(),
            Self::Encoder(error) => error.kind(),
            Self::Files(error) => error.kind(),
            Self::Pipeline(error) => error.kind(),
            Self::Tensor(error) => candle_error::kind(error),
        }
    }

    pub(crate) fn data(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// For `map_err`: adds the path to an error.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }
}
