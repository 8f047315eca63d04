//! Defines where a stage draws its texts from.

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
