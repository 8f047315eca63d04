//! Says what can go wrong while the emoji model is prepared, trained, measured or written.

use crate::tokenizer::UnigramError;
use model_files::{ErrorKind, candle_error};
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate; its text names the file or the setting and says what was expected there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file was read, and does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// An option that no data set can satisfy.
    #[error("{option}: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
    /// A setting of the recipe that no run can satisfy.
    #[error("{0}")]
    Setting(String),
    /// The tokenizer could not be trained.
    #[error(transparent)]
    Tokenizer(#[from] UnigramError),
    /// A stage of training, or one of its files.
    #[error(transparent)]
    Training(#[from] altclip_training::Error),
    /// The encoder or one of its files.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),
    /// The diffusion model or one of its files.
    #[error(transparent)]
    Pipeline(#[from] altdiffusion_pipeline::Error),
    /// A file of a model, or one that was to be written whole.
    #[error(transparent)]
    Files(#[from] model_files::Error),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

/// Errors of a model's files go through candle's when weights are read; here they come out as they went in.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        candle_error::carried(error).map_or_else(Self::Tensor, Self::Files)
    }
}

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whose fault it is.
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

    /// For `map_err`: the path that the failed operation was about.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }
}
