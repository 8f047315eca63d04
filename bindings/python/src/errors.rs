//! Turns errors into the exceptions of `altdiffusion._errors`.

use std::error::Error as StdError;
use std::io;

use altclip_encoder::Error as EncoderError;
use altdiffusion_pipeline::Error as PipelineError;
use candle_core::Error as CandleError;
use model_files::{Error as FileError, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// An error on its way to Python.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The name of the exception.
    class: &'static str,
    message: String,
}

/// The result of work without Python.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A value that cannot be used.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { class: "InputError", message: message.into() }
    }

    /// Something that went wrong here.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { class: "Error", message: message.into() }
    }

    /// Use in a process that was forked after the library had started threads.
    pub(crate) fn forked(message: impl Into<String>) -> Self {
        Self { class: "ForkError", message: message.into() }
    }

    fn new(kind: ErrorKind, error: &(impl StdError + 'static)) -> Self {
        let class = match kind {
            ErrorKind::Input => "InputError",
            ErrorKind::File if is_missing(error) => "MissingFileError",
            ErrorKind::File => "FileError",
            ErrorKind::Network => "NetworkError",
            ErrorKind::Cancelled => "CancelledError",
            ErrorKind::OutOfMemory => "OutOfMemoryError",
            _ => "Error",
        };
        Self { class, message: error.to_string() }
    }

    /// The exception.
    pub(crate) fn exception(self, py: Python<'_>) -> PyErr {
        let class = py.import("altdiffusion._errors").and_then(|module| module.getattr(self.class));
        match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
            Ok(class) => PyErr::from_type(class, (self.message,)),
            Err(error) => error,
        }
    }
}

/// Whether a file or a model was not found.
fn is_missing(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let is_not_found = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        let file = match cause.downcast_ref() {
            Some(EncoderError::Files(error)) => Some(error),
            _ => match cause.downcast_ref() {
                Some(PipelineError::Files(error) | PipelineError::Encoder(EncoderError::Files(error))) => {
                    Some(error)
                }
                _ => cause.downcast_ref(),
            },
        };
        let is_missing = matches!(file, Some(FileError::MissingFile { .. }));
        if is_missing || cause.downcast_ref().is_some_and(is_not_found) {
            return true;
        }
        next = cause.source();
    }
    false
}

impl From<EncoderError> for Failure {
    fn from(error: EncoderError) -> Self {
        Self::new(error.kind(), &error)
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        Self::new(error.kind(), &error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(error.kind(), &error)
    }
}

impl From<CandleError> for Failure {
    fn from(error: CandleError) -> Self {
        EncoderError::from(error).into()
    }
}
