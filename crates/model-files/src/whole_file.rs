//! Writes files that are there whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{Error, Result};

/// A file that is being written beside its place, and takes it only once it is [finished](Self::finish). A file that was there
/// before is replaced then. Dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl WholeFile {
    /// Begins the file whose place is `path`, with an empty temporary file beside it.
    ///
    /// # Errors
    /// When there is no such directory, a directory is at `path`, or no file can be written there.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let temporary = temporary_beside(&path)?;
        Ok(Self { path, temporary })
    }

    /// Where to write its content: the temporary file.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When the operating system refuses; then nothing is left behind.
    pub fn finish(self) -> Result<()> {
        let persisted = self.temporary.persist(&self.path);
        persisted.map(drop).map_err(|error| Error::io(self.path.display().to_string())(error.error))
    }
}

/// Writes the file at `path` by way of a temporary file beside it, which `write` fills at the path it is given and
/// which takes its place only once `write` has succeeded. A file that was there before is replaced.
///
/// # Errors
/// When there is no such directory, it cannot be written, or `write` fails; then nothing is left behind.
pub fn write_whole(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let file = WholeFile::create(path)?;
    write(file.path()).map_err(Error::io(path.display().to_string()))?;
    file.finish()
}

fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let shown = path.display().to_string();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        let problem = format!("cannot be written: {} is not a directory", directory.display());
        return Err(Error::format(&shown, problem));
    }
    if path.is_dir() {
        let problem = "cannot be written: expected a file, found a directory";
        return Err(Error::format(&shown, problem));
    }
    let mut builder = Builder::new();
    let_umask_decide(&mut builder);
    builder.tempfile_in(directory).map_err(Error::io(shown))
}

/// Temporary files are private to their owner by default; this one stays, so the umask alone decides.
#[cfg(unix)]
fn let_umask_decide(builder: &mut Builder) {
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
}

/// Elsewhere, files have no such permissions.
#[cfg(not(unix))]
fn let_umask_decide(_: &mut Builder) {}

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
