//! What can go wrong between a model's name and its vectors.

use candle_core::Error as CandleError;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Each displays as one line that names the file or option it is about.
///
/// A `file` is what a person can find again: a path, or for a model embedded in the program its name and the file in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system could not read or write a file.
    #[error("{file}: {source}")]
    Io { file: String, source: std::io::Error },

    /// A model lacks a file that it must have. `file` is relative to `model`, or a list of the accepted alternatives.
    #[error("{model}: no file {file}")]
    MissingFile { model: String, file: String },

    /// A file is there but is not what its format demands: truncated, corrupted, hostile, or something else altogether.
    #[error("{file}: {problem}")]
    Format { file: String, problem: String },

    /// A configuration file lacks a field, or holds a value that cannot be used.
    #[error("{file}: {problem}")]
    Config { file: String, problem: String },

    /// The configuration asks for a tensor that the weights lack. `nearest` is the most alike of the names they have.
    #[error("{file}: no tensor {name}{}", nearest_hint(.nearest))]
    MissingTensor { name: String, file: String, nearest: Option<String> },

    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} in {file} has shape {found:?}, expected {expected:?} from the config")]
    ShapeMismatch { name: String, file: String, found: Vec<usize>, expected: Vec<usize> },

    /// A model name is neither a directory nor a repository on the hub, or the hub did not deliver.
    #[error("{0}")]
    Hub(String),

    /// The tokenizer could not be built or could not encode a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),

    /// A value that the caller passed in is out of its range.
    #[error("{0}")]
    Input(String),

    /// A tensor operation failed.
    #[error("{}", one_line(.0))]
    Candle(Box<CandleError>),
}

impl Error {
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

/// Candle's `VarBuilder` lets its backends fail with candle's error only. This crate's errors travel through it as the
/// payload of an I/O error, which displays as its payload does, and come out here as they went in.
impl From<Error> for CandleError {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => *error,
            error => Self::Io(std::io::Error::other(error)),
        }
    }
}

impl From<CandleError> for Error {
    fn from(error: CandleError) -> Self {
        match error {
            CandleError::WithBacktrace { inner, .. } => Self::from(*inner),
            CandleError::Io(error) => error
                .downcast::<Self>()
                .unwrap_or_else(|error| Self::Candle(Box::new(CandleError::Io(error)))),
            error => Self::Candle(Box::new(error)),
        }
    }
}

fn nearest_hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (the nearest name there is {name})")).unwrap_or_default()
}

/// Candle displays a backtrace, where one was captured, and puts contexts on lines of their own.
fn one_line(error: &CandleError) -> String {
    match error {
        CandleError::WithBacktrace { inner, .. } => one_line(inner),
        CandleError::Context { inner, context } => format!("{context}: {}", one_line(inner)),
        CandleError::WithPath { inner, path } => format!("{}: {}", path.display(), one_line(inner)),
        error => error.to_string().replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way_through_candle() {
        let error =
            Error::MissingTensor { name: "a.weight".into(), file: "m.safetensors".into(), nearest: None };
        let line = error.to_string();
        let through = CandleError::from(error);
        assert_eq!(through.to_string(), line);
        assert!(matches!(Error::from(through.bt()), Error::MissingTensor { name, .. } if name == "a.weight"));
    }

    #[test]
    fn candle_errors_are_one_line() {
        let inner = CandleError::Msg("first\nsecond".into());
        let error = Error::from(inner.context("while loading").bt());
        assert_eq!(error.to_string(), "while loading: first second");
    }
}
