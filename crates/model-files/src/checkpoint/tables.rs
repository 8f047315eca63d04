//! Holds the tables of contents of a checkpoint's files, put together.

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

/// A tensor and the number of its file.
#[derive(Clone)]
pub(super) struct Located {
    pub file: usize,
    pub tensor: StoredTensor,
    /// What its numbers are to be multiplied by, if anything.
    pub scale: Option<Arc<Scale>>,
}

/// The scale of a weight, as it lies in its file.
pub(super) struct Scale {
    /// The number of its file.
    pub file: usize,
    pub name: String,
    pub tensor: StoredTensor,
}

impl Tables {
    /// Adds the tensors of the file of this number.
    pub(super) fn add(&mut self, file: usize, listing: Listing) {
        let located = |(name, tensor)| (name, Located { file, tensor, scale: None });
        self.tensors.extend(listing.tensors.into_iter().map(located));
        self.unreadable.extend(listing.unreadable);
    }
}
