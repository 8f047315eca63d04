//! Searches indexes, and serves the images that they list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use altclip_encoder::images::MAX_FILE_BYTES;
use embedding_index::{Hit, Index, ItemKind, SearchOptions};

use crate::error::Result;
use crate::problem::Problem;

/// An index that the server offers.
pub(crate) struct ServedIndex {
    pub(crate) name: String,
    pub(crate) index: Index,
}

impl ServedIndex {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it is not an index.
    pub(crate) fn open(name: &str, path: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { name: name.to_owned(), index: Index::open(path)? }))
    }

    /// The model that made the vectors, if the file says.
    pub(crate) fn model(&self) -> Option<&str> {
        self.index.info().map(|info| info.model.as_str())
    }

    /// The nearest items, at most `top`.
    ///
    /// # Errors
    /// If the vector has another dimension, or the file is damaged.
    pub(crate) fn search(&self, vector: &[f32], top: usize) -> std::result::Result<Vec<Hit>, Problem> {
        let options = SearchOptions { top, ..SearchOptions::default() };
        self.index.search(vector, options).map_err(|error| Problem::invalid(error.to_string()))
    }

    /// The file of the image in this row, which the index lists under this path, and its media type. Files that are
    /// not images are not served.
    ///
    /// # Errors
    /// If there is no such row, or its file cannot be read.
    pub(crate) fn image(&self, row: usize) -> std::result::Result<(Vec<u8>, &'static str), Problem> {
        let missing = || Problem::not_found(format!("no image {row} in this index"));
        if row >= self.index.len(ItemKind::Image) {
            return Err(missing());
        }
        let path = PathBuf::from(self.index.item(ItemKind::Image, row).map_err(|_| missing())?);
        let readable = path.metadata().is_ok_and(|file| file.is_file() && file.len() <= MAX_FILE_BYTES);
        let bytes = std::fs::read(&path).ok().filter(|_| readable).ok_or_else(missing)?;
        let format = image::guess_format(&bytes).map_err(|_| missing())?;
        Ok((bytes, format.to_mime_type()))
    }
}
