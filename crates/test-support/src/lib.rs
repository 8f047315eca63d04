//! Shares golden files, random input and comparisons among the tests of all crates.
//!
//! Failures panic at the caller's line, because a test has nobody to return them to.

#![warn(missing_docs, unreachable_pub)]

mod comparison;
mod errors;
mod files;
mod random;

pub use comparison::{
    MODULE_TOLERANCE, assert_close, assert_each_close, largest_difference, relative_error,
    relative_error_above,
};
pub use errors::error_message;
pub use files::{copy_directory, golden, golden_json, golden_tensors, var_builder};
pub use random::{Random, normal};

/// What a test returns.
pub type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;
