//! Combines the tables of contents of a checkpoint's files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stored::{Listing, StoredTensor};

/// The tensors of all files, by name.
#[derive(Default)]
pub(super) struct Tables {
    pub tensors: BTreeMap<String, Located>,
    /// Those that cannot be read, and why.
    pub unreadable: BTreeMap<String, String>,
}

/// A tensor and the index of its file.
#[derive(Clone)]
pub(super) struct Located {
    pub file: usize,
    pub tensor: StoredTensor,
    /// Its scale, if it has one.
    pub scale: Option<Arc<Scale>>,
}

/// The scale of a weight, as stored in its file.
pub(super) struct Scale {
    /// The index of its file.
    pub file: usize,
    pub name: String,
    pub tensor: StoredTensor,
}

impl Located {
    /// One of `count` equal groups of rows.
    ///
    /// # Errors
    /// Says why there are none.
    pub(super) fn rows(&self, group: usize, count: usize) -> Result<Self, String> {
        if self.scale.is_some() {
            return Err(format!("it has scales, expected plain numbers in {count} groups of rows"));
        }
        let tensor = self.tensor.rows(group, count).ok_or_else(|| {
            format!("it has shape {:?}, expected {count} equal groups of rows", self.tensor.shape)
        })?;
        Ok(Self { tensor, ..self.clone() })
    }
}

impl Tables {
    /// Adds the tensors of the file with this index.
    pub(super) fn add(&mut self, file: usize, listing: Listing) {
        let located = |(name, tensor)| (name, Located { file, tensor, scale: None });
        self.tensors.extend(listing.tensors.into_iter().map(located));
        self.unreadable.extend(listing.unreadable);
    }
}
