//! Defines what a running job needs of the place where its rows go, so that it can be resumed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::partial::Partial;
use crate::error::Result;
use crate::item::ItemKind;

/// How often work is saved.
const SAVE_EVERY: Duration = Duration::from_millis(500);

/// An item and its vector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// What identifies it in a database.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "files have no keys"))]
    pub(super) key: &'a str,
    /// The text, or the image's name.
    pub(super) item: &'a str,
    pub(super) vector: &'a [f32],
}

/// Where the rows of a running job go.
pub(super) trait RowSink {
    /// How many items of a kind are done.
    fn done(&self, kind: ItemKind) -> usize;

    /// Takes the row of the next item.
    ///
    /// # Errors
    /// If it cannot be stored.
    fn push(&mut self, kind: ItemKind, row: Row<'_>) -> Result<()>;

    /// Skips the next item, which has no vector.
    fn skip(&mut self, kind: ItemKind);

    /// Saves the work if that is due. Call it where the work can be resumed with the same result.
    ///
    /// # Errors
    /// If it cannot be stored.
    fn save_if_due(&mut self) -> Result<()>;

    /// Saves the work.
    ///
    /// # Errors
    /// If it cannot be stored.
    fn save(&mut self) -> Result<()>;

    /// What keeps the work, for messages.
    fn place(&self) -> PathBuf;
}

/// Whether work that was last saved then should be saved now.
pub(super) fn is_due(saved: Option<Instant>) -> bool {
    saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY)
}

impl RowSink for Partial {
    fn done(&self, kind: ItemKind) -> usize {
        match kind {
            ItemKind::Text => self.texts.counts().done,
            ItemKind::Image => self.images.counts().done,
        }
    }

    fn push(&mut self, kind: ItemKind, row: Row<'_>) -> Result<()> {
        match kind {
            ItemKind::Text => self.texts.push(row.item, row.vector),
            ItemKind::Image => self.images.push(row.item, row.vector),
        }
    }

    fn skip(&mut self, kind: ItemKind) {
        match kind {
            ItemKind::Text => self.texts.skip(),
            ItemKind::Image => self.images.skip(),
        }
    }

    fn save_if_due(&mut self) -> Result<()> {
        Self::save_if_due(self)
    }

    fn save(&mut self) -> Result<()> {
        Self::save(self)
    }

    fn place(&self) -> PathBuf {
        self.directory().to_owned()
    }
}
