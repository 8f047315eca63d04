//! Lets one process change a library at a time.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::problem::problem_at;
use crate::error::{DatabaseProblem, Error, Result};

/// A lock on a file beside the database. The database's own locks last for a transaction only, but a run plans by what it
/// read before.
#[derive(Debug)]
pub(super) struct WriterLock {
    _file: File,
    path: PathBuf,
}

impl WriterLock {
    pub(super) fn take(database: &Path) -> Result<Self> {
        let mut name = database.file_name().map_or_else(OsString::new, OsString::from);
        name.push("-writer");
        let path = database.with_file_name(name);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                problem_at(database, DatabaseProblem::ReadOnly)
            }
            std::io::ErrorKind::StorageFull => problem_at(database, DatabaseProblem::Full),
            _ => Error::io(database)(error),
        })?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(problem_at(database, DatabaseProblem::Locked)),
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) => {
                tracing::debug!("no lock: {error}");
                Ok(Self { _file: file, path })
            }
            Ok(()) => Ok(Self { _file: file, path }),
        }
    }
}

/// Removes the file. Failing to is harmless.
impl Drop for WriterLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
