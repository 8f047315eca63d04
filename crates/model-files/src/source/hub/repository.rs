//! Finds the files of a repository at one commit, in the cache or on the hub.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ureq::http::header::ETAG;
use ureq::http::{HeaderMap, HeaderName};

use super::bar::Bar;
use super::cache::RepositoryCache;
use super::client::{Ask, Client};
use super::decimal_bytes::decimal_bytes;
use super::digest::Expected;
use super::failure::Failure;
use super::folders::files_below;
use super::listing::{self, ListedFile};
use super::names::{is_commit, is_name, is_repository_id, is_revision};
use super::options::HubOptions;
use super::transfer::{self, FileVersion, announced_size};
use crate::error::{Error, Result};
use crate::error_kind::ErrorKind;

const DEFAULT_REVISION: &str = "main";
const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
/// Smaller downloads end before a message could be read.
const WORTH_TELLING: u64 = 10_000_000;

/// A repository at one commit: the revision is resolved with the first file, and all other files are from the same
/// commit.
pub(crate) struct HubRepository {
    name: String,
    id: String,
    revision: String,
    options: HubOptions,
    client: Client,
    cache: RepositoryCache,
    found: OnceLock<Resolved>,
    lookup: Mutex<Lookup>,
    /// Metadata of files; `None` for missing ones.
    versions: Mutex<HashMap<String, Option<FileVersion>>>,
    is_noted: AtomicBool,
}

/// The resolved revision.
struct Resolved {
    commit: String,
    files: Option<HashMap<String, ListedFile>>,
    /// Why the hub is not asked for files.
    cached_only: Option<String>,
}

/// What is known before the commit is resolved.
#[derive(Default)]
struct Lookup {
    /// Whether the API turned out to be missing.
    has_no_api: bool,
}

impl HubRepository {
    /// The repository `org/name` or `org/name@revision` on the hub that the environment selects.
    pub(crate) fn from_environment(name: &str) -> Result<Self> {
        Self::open(name, &HubOptions::from_env())
    }

    /// The repository `org/name` or `org/name@revision`.
    pub(crate) fn open(name: &str, options: &HubOptions) -> Result<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, DEFAULT_REVISION));
        if !is_repository_id(id) || !is_revision(revision) {
            return Err(Error::Input(format!(
                "model {name}: no such directory, and not a hub id of the form org/name or org/name@revision"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            id: id.to_owned(),
            revision: revision.to_owned(),
            client: Client::new(options)?,
            cache: RepositoryCache::new(&options.cache, id, options.symlinks),
            options: options.clone(),
            found: OnceLock::new(),
            lookup: Mutex::default(),
            versions: Mutex::default(),
            is_noted: AtomicBool::new(false),
        })
    }

    /// The path of the file `relative`, downloading it if it is not cached, or `None` if the repository lacks it.
    pub(crate) fn fetch(&self, relative: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.cached(relative)? {
            return Ok(Some(path));
        }
        let Some(file) = self.version(relative)? else { return Ok(None) };
        let missing = file.missing_bytes(&self.cache).unwrap_or(0);
        transfer::check_space(&self.cache, &self.options.cache, missing)
            .map_err(|f| self.error(relative, &f))?;
        if missing >= WORTH_TELLING {
            (self.options.notice)(&format!("Downloading {self}: {relative}, {}", decimal_bytes(missing)));
        }
        let bar = self.bar(file.size, relative.to_owned());
        let path = self.download(&file, &bar);
        bar.finish_and_clear();
        path.map(Some)
    }

    /// Whether the repository has the file `relative`, without downloading it.
    pub(crate) fn has(&self, relative: &str) -> Result<bool> {
        Ok(self.cached(relative)?.is_some() || self.version(relative)?.is_some())
    }

    /// The path of the file `relative` in the cache.
    pub(crate) fn cached(&self, relative: &str) -> Result<Option<PathBuf>> {
        let Some(found) = self.find(relative)? else { return Ok(None) };
        let path = self.cache.file(&found.commit, relative);
        if path.is_some() {
            self.note_commit(found);
        }
        Ok(path)
    }

    /// Downloads a file that is not cached, advancing `bar`.
    pub(crate) fn download(&self, file: &FileVersion, bar: &Bar) -> Result<PathBuf> {
        let wait = || {
            (self.options.notice)(&format!(
                "{self}: waiting for another process that downloads {}",
                file.path
            ));
        };
        let path = transfer::download(&self.client, &self.cache, file, bar, wait)
            .map_err(|failure| self.error(&file.path, &failure))?;
        if let Some(found) = self.found.get() {
            self.note_commit(found);
        }
        Ok(path)
    }

    /// A progress bar for this many bytes, if bars are enabled.
    pub(crate) fn bar(&self, size: Option<u64>, what: String) -> Bar {
        if self.options.progress { Bar::new(size, what) } else { Bar::hidden() }
    }

    pub(crate) fn options(&self) -> &HubOptions {
        &self.options
    }

    /// The bytes of a file still to download, if known.
    pub(crate) fn missing_bytes(&self, file: &FileVersion) -> Option<u64> {
        file.missing_bytes(&self.cache)
    }

    /// Fails if there is no room for this many bytes.
    pub(crate) fn check_space(&self, needed: u64) -> Result<()> {
        transfer::check_space(&self.cache, &self.options.cache, needed).map_err(|failure| {
            let problem = format!("{self}: {}", failure.explain(self.client.endpoint(), false));
            Error::Hub { problem, kind: failure.kind() }
        })
    }

    /// The commit of the files, once resolved.
    pub(crate) fn commit(&self) -> Option<&str> {
        self.found.get().map(|found| found.commit.as_str())
    }

    /// The paths of all files, from the hub's list or else the cache.
    pub(crate) fn files(&self) -> Result<Option<Vec<String>>> {
        let Some(found) = self.find("config.json")? else { return Ok(None) };
        if let Some(files) = &found.files {
            return Ok(Some(files.keys().cloned().collect()));
        }
        let root = self.cache.snapshot(&found.commit);
        let names = files_below(&root)?.into_iter().filter_map(|path| {
            let name = path.strip_prefix(&root).ok()?.to_str()?.replace(std::path::MAIN_SEPARATOR, "/");
            Some(name)
        });
        Ok(Some(names.collect::<Vec<_>>()).filter(|names| !names.is_empty()))
    }

    /// Whether the hub listed the files.
    pub(crate) fn is_listed(&self) -> bool {
        self.found.get().is_some_and(|found| found.files.is_some())
    }

    /// The metadata of the file `relative`, or `None` if the commit lacks it, or the hub is not asked.
    pub(crate) fn version(&self, relative: &str) -> Result<Option<FileVersion>> {
        let Some(found) = self.find(relative)? else { return Ok(None) };
        if found.cached_only.is_some() || self.cache.is_absent(&found.commit, relative) {
            return Ok(None);
        }
        if found.files.as_ref().is_some_and(|files| !files.contains_key(relative)) {
            self.cache.note_absent(&found.commit, relative);
            return Ok(None);
        }
        if let Some(known) = guard(&self.versions).get(relative) {
            return Ok(known.clone());
        }
        let asked_at = if is_commit(&found.commit) { &found.commit } else { &self.revision };
        let version = self.ask(relative, asked_at).map_err(|failure| self.error(relative, &failure))?;
        match &version {
            None => self.cache.note_absent(&found.commit, relative),
            Some(version) if version.commit != found.commit => {
                let problem = format!(
                    "{self}: {} changed from {} to {} while it was read: run again",
                    self.revision, found.commit, version.commit
                );
                return Err(Error::Hub { problem, kind: ErrorKind::Network });
            }
            Some(_) => {}
        }
        guard(&self.versions).insert(relative.to_owned(), version.clone());
        Ok(version)
    }

    /// Requests the size and version of a file at `revision`. Both become parts of cache paths, and are checked.
    fn ask(&self, relative: &str, revision: &str) -> std::result::Result<Option<FileVersion>, Failure> {
        let path = relative.split('/');
        let url = self.client.url(self.id.split('/').chain(["resolve", revision]).chain(path))?;
        let answer = match self.client.ask(&url, Ask::About) {
            Ok(answer) => answer,
            Err(Failure::Status { status: 404, code, .. })
                if !matches!(code.as_deref(), Some("RepoNotFound" | "RevisionNotFound")) =>
            {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        // A redirect on the way knows the file; its target may only know how it is stored.
        let all = || answer.on_the_way.iter().chain([&answer.headers]);
        let first = |name: &HeaderName| all().find_map(|headers| text(headers, name));
        let commit = first(&COMMIT).or_else(|| is_commit(revision).then_some(revision));
        let commit = commit.ok_or_else(|| {
            Failure::NoHub("it does not say of which commit a file is (X-Repo-Commit)".to_owned())
        })?;
        let etag =
            first(&LINKED_ETAG).or_else(|| all().filter_map(|headers| text(headers, &ETAG)).next_back());
        let etag =
            etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| !etag.is_empty());
        for part in [Some(commit), etag].into_iter().flatten() {
            if !is_name(part) {
                return Err(Failure::NoHub(format!("it calls a file version {part:?}")));
            }
        }
        let listed = self.found.get().and_then(|found| found.files.as_ref()?.get(relative));
        let linked_size = first(&LINKED_SIZE).and_then(|size| size.trim().parse().ok());
        let is_end = (200..300).contains(&answer.status);
        let own_size = is_end.then(|| announced_size(&answer.headers)).flatten();
        let own_hash = etag.and_then(Expected::of_etag);
        // An ETag that is no hash, such as a plain web server's time and size, may be that of several files.
        let etag = etag.filter(|_| own_hash.is_some()).map(str::to_owned);
        let hash = own_hash.or_else(|| listed.and_then(|file| file.hash.clone()));
        Ok(Some(FileVersion {
            path: relative.to_owned(),
            commit: commit.to_owned(),
            url,
            etag: etag.or_else(|| hash.as_ref().map(|hash| hash.digits().to_owned())),
            size: linked_size.or(own_size).or_else(|| listed.and_then(|file| file.size)),
            hash,
        }))
    }

    /// Resolves the commit of all files: by the hub's API or, without one, by the first file requested, `relative`.
    /// If the hub cannot be reached, it is the last known commit, and all files must be cached. `None` if there is no
    /// API and no such file.
    fn find(&self, relative: &str) -> Result<Option<&Resolved>> {
        if let Some(found) = self.found.get() {
            return Ok(Some(found));
        }
        let mut lookup = guard(&self.lookup);
        if let Some(found) = self.found.get() {
            return Ok(Some(found));
        }
        let known = self.cache.commit_of(&self.revision);
        let cached_only = |reason: &str| {
            known.clone().map(|commit| Resolved { commit, files: None, cached_only: Some(reason.to_owned()) })
        };
        if self.options.offline {
            let reason = "the hub is not asked in offline mode (HF_HUB_OFFLINE)";
            return match cached_only(reason) {
                Some(found) => Ok(Some(self.found.get_or_init(|| found))),
                None => Err(self.not_downloaded(relative, reason)),
            };
        }
        // A commit never changes, so only missing files are worth a request.
        if is_commit(&self.revision) && self.cache.file(&self.revision, relative).is_some() {
            let found = Resolved { commit: self.revision.clone(), files: None, cached_only: None };
            return Ok(Some(self.found.get_or_init(|| found)));
        }
        match self.look_up(relative, &mut lookup) {
            Ok(found) => Ok(found.map(|found| self.found.get_or_init(|| found))),
            Err(failure) => {
                let has_none = matches!(&failure, Failure::Status { code: Some(code), .. } if code == "RevisionNotFound");
                let problem = failure.explain(self.client.endpoint(), self.options.token.is_some());
                match cached_only(&problem).filter(|_| !has_none) {
                    Some(found) => {
                        self.tell_of_cache(&problem, &found.commit);
                        Ok(Some(self.found.get_or_init(|| found)))
                    }
                    None => Err(self.error(relative, &failure)),
                }
            }
        }
    }

    /// Reports that the cache is used instead; once, however often a program opens the model.
    fn tell_of_cache(&self, problem: &str, commit: &str) {
        static TOLD: Mutex<BTreeSet<(PathBuf, String)>> = Mutex::new(BTreeSet::new());
        if guard(&TOLD).insert((self.options.cache.clone(), self.name.clone())) {
            let commit = commit.get(..12).unwrap_or(commit);
            (self.options.notice)(&format!(
                "{problem}; using {} as it is in the cache, at commit {commit}",
                self.id
            ));
        }
    }

    fn look_up(&self, relative: &str, lookup: &mut Lookup) -> std::result::Result<Option<Resolved>, Failure> {
        if !lookup.has_no_api {
            if let Some(revision) = listing::revision(&self.client, &self.id, &self.revision)? {
                return Ok(Some(Resolved {
                    commit: revision.commit,
                    files: revision.files,
                    cached_only: None,
                }));
            }
            lookup.has_no_api = true;
        }
        if is_commit(&self.revision) {
            return Ok(Some(Resolved { commit: self.revision.clone(), files: None, cached_only: None }));
        }
        let Some(version) = self.ask(relative, &self.revision)? else { return Ok(None) };
        let commit = version.commit.clone();
        guard(&self.versions).insert(relative.to_owned(), Some(version));
        Ok(Some(Resolved { commit, files: None, cached_only: None }))
    }

    /// Records the commit of the revision, once there is a file of it.
    fn note_commit(&self, found: &Resolved) {
        if found.cached_only.is_none() && !self.is_noted.swap(true, Ordering::Relaxed) {
            self.cache.note_commit(&self.revision, &found.commit);
        }
    }

    pub(crate) fn missing(&self, files: &str) -> Error {
        let found = self.found.get();
        if let Some(reason) = found.and_then(|found| found.cached_only.as_ref()) {
            return self.not_downloaded(files, reason);
        }
        Error::MissingFile { model: format!("{self} on {}", self.client.endpoint()), file: files.to_owned() }
    }

    fn error(&self, relative: &str, failure: &Failure) -> Error {
        let problem = failure.explain(self.client.endpoint(), self.options.token.is_some());
        Error::Hub { problem: format!("{self}: cannot get {relative}: {problem}"), kind: failure.kind() }
    }

    /// The error for files that would have to be downloaded while the hub is not asked.
    fn not_downloaded(&self, files: &str, reason: &str) -> Error {
        let problem = format!(
            "{self}: {files} was not downloaded before, and {reason}; the cache is {}",
            self.options.cache.display()
        );
        Error::Hub { problem, kind: ErrorKind::Network }
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl fmt::Display for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubRepository({self} on {})", self.client.endpoint())
    }
}
