//! Says what can go wrong in a training run.

use model_files::{ErrorKind, candle_error};
use std::io;
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
        source: io::Error,
    },
    /// A file was read, and does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A run has checkpoints, and none of them can be read: what is wrong with each.
    #[error("{0}")]
    Checkpoints(String),
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
        candle_error::carried(error).map_or_else(Self::Tensor, Self::Files)
    }
}

/// The result of a part of a training run.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            Self::Io { .. } | Self::Format { .. } | Self::Checkpoints(_) => ErrorKind::File,
            Self::Setting(_) => ErrorKind::Input,
            Self::Interrupted { .. } => ErrorKind::Cancelled,
            Self::Rank { .. } => ErrorKind::Network,
            Self::Reader(error) => error.kind(),
            Self::Encoder(error) => error.kind(),
            Self::Files(error) => error.kind(),
            Self::Pipeline(error) => error.kind(),
            Self::Tensor(error) => candle_error::kind(error),
        }
    }

    /// For `map_err`: the path that the failed operation was about.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn format(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::Format { path: path.as_ref().to_owned(), problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_say_whose_fault_it_is() {
        let interrupted = Error::Interrupted { stage: "teacher".to_owned(), step: 1, steps: 2 };
        let lost = Error::Rank { rank: 1, problem: "was lost".to_owned() };
        let missing = Error::io("a.toml")(io::ErrorKind::NotFound.into());
        let no_memory = Error::io("a.toml")(io::ErrorKind::OutOfMemory.into());
        let found = [interrupted, lost, missing, no_memory, Error::Setting("rank: 0".to_owned())];
        let expected = [
            ErrorKind::Cancelled,
            ErrorKind::Network,
            ErrorKind::File,
            ErrorKind::OutOfMemory,
            ErrorKind::Input,
        ];
        assert_eq!(found.map(|error| error.kind()), expected);
        // A file's error that went through a model's weights is still that of the file.
        let damaged = model_files::Error::format("model.safetensors", "expected a header, found none");
        assert_eq!(Error::from(candle_core::Error::from(damaged)).kind(), ErrorKind::File);
    }
}
