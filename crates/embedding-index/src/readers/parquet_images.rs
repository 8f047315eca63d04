//! Reads images stored in a Parquet file.

use super::Items;
use super::files::named_in;
use super::parquet_column::{self, ColumnError};
use super::text_table::TextTable;
use crate::error::{Error, Result};
use altclip_encoder::embedder::ImageSource;
use model_files::open_file;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of a Parquet file with a column of images.
#[derive(Debug, Clone)]
pub(super) struct ParquetImages {
    pub(super) path: PathBuf,
    column: String,
    /// Counted from 1, ascending.
    pub(super) numbers: Arc<Vec<usize>>,
}

impl ParquetImages {
    /// Reads the rows that have text in all columns of captions, with that text.
    ///
    /// # Errors
    /// If the file cannot be read, has no such columns, or no row is left.
    pub(super) fn read(path: &Path, column: &str, captions: &[&str]) -> Result<(Self, TextTable)> {
        let table = if captions.is_empty() {
            let mut table = TextTable::default();
            // Reading the names is cheaper than reading the images, and there are as many.
            for (number, name) in (1..).zip(open(path, column, parquet_column::image_names)?) {
                name.map_err(Error::column(path))?;
                table.push(number, Vec::new());
            }
            table
        } else {
            TextTable::read(path, captions)?
        };
        let numbers = Arc::new(table.numbers.clone());
        Ok((Self { path: path.to_owned(), column: column.to_owned(), numbers }, table))
    }

    /// Iterates the images, reading one at a time. If the file becomes unreadable, all remaining ones are too.
    pub(super) fn images(self) -> impl Iterator<Item = ImageSource> + Send + 'static {
        let Self { path, column, numbers } = self;
        let (items, mut problem) = match open(&path, &column, parquet_column::images) {
            Ok(items) => (Some(items), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut rows = (1..).zip(items.into_iter().flatten());
        let count = numbers.len();
        (0..count).filter_map(move |place| {
            let &number = numbers.get(place)?;
            if problem.is_none() {
                problem = match rows.find(|(row, item)| *row == number || item.is_err()) {
                    Some((_, Ok(image))) => return Some(in_file(&path, image)),
                    Some((_, Err(error))) => Some(error.to_string()),
                    None => Some("the file changed while it was read".to_owned()),
                };
            }
            let name = format!("{}: row {number}", path.display()).into();
            Some(ImageSource::Unreadable { name, problem: problem.clone()? })
        })
    }
}

fn open<T>(
    path: &Path,
    column: &str,
    read: impl FnOnce(File, &str) -> Result<Items<T, ColumnError>, ColumnError>,
) -> Result<Items<T, ColumnError>> {
    let file = open_file(path).map_err(Error::io(path))?;
    read(file, column).map_err(Error::column(path))
}

/// Paths are relative to the file's folder; other names mention the file.
fn in_file(file: &Path, image: ImageSource) -> ImageSource {
    match image {
        ImageSource::Path(path) => ImageSource::Path(named_in(file, path)),
        ImageSource::Bytes { name, bytes } => {
            let name = format!("{}: {}", file.display(), name.display()).into();
            ImageSource::Bytes { name, bytes }
        }
        other => other,
    }
}
