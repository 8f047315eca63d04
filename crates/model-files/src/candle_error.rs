//! Passes errors of other types through candle's.
//!
//! The backends of candle's `VarBuilder`, and the layers built with it, can only fail with [`candle_core::Error`].
//! Errors of this crate, or of crates that build models from it, pass through such code inside
//! [`CandleError::WrappedContext`]: [`carry`] wraps one, and [`carried`] recovers it with its source and kind.

use std::error::Error as StdError;
use std::fmt;

use candle_core::Error as CandleError;

use crate::error_kind::ErrorKind;

/// Wraps an error in candle's.
pub fn carry(error: impl StdError + Send + Sync + 'static) -> CandleError {
    CandleError::WrappedContext { wrapped: Box::new(Carried(error)), context: CONTEXT.to_owned() }
}

/// The error of type `E` that [`carry`] wrapped.
///
/// # Errors
/// Returns `error` if it wraps no such error.
pub fn carried<E: StdError + Send + Sync + 'static>(error: CandleError) -> Result<E, CandleError> {
    match error {
        CandleError::WithBacktrace { inner, .. } => carried(*inner),
        CandleError::WrappedContext { wrapped, context } => match wrapped.downcast::<Carried<E>>() {
            Ok(carried) => Ok(carried.0),
            Err(wrapped) => Err(CandleError::WrappedContext { wrapped, context }),
        },
        error => Err(error),
    }
}

/// The message of candle's error in one line. candle displays a backtrace, if one was captured, and puts contexts on
/// separate lines.
pub fn one_line(error: &CandleError) -> String {
    match error {
        CandleError::WithBacktrace { inner, .. } => one_line(inner),
        CandleError::Context { inner, context } => format!("{context}: {}", one_line(inner)),
        CandleError::WithPath { inner, path } => format!("{}: {}", path.display(), one_line(inner)),
        CandleError::WrappedContext { wrapped, context } if context == CONTEXT => wrapped.to_string(),
        error => error.to_string().replace('\n', " "),
    }
}

/// Classifies an error. If it was wrapped by [`carry`], [recover it](carried) and ask it instead.
pub fn kind(error: &CandleError) -> ErrorKind {
    match error {
        CandleError::WithBacktrace { inner, .. }
        | CandleError::Context { inner, .. }
        | CandleError::WithPath { inner, .. } => kind(inner),
        // The type of the driver's error depends on how candle was built.
        CandleError::Cuda(error) if is_out_of_memory(&error.to_string()) => ErrorKind::OutOfMemory,
        CandleError::Metal(error) if is_out_of_memory(&error.to_string()) => ErrorKind::OutOfMemory,
        _ => ErrorKind::Other,
    }
}

fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase().replace('_', " ");
    message.contains("out of memory")
}

/// The context after a message that candle displays itself.
const CONTEXT: &str = "while a model was loaded";

/// A wrapped error. candle displays what it wraps by `Debug`, so this formats it as a message.
struct Carried<E>(E);

impl<E: fmt::Display> fmt::Debug for Carried<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: fmt::Display> fmt::Display for Carried<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: StdError> StdError for Carried<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_is_told_from_a_broken_one() {
        let cuda = |message: &str| CandleError::Cuda(message.into()).context("attention");
        assert_eq!(
            kind(&cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")")),
            ErrorKind::OutOfMemory
        );
        assert_eq!(kind(&cuda("CUDA_ERROR_ILLEGAL_ADDRESS")), ErrorKind::Other);
    }
}
