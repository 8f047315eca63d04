//! Defines the errors of this crate, and classifies them.

use std::sync::Arc;

use candle_core::Error as CandleError;
use model_files::{ErrorKind, candle_error};

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Each is displayed as one line that names the file or option.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a model or an image was not found, could not be downloaded or read, or is not what it should be.
    #[error(transparent)]
    Files(model_files::Error),

    /// The tokenizer could not be built or could not encode a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),

    /// A value passed by the caller is out of range.
    #[error("{0}")]
    Input(String),

    /// A tensor operation failed.
    #[error("{}", candle_error::one_line(.0))]
    Candle(#[source] Box<CandleError>),

    /// An error shared by several inputs, such as all texts of a failed batch.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl Error {
    /// Classifies the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Files(error) => error.kind(),
            Self::Tokenizer(_) | Self::Input(_) => ErrorKind::Input,
            Self::Candle(error) => candle_error::kind(error),
            Self::Shared(error) => error.kind(),
        }
    }

    /// For `map_err`: `file` could not be read or written.
    pub fn io(file: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let error = model_files::Error::io(file);
        move |source| Self::Files(error(source))
    }

    /// `file` is not what it should be; `problem` says what was expected and found.
    pub fn format(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Files(model_files::Error::format(file, problem))
    }

    /// The configuration `file` has an unusable value; `problem` names its field.
    pub fn config(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Files(model_files::Error::config(file, problem))
    }
}

impl From<model_files::Error> for Error {
    fn from(error: model_files::Error) -> Self {
        match error {
            model_files::Error::Candle(error) => Self::Candle(error),
            error => Self::Files(error),
        }
    }
}

/// For layers, which can only return candle's error. See [`candle_error`].
impl From<Error> for CandleError {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => *error,
            Error::Files(error) => error.into(),
            error => candle_error::carry(error),
        }
    }
}

/// Recovers an error that was passed through candle.
impl From<CandleError> for Error {
    fn from(error: CandleError) -> Self {
        candle_error::carried(error).unwrap_or_else(|error| model_files::Error::from(error).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way_through_candle() {
        let through = CandleError::from(Error::Tokenizer("no merges".into()));
        assert_eq!(candle_error::one_line(&through), "tokenizer: no merges");
        assert!(matches!(Error::from(through.bt()), Error::Tokenizer(_)));
        let through = CandleError::from(Error::format("m.bin", "truncated"));
        let error = Error::from(through);
        assert!(matches!(&error, Error::Files(model_files::Error::Format { .. })), "{error:?}");
        assert_eq!(error.to_string(), "m.bin: truncated");
    }

    #[test]
    fn a_shared_error_is_as_the_one_it_shares() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Arc::new(Error::io("m.bin")(denied));
        let shared = Error::Shared(Arc::clone(&error));
        assert_eq!((shared.to_string(), shared.kind()), (error.to_string(), ErrorKind::File));
        let source = std::error::Error::source(&shared);
        assert!(source.is_some_and(|source| source.is::<std::io::Error>()), "{shared:?}");
    }
}
