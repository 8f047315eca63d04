//! Checks expected errors.

use std::fmt::Display;

/// The message of an error that must occur, also of a result whose value cannot be printed.
#[track_caller]
pub fn error_message<T, E: Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}
