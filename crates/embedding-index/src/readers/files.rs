//! Finds files by name.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The lower-case ending of a file's name, without its dot.
pub fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The entries of a folder, sorted by name.
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

/// Resolves a name in a data file, relative to that file's folder.
pub fn named_in(data: &Path, name: impl AsRef<Path>) -> PathBuf {
    data.parent().unwrap_or(Path::new("")).join(name)
}
