//! Locks a folder, so that only one process trains in it.

use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::Path;

const LOCK_FILE: &str = "lock";

/// A lock on a folder, which the system releases when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a folder.
    ///
    /// # Errors
    /// If another process holds the lock.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let file = File::create(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::format(folder, "another process is training in this folder"))
            }
            Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
        }
    }
}
