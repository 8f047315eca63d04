//! Finds a model's files, and reads what is in them.

pub mod candle_error;
pub mod checkpoint;
pub mod config;
#[cfg(feature = "hub")]
mod download;
mod error;
mod error_kind;
mod file_data;
pub mod foreign;
mod relative_path;
pub mod source;
mod survey;
mod whole_file;

pub use checkpoint::Checkpoint;
#[cfg(feature = "hub")]
pub use download::Downloaded;
pub use error::{Error, Result};
pub use error_kind::ErrorKind;
pub use file_data::FileData;
pub use relative_path::in_folder;
pub use source::ModelSource;
pub use survey::{Misshapen, Missing, PartReport, Survey, Unreadable};
pub use whole_file::{WholeFile, write_whole};
