//! Writes files atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::temporary::Temporary;
use crate::{Error, Result};

/// The names of this process's standard output.
const STANDARD_OUTPUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// The longest chain of symbolic links followed, as on Linux.
const MOST_LINKS: usize = 40;

/// A file written under a temporary name beside its path, and renamed when [finished](Self::finish), replacing an
/// existing file. If dropped before that, it leaves nothing behind.
///
/// A symbolic link is followed. Into a pipe or a device, the whole content is written at the end.
#[derive(Debug)]
pub struct WholeFile {
    /// As the caller knows it, for errors.
    path: PathBuf,
    target: Target,
    temporary: Temporary,
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file, new or to be replaced, at this path without symbolic links.
    File(PathBuf),
    /// A pipe or a device, which is written to.
    Stream,
    /// Standard output under one of its names, such as `/dev/stdout`.
    StandardOutput,
}

impl Target {
    /// Where an output called `path` goes.
    ///
    /// # Errors
    /// If it is a directory, a socket or a disk, or its directory does not exist.
    pub fn of(path: &Path) -> Result<Self> {
        if STANDARD_OUTPUT.iter().any(|name| path == Path::new(name)) {
            return Ok(Self::StandardOutput);
        }
        let problem = |problem: String| Error::format(path.display().to_string(), problem);
        if let Ok(found) = fs::metadata(path) {
            if found.is_dir() {
                return Err(problem("cannot be written: expected a file, found a directory".to_owned()));
            }
            if is_stream(&found) {
                return Ok(Self::Stream);
            }
            if !found.is_file() {
                return Err(problem("cannot be written: it is neither a file nor a pipe".to_owned()));
            }
        }
        let path = without_links(path).map_err(Error::io(path.display().to_string()))?;
        let directory = directory_of(&path);
        if directory.is_dir() {
            return Ok(Self::File(path));
        }
        Err(problem(format!("cannot be written, {} is not a directory", directory.display())))
    }

    /// The directory of its temporary file.
    fn directory(&self) -> PathBuf {
        match self {
            Self::File(path) => directory_of(path).to_owned(),
            Self::Stream | Self::StandardOutput => std::env::temp_dir(),
        }
    }
}

impl WholeFile {
    /// Starts writing the file at `path`, with an empty temporary file.
    ///
    /// # Errors
    /// Like [`Target::of`]; also if no file can be written there.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let target = Target::of(&path)?;
        let temporary =
            Temporary::file(&target.directory()).map_err(Error::io(path.display().to_string()))?;
        Ok(Self { path, target, temporary })
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
        let finished = match &self.target {
            Target::File(path) => self.temporary.persist(path),
            Target::Stream => OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|mut stream| copy(self.temporary.path(), &mut stream)),
            Target::StandardOutput => copy(self.temporary.path(), &mut io::stdout().lock()),
        };
        finished.map_err(Error::io(self.path.display().to_string()))
    }
}

/// Writes the file at `path` through a temporary file beside it: `write` fills the file at the path it is given,
/// which is renamed once `write` has succeeded. An existing file is replaced. See [`WholeFile`].
///
/// # Errors
/// If the directory does not exist, the file cannot be written, or `write` fails; nothing is left behind then.
pub fn write_whole(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let file = WholeFile::create(path)?;
    write(file.path()).map_err(Error::io(path.display().to_string()))?;
    file.finish()
}

fn copy(from: &Path, to: &mut impl Write) -> io::Result<()> {
    io::copy(&mut File::open(from)?, to)?;
    to.flush()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Follows symbolic links at the end of a path, also to a file that does not exist yet.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = directory_of(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

#[cfg(unix)]
fn is_stream(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_fifo() || found.file_type().is_char_device()
}

#[cfg(not(unix))]
fn is_stream(_: &fs::Metadata) -> bool {
    false
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

    #[test]
    #[cfg(unix)]
    fn links_are_followed_and_pipes_written_to() -> Result<()> {
        use std::os::unix::fs::symlink;
        let io = || Error::io("");
        let directory = tempfile::tempdir().map_err(io())?;
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("elsewhere")).map_err(io())?;
        for (link, file) in [("link", "elsewhere/file"), ("chain", "link"), ("dangling", "elsewhere/new")] {
            symlink(file, at(link)).map_err(io())?;
        }
        fs::write(at("elsewhere/file"), "old").map_err(io())?;
        for (link, file) in
            [("link", "elsewhere/file"), ("chain", "elsewhere/file"), ("dangling", "elsewhere/new")]
        {
            write_whole(&at(link), |temporary| fs::write(temporary, link))?;
            assert_eq!(fs::read_to_string(at(file)).map_err(io())?, link);
            assert!(at(link).is_symlink());
        }
        symlink("round", at("round")).map_err(io())?;
        assert!(write_whole(&at("round"), |_| Ok(())).is_err());
        write_whole(Path::new("/dev/null"), |temporary| fs::write(temporary, "gone"))?;
        assert_eq!(Target::of(Path::new("/dev/null"))?, Target::Stream);
        Ok(())
    }
}
