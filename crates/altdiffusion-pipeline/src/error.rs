//! What can go wrong between hidden states and images.

use std::path::Path;

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

    /// The callback asked for an end.
    #[error("cancelled after step {completed} of {total}")]
    Cancelled {
        /// The steps that were done.
        completed: usize,
        /// The steps that were asked for.
        total: usize,
    },

    /// A file of the model is missing or damaged, a weight is missing or does not fit, a text cannot be encoded, or an
    /// operation on tensors failed.
    #[error(transparent)]
    Encoder(#[from] altclip_encoder::Error),

    /// A file could not be found, read or written, or is not what it should be.
    #[error(transparent)]
    Files(#[from] model_files::Error),
}

/// Errors of the checkpoint travel through candle's when weights are read; here they come out as they went in.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Encoder(error.into())
    }
}

impl Error {
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
