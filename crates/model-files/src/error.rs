//! Defines the errors of this crate, and classifies them.

use candle_core::Error as CandleError;

use crate::candle_error;
use crate::error_kind::ErrorKind;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Each is displayed as one line that names the file or option.
///
/// A `file` is something a person can find: a path or, for an embedded model, the model's name and the file in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not read or write a file.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A model lacks a required file.
    #[error("{model}: no file {file}")]
    MissingFile {
        /// The model's directory or name.
        model: String,
        /// The file, relative to the model, or a list of the accepted alternatives.
        file: String,
    },

    /// A file exists but does not follow its format: it is truncated, corrupted, hostile, or something else
    /// altogether.
    #[error("{file}: {problem}")]
    Format {
        /// The file.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },

    /// A configuration file lacks a field, or has an unusable value.
    #[error("{file}: {problem}")]
    Config {
        /// The file.
        file: String,
        /// The field, what was expected there and what was found.
        problem: String,
    },

    /// The configuration asks for a tensor that the weights lack.
    #[error("{file}: no tensor {name}{}", nearest_hint(.nearest))]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The file, or the index of the shards.
        file: String,
        /// The most similar existing name.
        nearest: Option<String>,
    },

    /// A tensor's shape differs from the configuration.
    #[error("tensor {name} in {file} has shape {found:?}, expected {expected:?} from the config")]
    ShapeMismatch {
        /// The tensor.
        name: String,
        /// Its file.
        file: String,
        /// Its shape there.
        found: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },

    /// The hub did not deliver. The text never contains tokens or passwords, even if the underlying errors do.
    #[error("{problem}")]
    Hub {
        /// What was requested, what came, and from where.
        problem: String,
        /// The caller's fault for a missing repository or an insufficient token, otherwise the network's, or that of
        /// local files.
        kind: ErrorKind,
    },

    /// A value passed by the caller is out of range.
    #[error("{0}")]
    Input(String),

    /// A tensor operation failed.
    #[error("{}", candle_error::one_line(.0))]
    Candle(#[source] Box<CandleError>),
}

impl Error {
    /// Classifies the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => {
                ErrorKind::OutOfMemory
            }
            Self::Io { .. }
            | Self::MissingFile { .. }
            | Self::Format { .. }
            | Self::Config { .. }
            | Self::MissingTensor { .. }
            | Self::ShapeMismatch { .. } => ErrorKind::File,
            Self::Hub { kind, .. } => *kind,
            Self::Input(_) => ErrorKind::Input,
            Self::Candle(error) => candle_error::kind(error),
        }
    }

    /// For `map_err`: an [`Error::Io`] about `file`.
    pub fn io(file: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { file, source }
    }

    /// An [`Error::Format`]: `file` is not what it should be, and `problem` says what was expected and found.
    pub fn format(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Format { file: file.into(), problem: problem.into() }
    }

    /// An [`Error::Config`]: `file` holds a value that cannot be used, and `problem` names its field.
    pub fn config(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { file: file.into(), problem: problem.into() }
    }
}

/// For the backends of candle's `VarBuilder`, which can only return candle's error. See [`candle_error`].
impl From<Error> for CandleError {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => *error,
            error => candle_error::carry(error),
        }
    }
}

/// Recovers an [`Error`] that was passed through candle.
impl From<CandleError> for Error {
    fn from(error: CandleError) -> Self {
        candle_error::carried(error).unwrap_or_else(|error| Self::Candle(Box::new(error)))
    }
}

fn nearest_hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (the nearest name there is {name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::candle_error::{carried, carry, one_line};

    #[test]
    fn errors_survive_the_way_through_candle() {
        let error =
            Error::MissingTensor { name: "a.weight".into(), file: "m.safetensors".into(), nearest: None };
        let line = error.to_string();
        let through = CandleError::from(error);
        assert_eq!(one_line(&through), line);
        assert!(through.to_string().starts_with(&line), "{through}");
        assert!(matches!(Error::from(through.bt()), Error::MissingTensor { name, .. } if name == "a.weight"));
    }

    #[test]
    fn sources_and_kinds_survive_too() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::from(CandleError::from(Error::io("m.bin")(denied)));
        assert_eq!(error.kind(), ErrorKind::File);
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn an_error_of_another_type_stays_candles() {
        let through = carry(std::fmt::Error);
        let error = carried::<Error>(through).unwrap_err();
        assert_eq!(carried::<std::fmt::Error>(error).unwrap(), std::fmt::Error);
    }

    #[test]
    fn candle_errors_are_one_line() {
        let inner = CandleError::Msg("first\nsecond".into());
        let error = Error::from(inner.context("while loading").bt());
        assert_eq!(error.to_string(), "while loading: first second");
    }
}
