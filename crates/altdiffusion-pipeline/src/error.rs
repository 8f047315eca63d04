//! Says what can go wrong between hidden states and images, and whose fault it is.

use std::path::Path;

use candle_core::Tensor;
use model_files::{ErrorKind, candle_error};

/// One line that says what was expected, what was found, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model's configuration asks for something this crate does not build, or contradicts itself.
    #[error("{model} config: `{field}` is {found}; expected {expected}")]
    Config {
        /// The class that the configuration describes.
        model: &'static str,
        /// The configuration's field.
        field: &'static str,
        /// What would have been accepted.
        expected: String,
        /// The value that was there.
        found: String,
    },

    /// A tensor that a caller handed over has the wrong shape.
    #[error("{tensor} has shape {found}; expected {expected}")]
    Shape {
        /// The argument.
        tensor: &'static str,
        /// The shape that fits, in words.
        expected: String,
        /// The shape that came, in words.
        found: String,
    },

    /// A file that cannot be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file's path.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },

    /// A file that can be read, but does not hold what it should.
    #[error("{file}: {problem}")]
    Content {
        /// The file's path, or its name within the model.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },

    /// A field of a configuration file with a value that cannot be right.
    #[error("{file}: `{field}` {problem}")]
    Field {
        /// The file's path, or its name within the model.
        file: String,
        /// The field.
        field: &'static str,
        /// What was expected and what was found.
        problem: String,
    },

    /// An option of the caller that cannot be met.
    #[error("{option}: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was expected and what was found.
        problem: String,
    },

    /// NaN or infinity where numbers should be.
    #[error("{place} not finite: {remedy}")]
    NotFinite {
        /// What is not finite, and where.
        place: String,
        /// What to do about it.
        remedy: &'static str,
    },

    /// The callback or a [`Cancellation`](crate::Cancellation) asked for the end.
    #[error("cancelled after step {completed} of {total}")]
    Cancelled {
        /// The steps that were done.
        completed: usize,
        /// The steps that were asked for.
        total: usize,
        /// The latents after those steps, (images, channels, height, width), f32, at the noise level of the next one; none
        /// before the first step, and where no images are drawn.
        latents: Option<Tensor>,
    },

    /// A file of the model is missing or damaged, a weight is missing or does not fit, a text cannot be encoded, or an
    /// operation on tensors failed.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),

    /// A file could not be found, read or written, or is not what it should be.
    #[error(transparent)]
    Files(#[from] model_files::Error),
}

/// Gives back an error that went through candle, as it was before: from a checkpoint, or from a layer that was cancelled.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        candle_error::carried(error).unwrap_or_else(|error| Self::Encoder(error.into()))
    }
}

impl Error {
    /// Whose fault it is: what a server answers by its status, and a command by its exit code.
    ///
    /// ```
    /// use altdiffusion_pipeline::{AltDiffusion, DType, Device, ErrorKind};
    ///
    /// let error = AltDiffusion::from_pretrained("/no/such/model", DType::F32, &Device::Cpu).err();
    /// assert_ne!(error.map(|error| error.kind()), Some(ErrorKind::Cancelled));
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Shape { .. } | Self::Option { .. } => ErrorKind::Input,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => {
                ErrorKind::OutOfMemory
            }
            Self::Config { .. } | Self::Io { .. } | Self::Content { .. } | Self::Field { .. } => {
                ErrorKind::File
            }
            Self::NotFinite { .. } => ErrorKind::Other,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Encoder(error) => error.kind(),
            Self::Files(error) => error.kind(),
        }
    }

    /// Says of a cancellation how far the run was.
    pub(crate) fn in_run(self, completed: usize, total: usize, latents: Option<&Tensor>) -> Self {
        match self {
            Self::Cancelled { .. } => Self::Cancelled { completed, total, latents: latents.cloned() },
            other => other,
        }
    }

    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.display().to_string(), source }
    }

    pub(crate) fn content(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Content { file: file.into(), problem: problem.into() }
    }

    pub(crate) fn option(option: &'static str, problem: impl Into<String>) -> Self {
        Self::Option { option, problem: problem.into() }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn each_error_has_its_kind() {
        let io = |kind: std::io::ErrorKind| Error::io(Path::new("a.png"), kind.into());
        let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).ok();
        for (error, kind) in [
            (Error::option("steps", "0"), ErrorKind::Input),
            (Error::Shape { tensor: "x", expected: String::new(), found: String::new() }, ErrorKind::Input),
            (Error::content("m.bin", "truncated"), ErrorKind::File),
            (io(std::io::ErrorKind::NotFound), ErrorKind::File),
            (io(std::io::ErrorKind::OutOfMemory), ErrorKind::OutOfMemory),
            (
                model_files::Error::Hub { problem: "no answer".to_owned(), kind: ErrorKind::Network }.into(),
                ErrorKind::Network,
            ),
            (altclip_encoder::Error::Input("no texts".to_owned()).into(), ErrorKind::Input),
            (Error::Cancelled { completed: 1, total: 2, latents: tensor }, ErrorKind::Cancelled),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
            // The same after a way through candle.
            let through = Error::from(candle_error::carry(error));
            assert_eq!(through.kind(), kind, "{through}");
        }
    }

    #[test]
    fn sources_are_kept() {
        let cause = std::io::Error::other("the disk is full");
        let error = Error::io(Path::new("a.png"), cause);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("the disk is full"));
    }
}
