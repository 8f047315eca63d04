//! Defines a source of texts for a stage.

use crate::error::Result;
use crate::run::Batch;

/// Texts, each with the row of its vector in a table.
pub trait TextRows: Sync {
    /// Draws `count` texts with their rows.
    ///
    /// # Errors
    /// If there is nothing to draw.
    fn draw(&self, batch: &mut Batch, count: usize) -> Result<(Vec<String>, Vec<u32>)>;
}
