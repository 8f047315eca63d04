//! Writes vectors and items to a file in formats that other programs read, never holding a whole file in memory.

mod npy;
mod parquet;
pub(crate) mod parquet_folder;
pub(crate) mod safetensors;

use std::error::Error as StdError;
use std::io;
use std::path::{Path, is_separator};

use crate::error::{Error, Result};
use crate::item::IndexInfo;

/// A format for vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputFormat {
    /// `.safetensors`, the only one that an [`Index`](crate::Index) can search: `text_embeds` and `image_embeds` of
    /// shape (items, width), f32, and `texts` and `images`, u8, with the items in order, a JSON string per line.
    Safetensors,
    /// `.npy`: an array (items, width), f32, of either texts or images.
    Npy,
    /// `.parquet`: the columns `text`, `image` and `embedding`. Its metadata `altdiffusion_embed` say how they were made, as
    /// those of safetensors do.
    Parquet,
    /// A path that ends with a separator: a folder of such files, `part-00000.parquet` and so on, which DuckDB,
    /// LanceDB, Spark and pyarrow read as one table.
    ParquetFolder,
}

/// Vectors and their items, stored in two files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredRows<'a> {
    /// The number of rows.
    pub(crate) rows: usize,
    /// Little-endian f32, row by row.
    pub(crate) vectors: &'a Path,
    /// A JSON string per line.
    pub(crate) items: &'a Path,
}

/// The result of writing a format.
type WriteResult<T = ()> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

impl OutputFormat {
    /// The format for the ending of a path.
    ///
    /// # Errors
    /// If the ending is another.
    pub fn from_path(path: &Path) -> Result<Self> {
        if path.as_os_str().to_string_lossy().ends_with(is_separator) {
            return Ok(Self::ParquetFolder);
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match ending.as_str() {
            "safetensors" => Ok(Self::Safetensors),
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::format(path, "expected a name that ends in .safetensors, .npy or .parquet")),
        }
    }

    /// Writes the vectors of texts and images, with dimension `width`.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn write(
        self,
        path: &Path,
        width: usize,
        texts: StoredRows<'_>,
        images: StoredRows<'_>,
        info: &IndexInfo,
    ) -> Result<()> {
        let written = match self {
            Self::Safetensors => safetensors::write(path, width, texts, images, info),
            Self::Npy => npy::write(path, width, [texts, images]),
            Self::Parquet => parquet::write(path, width, texts, images, info),
            Self::ParquetFolder => {
                parquet_folder::write(path, width, texts, images, parquet_folder::FILE_ROWS, info)
            }
        };
        written.map_err(|error| match error.downcast::<io::Error>() {
            Ok(source) => Error::io(path)(*source),
            Err(source) => Error::Output { file: path.display().to_string(), source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_the_ending() {
        let format = |path: &str| OutputFormat::from_path(Path::new(path)).ok();
        assert_eq!(format("a.safetensors"), Some(OutputFormat::Safetensors));
        assert_eq!(format("a.b.NPY"), Some(OutputFormat::Npy));
        assert_eq!(format("a.parquet"), Some(OutputFormat::Parquet));
        assert_eq!(format("a.parquet/"), Some(OutputFormat::ParquetFolder));
        for path in ["a", ".npy", "a.npz"] {
            assert_eq!(format(path), None, "{path}");
        }
    }
}
