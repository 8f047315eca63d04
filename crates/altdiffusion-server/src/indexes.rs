//! Searches indexes, and serves the images that they list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use altclip_encoder::images::MAX_FILE_BYTES;
use embedding_index::library::{ImageLibrary, LibrarySearch};
use embedding_index::{Hit, Index, ItemKind, SearchOptions};

use crate::error::Result;
use crate::problem::Problem;

/// An index that the server offers.
pub(crate) struct ServedIndex {
    pub(crate) name: String,
    /// The model that made the vectors, if the file says.
    model: Option<String>,
    kind: Kind,
}

enum Kind {
    /// A file of vectors.
    Vectors(Index),
    /// The database of a library. It is opened for every search, because it may change meanwhile.
    Library(PathBuf),
}

impl ServedIndex {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it is not an index.
    pub(crate) fn open(name: &str, path: &Path) -> Result<Arc<Self>> {
        let (model, kind) = if ImageLibrary::is_database(path) {
            let model = ImageLibrary::open(path)?.made_with().model.clone();
            (Some(model), Kind::Library(path.to_owned()))
        } else {
            let index = Index::open(path)?;
            (index.info().map(|info| info.model.clone()), Kind::Vectors(index))
        };
        Ok(Arc::new(Self { name: name.to_owned(), model, kind }))
    }

    /// The model that made the vectors, if the file says.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The number of texts and images.
    pub(crate) fn len(&self) -> usize {
        match &self.kind {
            Kind::Vectors(index) => index.len(ItemKind::Text) + index.len(ItemKind::Image),
            Kind::Library(file) => {
                let status = ImageLibrary::open(file).and_then(|library| library.status());
                status.map_or(0, |status| status.images)
            }
        }
    }

    /// The nearest items, at most `top`.
    ///
    /// # Errors
    /// If the vector has another dimension, or the file is damaged.
    pub(crate) fn search(&self, vector: &[f32], top: usize) -> std::result::Result<Vec<Hit>, Problem> {
        let found = match &self.kind {
            Kind::Vectors(index) => index.search(vector, SearchOptions { top, ..SearchOptions::default() }),
            Kind::Library(file) => search_library(file, vector, top),
        };
        found.map_err(|error| Problem::invalid(error.to_string()))
    }

    /// The file of the image in this row, which the index lists under this path, and its media type. Files that are
    /// not images are not served.
    ///
    /// # Errors
    /// If there is no such row, or its file cannot be read.
    pub(crate) fn image(&self, row: usize) -> std::result::Result<(Vec<u8>, &'static str), Problem> {
        let missing = || Problem::not_found(format!("no image {row} in this index"));
        let path = self.path_of(row).ok_or_else(missing)?;
        let readable = path.metadata().is_ok_and(|file| file.is_file() && file.len() <= MAX_FILE_BYTES);
        let bytes = std::fs::read(&path).ok().filter(|_| readable).ok_or_else(missing)?;
        let format = image::guess_format(&bytes).map_err(|_| missing())?;
        Ok((bytes, format.to_mime_type()))
    }

    fn path_of(&self, row: usize) -> Option<PathBuf> {
        let path = match &self.kind {
            Kind::Vectors(index) => {
                let exists = row < index.len(ItemKind::Image);
                exists.then(|| index.item(ItemKind::Image, row).ok())?
            }
            Kind::Library(file) => {
                let library = ImageLibrary::open(file).ok()?;
                library.image(row.try_into().ok()?).ok()?.map(|image| image.path)
            }
        };
        path.map(PathBuf::from)
    }
}

fn search_library(file: &Path, vector: &[f32], top: usize) -> embedding_index::Result<Vec<Hit>> {
    let search = LibrarySearch { top, ..LibrarySearch::default() };
    let hits = ImageLibrary::open(file)?.search(vector, &search)?.into_iter().filter_map(|hit| {
        let row = hit.image.id.try_into().ok()?;
        Some(Hit { kind: ItemKind::Image, row, item: hit.image.path, score: hit.score })
    });
    Ok(hits.collect())
}
