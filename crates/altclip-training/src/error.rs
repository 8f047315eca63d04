//! Defines the errors of training, and classifies them.

use model_files::{ErrorKind, candle_error};
use std::io;
use std::path::{Path, PathBuf};

/// An error of a training run; its message names the file or setting and what was expected.
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
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// A run has checkpoints, but none can be read; says why for each.
    #[error("{0}")]
    Checkpoints(String),
    /// An invalid setting.
    #[error("{0}")]
    Setting(String),
    /// The run was stopped before its end. Starting it again resumes it.
    #[error("{stage}: ended after step {step} of {steps}; the same command goes on from there")]
    Interrupted {
        /// The stage that was running.
        stage: String,
        /// Steps taken.
        step: usize,
        /// Steps of the stage.
        steps: usize,
    },
    /// Another process of the run was lost, or is out of step.
    #[error("rank {rank}: {problem}")]
    Rank {
        /// The rank of the process.
        rank: usize,
        /// What was expected from it and what was found.
        problem: String,
    },
    /// An error in reading texts or images.
    #[error(transparent)]
    Reader(#[from] embedding_index::Error),
    /// An error of the encoder or its files.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),
    /// An error in a model's files, or in writing one.
    #[error(transparent)]
    Files(#[from] model_files::Error),
    /// An error of the diffusion model or its files.
    #[error(transparent)]
    Pipeline(#[from] altdiffusion_pipeline::Error),
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

    /// For `map_err`: adds the path to an error.
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
        // A file's error stays one after passing through a model's weights.
        let damaged = model_files::Error::format("model.safetensors", "expected a header, found none");
        assert_eq!(Error::from(candle_core::Error::from(damaged)).kind(), ErrorKind::File);
    }
}
