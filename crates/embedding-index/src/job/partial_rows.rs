//! Appends vectors and their items to files, which are cut where the latest saved state ends.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::output::StoredRows;

/// How many texts or images are done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Items processed.
    pub(super) done: usize,
    /// Items with a vector.
    pub(super) rows: usize,
    /// The length of the items' file.
    item_bytes: u64,
}

/// Vectors and their items, in two growing files.
pub(super) struct PartialRows {
    width: usize,
    counts: Counts,
    vectors: BufWriter<File>,
    items: BufWriter<File>,
    /// Little-endian f32, row by row.
    pub(super) vectors_path: PathBuf,
    /// A JSON string per line.
    pub(super) items_path: PathBuf,
}

impl PartialRows {
    /// Opens the files of a kind in a directory, cut to what was saved.
    ///
    /// # Errors
    /// If they are shorter, or cannot be written.
    pub(super) fn open(directory: &Path, kind: &str, width: usize, counts: Counts) -> Result<Self> {
        let vectors_path = directory.join(format!("{kind}.f32"));
        let items_path = directory.join(format!("{kind}.jsonl"));
        let row_bytes = width as u64 * size_of::<f32>() as u64;
        let vector_bytes = (counts.rows as u64).checked_mul(row_bytes);
        let vector_bytes = vector_bytes.ok_or_else(|| Error::format(directory, "too many rows"))?;
        let vectors = cut_to(&vectors_path, vector_bytes)?;
        let items = cut_to(&items_path, counts.item_bytes)?;
        let (vectors, items) = (BufWriter::new(vectors), BufWriter::new(items));
        Ok(Self { width, counts, vectors, items, vectors_path, items_path })
    }

    /// The rows that were flushed.
    pub(super) fn stored(&self) -> StoredRows<'_> {
        StoredRows { rows: self.counts.rows, vectors: &self.vectors_path, items: &self.items_path }
    }

    /// How much is done.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends the vector of the next item.
    ///
    /// # Errors
    /// If the vector has another dimension, or the files cannot be written.
    pub(super) fn push(&mut self, item: &str, vector: &[f32]) -> Result<()> {
        if vector.len() != self.width {
            let problem = format!("a vector of {} numbers, expected {}", vector.len(), self.width);
            return Err(Error::format(&self.vectors_path, problem));
        }
        for number in vector {
            self.vectors.write_all(&number.to_le_bytes()).map_err(Error::io(&self.vectors_path))?;
        }
        let mut line = serde_json::to_vec(item).map_err(|error| Error::format(&self.items_path, error))?;
        line.push(b'\n');
        self.items.write_all(&line).map_err(Error::io(&self.items_path))?;
        self.counts.done += 1;
        self.counts.rows += 1;
        self.counts.item_bytes += line.len() as u64;
        Ok(())
    }

    /// Skips the next item, which has no vector.
    pub(super) fn skip(&mut self) {
        self.counts.done += 1;
    }

    /// Writes everything to the disk.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        for file in [&mut self.vectors, &mut self.items] {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        Ok(())
    }
}

/// The file truncated to its first `length` bytes, for appending.
fn cut_to(path: &Path, length: u64) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
    let found = file.metadata().map_err(Error::io(path))?.len();
    if found < length {
        let problem =
            format!("expected at least {length} bytes, found {found}; delete its folder to start anew");
        return Err(Error::format(path, problem));
    }
    file.set_len(length).map_err(Error::io(path))?;
    Ok(file)
}
