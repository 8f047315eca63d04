//! Makes temporary files and folders that are removed however the process ends.
//!
//! They are removed when dropped, and by [`remove_all`] when a signal ends the process. Each is locked while its
//! process lives, so what a killed process left is known: the next process that works in the same directory removes
//! it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The names of temporary files and folders are between these.
const PREFIX: &str = ".altdiffusion-";
const SUFFIX: &str = ".part";
/// Digits of the random part of a name.
const RANDOM: u32 = 12;
/// How often a new name is tried if another process takes a file for a leftover before it is locked.
const ATTEMPTS: usize = 8;

/// What this process has not finished, and where it has looked for leftovers.
struct Unfinished {
    paths: BTreeSet<PathBuf>,
    searched: BTreeSet<PathBuf>,
}

static UNFINISHED: Mutex<Unfinished> =
    Mutex::new(Unfinished { paths: BTreeSet::new(), searched: BTreeSet::new() });

/// A temporary file or folder.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    /// Held until the end, except where locks do not exist.
    _lock: Option<File>,
}

impl Temporary {
    /// Makes an empty file in a directory, with the permissions that the umask leaves.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn file(directory: &Path) -> io::Result<Self> {
        Self::new(directory, |path| File::create_new(path).map(drop))
    }

    /// Makes an empty folder in a directory, with the permissions that the umask leaves.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn folder(directory: &Path) -> io::Result<Self> {
        Self::new(directory, |path| fs::create_dir(path))
    }

    fn new(directory: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<Self> {
        let mut unfinished = lock();
        if unfinished.searched.insert(directory.to_owned()) {
            remove_leftovers(directory, &unfinished.paths);
        }
        for _ in 0..ATTEMPTS {
            let path = directory.join(random_name());
            match make(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let lock = match try_lock(&path) {
                Lock::Mine(lock) => Some(lock),
                Lock::Unknown => None,
                Lock::Others => continue,
            };
            // Between its creation and its lock, another process may have removed it.
            if path.exists() {
                unfinished.paths.insert(path.clone());
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::other("temporary files are removed by another process"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its final name, replacing a file of that name.
    ///
    /// # Errors
    /// If the operating system refuses; it is removed then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        // Under the lock, so that a signal comes before or after, never between.
        let mut unfinished = lock();
        let renamed = fs::rename(&self.path, path);
        if renamed.is_ok() {
            unfinished.paths.remove(&self.path);
        }
        drop(unfinished);
        renamed
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if lock().paths.remove(&self.path) {
            remove(&self.path);
        }
    }
}

/// Removes everything unfinished, because the process ends: nothing can be made or finished after this.
pub fn remove_all() {
    let unfinished = lock();
    unfinished.paths.iter().for_each(|path| remove(path));
    std::mem::forget(unfinished);
}

/// Like [`remove_all`] if that does not have to wait, for the end of a process that lacks memory.
pub fn try_remove_all() {
    if let Ok(unfinished) = UNFINISHED.try_lock() {
        unfinished.paths.iter().for_each(|path| remove(path));
        std::mem::forget(unfinished);
    }
}

fn lock() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Failing to remove a temporary file is harmless; the next process tries again.
fn remove(path: &Path) {
    if fs::remove_file(path).is_err() && path.is_dir() {
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes what killed processes left in a directory.
fn remove_leftovers(directory: &Path, own: &BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_temporary = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            let random = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
            random.is_some_and(|random| random.len() == RANDOM as usize)
        });
        if is_temporary && !own.contains(&path) && matches!(try_lock(&path), Lock::Mine(_)) {
            tracing::debug!("{}: removed, since its process was killed", path.display());
            remove(&path);
        }
    }
}

enum Lock {
    Mine(File),
    Others,
    /// This system or file system has no locks.
    Unknown,
}

fn try_lock(path: &Path) -> Lock {
    // Elsewhere locks keep even their own process from writing through another handle.
    if !cfg!(unix) {
        return Lock::Unknown;
    }
    let Ok(file) = File::open(path) else { return Lock::Unknown };
    match file.try_lock() {
        Ok(()) => Lock::Mine(file),
        Err(TryLockError::WouldBlock) => Lock::Others,
        Err(TryLockError::Error(error)) => {
            tracing::debug!("{}: no lock: {error}", path.display());
            Lock::Unknown
        }
    }
}

/// A name that no other process chooses.
fn random_name() -> String {
    // Each state has new keys, which the system's random numbers began.
    let random = RandomState::new().build_hasher().finish() >> (u64::BITS - 4 * RANDOM);
    format!("{PREFIX}{random:0width$x}{SUFFIX}", width = RANDOM as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_gone_and_what_is_finished_stays() -> io::Result<()> {
        let place = tempfile::tempdir()?;
        let (file, folder) = (Temporary::file(place.path())?, Temporary::folder(place.path())?);
        fs::write(folder.path().join("inside"), "")?;
        assert_eq!(fs::read_dir(place.path())?.count(), 2);
        drop(folder);
        file.persist(&place.path().join("final"))?;
        let left: Vec<_> = fs::read_dir(place.path())?.collect::<Result<_, _>>()?;
        assert_eq!(left.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["final"]);
        Ok(())
    }

    /// Of killed processes and of other programs, beside one that another process is writing.
    #[test]
    #[cfg(unix)]
    fn leftovers_are_removed_and_nothing_else() -> io::Result<()> {
        let place = tempfile::tempdir()?;
        let at = |name: &str| place.path().join(name);
        fs::write(at(".altdiffusion-abcdefghijkl.part"), "")?;
        fs::create_dir(at(".altdiffusion-123456789012.part"))?;
        let kept = [".altdiffusion-notes.part", ".altdiffusion-busy56789012.part", "altdiffusion.part"];
        for name in kept {
            fs::write(at(name), "")?;
        }
        let busy = File::open(at(kept[1]))?;
        busy.lock()?;
        let file = Temporary::file(place.path())?;
        let mut left: Vec<_> =
            fs::read_dir(place.path())?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        left.retain(|path| path != file.path());
        left.sort();
        let mut expected = kept.map(at);
        expected.sort();
        assert_eq!(left, expected);
        Ok(())
    }
}
