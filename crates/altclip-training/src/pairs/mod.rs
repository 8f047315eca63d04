//! Pairs for training: texts with texts, and images with texts, from files that people have.

mod archive;
mod folder;
mod image_pairs;
pub mod parquet_column;
mod rows;
mod samples;
mod shards;
mod shuffled;
mod skipped;
mod table;

pub use image_pairs::ImagePairs;
pub use shuffled::Shuffled;
pub use skipped::Skipped;
pub use table::{Table, no_string};

use crate::error::Result;
use crate::run::Batch;

/// Texts, each with a row of a table of vectors that it belongs to.
pub trait TextRows: Sync {
    /// Draws `count` texts and the rows that belong to them.
    ///
    /// # Errors
    /// If there is nothing to draw.
    fn draw(&self, batch: &mut Batch, count: usize) -> Result<(Vec<String>, Vec<u32>)>;
}
