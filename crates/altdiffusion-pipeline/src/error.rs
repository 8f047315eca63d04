//! Defines the errors of this crate, and classifies them.

use std::path::Path;

use candle_core::Tensor;
use model_files::{ErrorKind, candle_error};

/// An error in one line: what was expected, what was found, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model's configuration asks for something this crate does not build, or contradicts itself.
    #[error("{model} config: `{field}` is {found}; expected {expected}")]
    Config {
        /// The class that the configuration describes.
        model: &'static str,
        /// The field.
        field: &'static str,
        /// The values accepted.
        expected: String,
        /// The value found.
        found: String,
    },

    /// A tensor from the caller has the wrong shape.
    #[error("{tensor} has shape {found}; expected {expected}")]
    Shape {
        /// The argument.
        tensor: &'static str,
        /// The expected shape, in words.
        expected: String,
        /// The shape found, in words.
        found: String,
    },

    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file's path.
        file: String,
        /// The system's error.
        source: std::io::Error,
    },

    /// A readable file does not hold what it should.
    #[error("{file}: {problem}")]
    Content {
        /// The file's path, or its name within the model.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },

    /// A field of a configuration file has an impossible value.
    #[error("{file}: `{field}` {problem}")]
    Field {
        /// The file's path, or its name within the model.
        file: String,
        /// The field.
        field: &'static str,
        /// What was expected and what was found.
        problem: String,
    },

    /// An option cannot be honoured.
    #[error("{option}: {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was expected and what was found.
        problem: String,
    },

    /// Values are NaN or infinite.
    #[error("{place} not finite: {remedy}")]
    NotFinite {
        /// Which values, and where.
        place: String,
        /// How to avoid it.
        remedy: &'static str,
    },

    /// The callback or a [`Cancellation`](crate::Cancellation) ended the run.
    #[error("cancelled after step {completed} of {total}")]
    Cancelled {
        /// Steps completed.
        completed: usize,
        /// Steps requested.
        total: usize,
        /// The latents so far, (images, channels, height, width), f32, at the noise level of the next step; `None`
        /// before the first step, and where no images are drawn.
        latents: Option<Tensor>,
    },

    /// An error of the text encoder or a tensor operation: a file of the model is missing or damaged, a weight is
    /// missing or does not fit, or a text cannot be encoded.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),

    /// A file cannot be found, read or written, or is not what it should be.
    #[error(transparent)]
    Files(#[from] model_files::Error),
}

/// Recovers an error that was passed through candle, by a checkpoint or a cancelled layer.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        candle_error::carried(error).unwrap_or_else(|error| Self::Encoder(error.into()))
    }
}

impl Error {
    /// Classifies the error, so that a server can choose a status and a command an exit code.
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

    /// Adds to a cancellation how far the run got.
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
            // The same error, passed through candle.
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
