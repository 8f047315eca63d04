//! Combines the tables of contents of a checkpoint's files.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::Dtype;

use super::element::ElementType;
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
    /// What its input's channels are multiplied by, if they are: its columns have been divided by it.
    pub smoothing: Option<Arc<Scale>>,
}

/// The scale of a weight, or of its input, as stored in its file.
pub(super) struct Scale {
    /// The index of its file.
    pub file: usize,
    pub name: String,
    pub tensor: StoredTensor,
}

impl Located {
    /// Whether it is stored in int8 with a scale for each row.
    pub(super) fn is_in_int8(&self) -> bool {
        let rows = self.tensor.shape.first();
        let is_per_row = |scale: &Arc<Scale>| match scale.tensor.shape.as_slice() {
            [of_rows, rest @ ..] => Some(of_rows) == rows && rest.iter().all(|side| *side == 1),
            [] => false,
        };
        self.tensor.dtype == ElementType::Plain(Dtype::I8) && self.scale.as_ref().is_some_and(is_per_row)
    }

    /// One of `count` equal groups of rows.
    ///
    /// # Errors
    /// Says why there are none.
    pub(super) fn rows(&self, group: usize, count: usize) -> Result<Self, String> {
        let misfit =
            || format!("it has shape {:?}, expected {count} equal groups of rows", self.tensor.shape);
        let scale = match &self.scale {
            Some(scale) if self.is_in_int8() => {
                let tensor = scale.tensor.rows(group, count).ok_or_else(misfit)?;
                Some(Arc::new(Scale { file: scale.file, name: scale.name.clone(), tensor }))
            }
            Some(_) => {
                return Err(format!("it has scales, expected plain numbers in {count} groups of rows"));
            }
            None => None,
        };
        let tensor = self.tensor.rows(group, count).ok_or_else(misfit)?;
        Ok(Self { file: self.file, tensor, scale, smoothing: self.smoothing.clone() })
    }
}

impl Tables {
    /// Adds the tensors of the file with this index.
    pub(super) fn add(&mut self, file: usize, listing: Listing) {
        let located = |(name, tensor)| (name, Located { file, tensor, scale: None, smoothing: None });
        self.tensors.extend(listing.tensors.into_iter().map(located));
        self.unreadable.extend(listing.unreadable);
    }
}
