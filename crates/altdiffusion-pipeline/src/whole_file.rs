//! Files that are there whole or not at all.

use std::io;
use std::path::Path;

use tempfile::Builder;

use crate::{Error, Result};

/// Writes the file at `path` by way of a temporary file beside it, which `write` fills at the path it is given and
/// which takes its place only once `write` has succeeded. A file that was there before is replaced.
///
/// # Errors
/// When there is no such directory, it cannot be written, or `write` fails; then nothing is left behind.
pub fn write_whole(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        let problem = format!("cannot be written: {} is not a directory", directory.display());
        return Err(Error::content(path.display().to_string(), problem));
    }
    if path.is_dir() {
        let problem = "cannot be written: expected a file, found a directory";
        return Err(Error::content(path.display().to_string(), problem));
    }
    let mut builder = Builder::new();
    // Temporary files are private to their owner by default; this one stays, so the umask alone decides.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(directory).map_err(|error| Error::io(path, error))?;
    write(temporary.path()).map_err(|error| Error::io(path, error))?;
    temporary.persist(path).map_err(|error| Error::io(path, error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("file");
        std::fs::write(&path, "old")?;
        let failed = write_whole(&path, |temporary| {
            std::fs::write(temporary, "half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err_and(|error| error.to_string().ends_with("file: the disk is full")));
        assert_eq!(std::fs::read_to_string(&path)?, "old");
        assert_eq!(std::fs::read_dir(directory.path())?.count(), 1);
        assert!(write_whole(&path, |temporary| std::fs::write(temporary, "new")).is_ok());
        assert_eq!(std::fs::read_to_string(&path)?, "new");
        Ok(())
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        for path in [directory.path().join("missing").join("file"), directory.path().to_path_buf()] {
            let error = write_whole(&path, |_| Ok(())).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with(&path.display().to_string())));
        }
        Ok(())
    }
}
