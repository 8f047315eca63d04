//! Finds files by their names.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The ending of a file's name, in lower case and without its dot.
pub fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// What is directly in a folder, sorted by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(Error::io(folder))?;
    paths.sort();
    Ok(paths)
}

/// What a name in a file of data stands for, which begins in the folder of that file.
pub fn named_in(data: &Path, name: impl AsRef<Path>) -> PathBuf {
    data.parent().unwrap_or(Path::new("")).join(name)
}
