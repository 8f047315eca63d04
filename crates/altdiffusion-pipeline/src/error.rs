//! What can go wrong between hidden states and pictures.

/// One line that says what was expected, what was found, and where.
#[derive(Debug, thiserror::Error)]
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

    /// A weight is missing or does not fit, or an operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
