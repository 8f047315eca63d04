//! Helps fuzz targets whose parsers read from a path.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Calls `parser` with a file of this name and content. `$TMPDIR` should be in memory.
///
/// # Panics
/// If the file cannot be written: nothing would be tested then.
pub fn in_file(name: &str, bytes: &[u8], parser: impl FnOnce(&Path)) {
    let path: PathBuf = FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a temporary folder"));
        folder.path().join(name)
    });
    std::fs::write(&path, bytes).expect("a file in the temporary folder");
    parser(&path);
}
