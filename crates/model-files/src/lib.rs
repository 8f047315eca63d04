//! Finds a model's files, and reads what is in them.

pub mod candle_error;
pub mod checkpoint;
pub mod config;
mod error;
pub mod foreign;
pub mod source;
mod whole_file;

pub use error::{Error, ErrorKind, Result};
pub use whole_file::{WholeFile, write_whole};
