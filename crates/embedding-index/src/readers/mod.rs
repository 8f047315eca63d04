//! Reads texts and images from common kinds of files: lists, tables, archives and folders.
//!
//! * [`TextInputs`] and [`ImageInputs`] are what a [`Job`](crate::Job) embeds, and [`ListFile`] is a list in a file.
//! * [`TextTable`] reads columns of texts, and [`ImagePairs`] captioned images.
//! * Below them, [`text_file`] reads lines, JSON lines and CSV, and [`parquet_column`] a column of a Parquet file.

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod archive;
pub mod files;
mod folder;
mod ignored_files;
mod image_inputs;
mod image_pairs;
mod list_file;
mod list_values;
pub mod parquet_column;
mod parquet_images;
mod samples;
mod shards;
mod short_list;
mod skipped;
pub mod text_file;
mod text_inputs;
mod text_table;

pub use ignored_files::IgnoredFiles;
pub use image_inputs::ImageInputs;
pub use image_pairs::ImagePairs;
pub use list_file::ListFile;
pub use short_list::read_short_list;
pub use skipped::Skipped;
pub use text_file::ListFormat;
pub use text_inputs::TextInputs;
pub use text_table::TextTable;

use crate::error::Error;

/// What a reader yields, ending after an error.
pub type Items<T, E = Error> = Box<dyn Iterator<Item = Result<T, E>> + Send>;

/// The default column of images in a table.
const IMAGE_COLUMN: &str = "image";
