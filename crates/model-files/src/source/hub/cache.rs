//! Caches downloaded files in huggingface_hub's layout, so that both share them.
//!
//! ```text
//! models--org--name/
//!     blobs/<etag>                        contents; while they are written, <etag>.<8 digits>.incomplete
//!     refs/<revision>                     the commit that a branch or tag was at
//!     snapshots/<commit>/<file>           a relative link to its blob, or the content where links do not work
//!     .no_exist/<commit>/<file>           an empty file: the commit has none of this name
//! .locks/models--org--name/<etag>.lock    held while a blob is written
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::failure::Failure;
use super::names::{folder_name, is_commit, is_name};

const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag created by \
                         altdiffusion and huggingface_hub.\n# See https://bford.info/cachedir/\n";
const INCOMPLETE: &str = "incomplete";
/// The least digits that identify a commit.
const SHORTEST_COMMIT: usize = 5;
const LOCK_POLL: Duration = Duration::from_millis(100);

/// The cached files of one repository.
pub(super) struct RepositoryCache {
    cache: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
    symlinks: bool,
}

impl RepositoryCache {
    /// The cache of the repository `id`, such as `org/name`.
    pub(super) fn new(cache: &Path, id: &str, symlinks: bool) -> Self {
        let name = folder_name(id);
        Self {
            cache: cache.to_owned(),
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
            symlinks,
        }
    }

    /// The commit that `revision` was last seen at, if some of its files are cached.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        // A commit without files is of no use.
        let has_files = |commit: &str| is_name(commit) && self.folder.join("snapshots").join(commit).is_dir();
        if is_commit(revision) {
            return has_files(revision).then(|| revision.to_owned());
        }
        if let Ok(commit) = fs::read_to_string(self.folder.join("refs").join(revision)) {
            let commit = commit.trim();
            return has_files(commit).then(|| commit.to_owned());
        }
        let is_short =
            revision.len() >= SHORTEST_COMMIT && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        let commits = || {
            let names = fs::read_dir(self.folder.join("snapshots")).ok()?.filter_map(Result::ok);
            let names = names.filter_map(|entry| entry.file_name().into_string().ok());
            let mut names = names.filter(|name| is_commit(name) && name.starts_with(revision));
            names.next().filter(|_| names.next().is_none())
        };
        is_short.then(commits).flatten()
    }

    /// Records that `revision` is at `commit`. Failing to is not an error.
    pub(super) fn note_commit(&self, revision: &str, commit: &str) {
        let path = self.folder.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return;
        }
        let written = create_parent(&path).and_then(|()| {
            let beside = beside(&path, "tmp");
            fs::write(&beside, commit)?;
            fs::rename(&beside, &path)
        });
        if let Err(error) = written {
            tracing::debug!("{}: {error}", path.display());
        }
    }

    /// The file `relative` of `commit`, if it was downloaded.
    pub(super) fn file(&self, commit: &str, relative: &str) -> Option<PathBuf> {
        Some(self.pointer(commit, relative)).filter(|path| path.is_file())
    }

    /// Where the files of `commit` are.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    fn pointer(&self, commit: &str, relative: &str) -> PathBuf {
        self.snapshot(commit).join(relative)
    }

    /// Whether `commit` is known to lack the file `relative`.
    pub(super) fn is_absent(&self, commit: &str, relative: &str) -> bool {
        self.folder.join(".no_exist").join(commit).join(relative).is_file()
    }

    /// Records that `commit` lacks the file `relative`. Failing to is not an error.
    pub(super) fn note_absent(&self, commit: &str, relative: &str) {
        let path = self.folder.join(".no_exist").join(commit).join(relative);
        if path.exists() {
            return;
        }
        if let Err(error) = create_parent(&path).and_then(|()| File::create(&path)) {
            tracing::debug!("{}: {error}", path.display());
        }
    }

    /// Where the content of the version `etag` is stored.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Whether the content of the version `etag` is stored, with the right size.
    pub(super) fn has_blob(&self, etag: &str, size: Option<u64>) -> bool {
        let metadata = fs::metadata(self.blob(etag));
        metadata.is_ok_and(|found| found.is_file() && size.is_none_or(|size| found.len() == size))
    }

    /// Bytes of the version `etag` from an interrupted run.
    pub(super) fn begun(&self, etag: &str) -> u64 {
        let sizes = self.leftovers(etag).into_iter().map(|(size, _)| size);
        sizes.max().unwrap_or(0)
    }

    /// Locks the version `etag` for writing. `wait` is called once if another process holds the lock.
    pub(super) fn lock(&self, etag: &str, wait: impl FnOnce()) -> Result<Lock, Failure> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path).map_err(Failure::local(&path))?;
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists()
            && let Err(error) = fs::write(&tag, CACHE_TAG)
        {
            tracing::debug!("{}: {error}", tag.display());
        }
        let mut wait = Some(wait);
        loop {
            let file = open_lock(&path).map_err(Failure::local(&path))?;
            match file.try_lock() {
                Ok(()) if is_still(&file, &path) => return Ok(Lock { _file: file, is_exclusive: true }),
                // The previous holder removed the file: the next process locks another one.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(wait) = wait.take() {
                        wait();
                    }
                    std::thread::sleep(LOCK_POLL);
                }
                // Some network file systems have no locks. Both processes then download, into separate files.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("{}: {error}", path.display());
                    return Ok(Lock { _file: file, is_exclusive: false });
                }
            }
        }
    }

    /// A file to write the version `etag` into. With `resume` it holds what an interrupted run left; that process is
    /// gone, since the lock is ours.
    pub(super) fn incomplete(&self, etag: &str, lock: &Lock, resume: bool) -> Result<PathBuf, Failure> {
        let path = self.folder.join("blobs").join(format!("{etag}.{}.{INCOMPLETE}", unique()));
        create_parent(&path).map_err(Failure::local(&path))?;
        if lock.is_exclusive {
            let mut leftovers = self.leftovers(etag);
            leftovers.sort();
            if let Some((_, largest)) = leftovers.pop_if(|_| resume) {
                fs::rename(&largest, &path).map_err(Failure::local(&largest))?;
            }
            leftovers.iter().for_each(|(_, other)| remove(other));
        }
        Ok(path)
    }

    fn leftovers(&self, etag: &str) -> Vec<(u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.folder.join("blobs")) else { return Vec::new() };
        let of_etag = entries.filter_map(Result::ok).filter(|entry| {
            let name = entry.file_name();
            let middle = name.to_str().and_then(|name| name.strip_prefix(etag)?.strip_suffix(INCOMPLETE));
            // `.`, as in earlier versions of huggingface_hub, or `.<digits>.`.
            middle.is_some_and(|middle| middle.starts_with('.') && middle.ends_with('.'))
        });
        of_etag.filter_map(|entry| Some((entry.metadata().ok()?.len(), entry.path()))).collect()
    }

    /// Moves a complete download into place.
    pub(super) fn keep(&self, incomplete: &Path, etag: &str) -> Result<(), Failure> {
        let blob = self.blob(etag);
        fs::rename(incomplete, &blob).map_err(Failure::local(&blob))
    }

    /// Links the version `etag` as the file `relative` of `commit`.
    pub(super) fn link(&self, etag: &str, commit: &str, relative: &str) -> Result<PathBuf, Failure> {
        let (blob, pointer) = (self.blob(etag), self.pointer(commit, relative));
        create_parent(&pointer).map_err(Failure::local(&pointer))?;
        let beside = beside(&pointer, "tmp");
        let up = "../".repeat(1 + relative.split('/').count());
        let linked = match self.symlinks {
            true => symlink(Path::new(&format!("{up}blobs/{etag}")), &beside),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
        // Not everybody may create symbolic links on Windows. A hard link does as well, and takes no space.
        if linked.is_err() && fs::hard_link(&blob, &beside).is_err() {
            fs::copy(&blob, &beside).map_err(Failure::local(&beside))?;
        }
        fs::rename(&beside, &pointer).map_err(Failure::local(&pointer))?;
        Ok(pointer)
    }

    /// Free space where the files go, in bytes.
    pub(super) fn free_space(&self) -> Option<u64> {
        let existing = self.folder.ancestors().find(|path| path.exists())?;
        fs4::available_space(existing).ok()
    }
}

/// A lock on a version; released when dropped, and by the system when the process ends.
pub(super) struct Lock {
    _file: File,
    /// Whether it is exclusive.
    is_exclusive: bool,
}

/// Removes a useless file. Failing to is not an error.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!("{}: {error}", path.display());
    }
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A unique name beside `path`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    path.with_file_name(format!("{name}.{}.{ending}", unique()))
}

/// Eight digits that no other writer uses now.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{} {} {:?}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), time);
    super::digest::name_of(&text).split_off(56)
}

/// Opens a lock file like huggingface_hub, so that members of a group who share a cache can wait for one another.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o664);
    options.open(path)
}

/// Whether `path` still refers to the opened file.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Elsewhere, open files cannot be removed.
#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> bool {
    true
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.to_string_lossy().replace('/', "\\"), link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_lead_to_commits() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(folder.path(), "org/name", true);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        cache.note_commit("refs/pr/1", commit);
        assert_eq!(cache.commit_of("refs/pr/1"), None, "there is no file of it");
        fs::create_dir_all(folder.path().join("models--org--name/snapshots").join(commit)).unwrap();
        assert_eq!(cache.commit_of("refs/pr/1").as_deref(), Some(commit));
        assert_eq!(cache.commit_of("main"), None);
        assert_eq!(cache.commit_of(commit).as_deref(), Some(commit));
        assert_eq!(cache.commit_of("0123456").as_deref(), Some(commit));
        assert_eq!(cache.commit_of("0124"), None);
        let hostile = folder.path().join("models--org--name/refs/main");
        fs::write(hostile, "../../../etc").unwrap();
        assert_eq!(cache.commit_of("main"), None);
    }

    #[test]
    fn the_largest_leftover_is_taken_up_and_the_others_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(folder.path(), "org/name", true);
        let blobs = folder.path().join("models--org--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        for (name, content) in
            [("e.incomplete", "12"), ("e.0123abcd.incomplete", "123"), ("e2.incomplete", "1")]
        {
            fs::write(blobs.join(name), content).unwrap();
        }
        assert_eq!(cache.begun("e"), 3);
        let lock = cache.lock("e", || ()).unwrap();
        let path = cache.incomplete("e", &lock, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"123");
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 2);
        cache.keep(&path, "e").unwrap();
        let pointer = cache.link("e", "c0ffee", "unet/a/config.json").unwrap();
        assert_eq!(fs::read(&pointer).unwrap(), b"123");
        #[cfg(unix)]
        assert_eq!(fs::read_link(&pointer).unwrap(), Path::new("../../../../blobs/e"));
    }
}
