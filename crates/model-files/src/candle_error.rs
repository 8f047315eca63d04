//! Takes errors of other types through candle's own.
//!
//! The backends of candle's `VarBuilder`, and the layers that are built with it, can fail with [`candle_core::Error`] alone.
//! An error of this crate, or of one that builds models from it, goes through such code in [`CandleError::WrappedContext`]:
//! [`carry`] puts it in, and [`carried`] takes it out again, whole, with its source and its kind.

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
/// Gives `error` back if it is none of these.
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

/// The message of candle's error in one line. Candle displays a backtrace, where one was captured, and puts contexts on lines
/// of their own.
pub fn one_line(error: &CandleError) -> String {
    match error {
        CandleError::WithBacktrace { inner, .. } => one_line(inner),
        CandleError::Context { inner, context } => format!("{context}: {}", one_line(inner)),
        CandleError::WithPath { inner, path } => format!("{}: {}", path.display(), one_line(inner)),
        CandleError::WrappedContext { wrapped, context } if context == CONTEXT => wrapped.to_string(),
        error => error.to_string().replace('\n', " "),
    }
}

/// Whose fault it is. What [`carry`] wrapped is best [taken out](carried) and asked itself.
pub fn kind(error: &CandleError) -> ErrorKind {
    match error {
        CandleError::WithBacktrace { inner, .. }
        | CandleError::Context { inner, .. }
        | CandleError::WithPath { inner, .. } => kind(inner),
        // The driver's error is of a type that depends on how candle was built.
        CandleError::Cuda(error) if is_out_of_memory(&error.to_string()) => ErrorKind::OutOfMemory,
        CandleError::Metal(error) if is_out_of_memory(&error.to_string()) => ErrorKind::OutOfMemory,
        _ => ErrorKind::Other,
    }
}

fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase().replace('_', " ");
    message.contains("out of memory")
}

/// What stands behind a message that candle displays itself.
const CONTEXT: &str = "while a model was loaded";

/// An error on its way. Candle displays what it wraps by `Debug`, and this makes a message of that.
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
