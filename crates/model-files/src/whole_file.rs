//! Writes files atomically.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{Error, Result};

/// A file written under a temporary name beside its path, and renamed when [finished](Self::finish), replacing an
/// existing file. If dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl WholeFile {
    /// Starts writing the file at `path`, with an empty temporary file beside it.
    ///
    /// # Errors
    /// If the directory does not exist, `path` is a directory, or no file can be written there.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let temporary = temporary_beside(&path)?;
        Ok(Self { path, temporary })
    }

    /// Where to write its content: the temporary file.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Moves the file into place.
    ///
    /// # Errors
    /// If the operating system refuses; nothing is left behind then.
    pub fn finish(self) -> Result<()> {
        let persisted = self.temporary.persist(&self.path);
        persisted.map(drop).map_err(|error| Error::io(self.path.display().to_string())(error.error))
    }
}

/// Writes the file at `path` through a temporary file beside it: `write` fills the file at the path it is given,
/// which is renamed once `write` has succeeded. An existing file is replaced.
///
/// # Errors
/// If the directory does not exist, the file cannot be written, or `write` fails; nothing is left behind then.
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

/// Temporary files are private to their owner; this one stays, so the umask decides.
#[cfg(unix)]
fn let_umask_decide(builder: &mut Builder) {
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
}

/// Other systems have no such permissions.
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
