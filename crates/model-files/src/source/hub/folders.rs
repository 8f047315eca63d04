//! Lists the cache's folders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The entries of a directory; empty if there is none.
pub(super) fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let error = || Error::io(path.display().to_string());
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(error())?.path())).collect(),
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(other) => Err(error()(other)),
    }
}

/// All files and links in a directory and below.
pub(super) fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in entries(path)? {
        match entry.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            true => files.extend(files_below(&entry)?),
            false => files.push(entry),
        }
    }
    Ok(files)
}
