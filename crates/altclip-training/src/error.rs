//! Says what can go wrong in a training run.

use std::path::{Path, PathBuf};

/// An error of a training run; its text names the file or the setting and says what was expected.
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
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A setting that no run can satisfy.
    #[error("{0}")]
    Setting(String),
    /// The run was asked to end before it was done. It goes on from there when it is started again.
    #[error("{stage}: ended after step {step} of {steps}; the same command goes on from there")]
    Interrupted {
        /// The stage that was running.
        stage: String,
        /// Steps that were taken.
        step: usize,
        /// Steps of the whole stage.
        steps: usize,
    },
    /// Another process of the run is lost, or does not do the same.
    #[error("rank {rank}: {problem}")]
    Rank {
        /// The number of the process.
        rank: usize,
        /// What was expected of it and what was found.
        problem: String,
    },
    /// A file of texts or images.
    #[error(transparent)]
    Reader(#[from] embedding_index::Error),
    /// The encoder or one of its files.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),
    /// A file of a model, or one that was to be written whole.
    #[error(transparent)]
    Files(#[from] model_files::Error),
    /// The diffusion model or one of its files.
    #[error(transparent)]
    Pipeline(#[from] altdiffusion_pipeline::Error),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

/// Errors of a model's files go through candle's when weights are read; here they come out as they went in.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        model_files::candle_error::carried(error).map_or_else(Self::Tensor, Self::Files)
    }
}

/// The result of a part of a training run.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err`: the path that the failed operation was about.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn format(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::Format { path: path.as_ref().to_owned(), problem: problem.to_string() }
    }
}
