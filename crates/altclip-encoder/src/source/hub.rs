//! Repositories on the Hugging Face hub, or on a server that speaks its protocol.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, Metadata};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;

use super::check_relative;
use crate::error::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_REVISION: &str = "main";
/// How often an interrupted download is taken up again where it broke off.
const RETRIES: usize = 2;

/// How to reach the hub, and where to keep what it delivers.
#[derive(Clone)]
pub struct HubOptions {
    /// The server, such as `https://huggingface.co`.
    pub endpoint: String,
    /// The directory of downloaded files, in the layout that all Hugging Face libraries share.
    pub cache: PathBuf,
    /// The access token for private and gated repositories.
    pub token: Option<String>,
    /// Use only what was downloaded before.
    pub offline: bool,
    /// Show downloads on standard error, where that is a terminal.
    pub progress: bool,
    /// How long the server may send nothing before it counts as unreachable.
    pub timeout: Duration,
}

impl HubOptions {
    /// The options that the environment asks for, by the variables that all Hugging Face libraries share: `HF_ENDPOINT`;
    /// `HF_HUB_CACHE`, or `HF_HOME` whose `hub` it is by default; `HF_TOKEN`, by default the file `token` that
    /// `hf auth login` left in `HF_HOME`; `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let home = std::env::home_dir().unwrap_or_default();
            home.join(".cache").join("huggingface")
        });
        let token = variable("HF_TOKEN").or_else(|| std::fs::read_to_string(home.join("token")).ok());
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            cache: variable("HF_HUB_CACHE").map(PathBuf::from).unwrap_or_else(|| home.join("hub")),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            progress: true,
            timeout: Duration::from_secs(30),
        }
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str())
}

/// The token is a secret, and stays out of logs.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("progress", &self.progress)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// One repository at one revision.
pub(super) struct HubRepository {
    name: String,
    repo: Repo,
    cache: Cache,
    api: Api,
    options: HubOptions,
}

impl HubRepository {
    /// The repository `org/name` or `org/name@revision`.
    pub(super) fn open(name: &str, options: &HubOptions) -> Result<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, DEFAULT_REVISION));
        if !is_repository_id(id) || !is_revision(revision) {
            return Err(Error::Hub(format!(
                "model {name}: no such directory, and not a hub id of the form org/name or org/name@revision"
            )));
        }
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::Hub(format!(
                "hub endpoint {endpoint}: expected a URL that starts with http:// or https://"
            )));
        }
        let options = HubOptions { endpoint, ..options.clone() };
        let cache = Cache::new(options.cache.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(options.endpoint.clone())
            .with_token(options.token.clone())
            .with_retries(RETRIES)
            .build()
            .map_err(|error| Error::Hub(format!("hub {}: {error}", options.endpoint)))?;
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        Ok(Self { name: name.to_owned(), repo, cache, api, options })
    }

    /// The path of the file `relative`, if it was downloaded before.
    pub(super) fn cached(&self, relative: &str) -> Option<PathBuf> {
        let repo = self.cache.repo(self.repo.clone());
        // A revision that is a commit has a snapshot of that name, and not always a ref that leads to it.
        let snapshot =
            || Some(repo.pointer_path(self.repo.revision()).join(relative)).filter(|path| path.is_file());
        repo.get(relative).or_else(snapshot)
    }

    /// The path of the file `relative`, from the cache or else downloaded whole, or `None` if the repository lacks it.
    pub(super) fn fetch(&self, relative: &str) -> Result<Option<PathBuf>> {
        if let Some(path) = self.cached(relative) {
            return Ok(Some(path));
        }
        if self.options.offline {
            return Ok(None);
        }
        let url = self.api.repo(self.repo.clone()).url(relative);
        let metadata = match self.metadata(&url) {
            Ok(metadata) => metadata,
            Err(Failure::Api(error)) if status_of(&error) == Some(404) => return Ok(None),
            Err(failure) => return Err(self.error(relative, &failure)),
        };
        self.download(relative, &metadata).map(Some)
    }

    /// The paths of all files, or `None` in offline mode.
    pub(super) fn files(&self) -> Result<Option<Vec<String>>> {
        if self.options.offline {
            return Ok(None);
        }
        let repository = self.api.repo(self.repo.clone());
        let info = while_active(self.options.timeout, &Arc::default(), move || repository.info())
            .map_err(|failure| self.error("its list of files", &failure))?;
        let files = info.siblings.into_iter().map(|file| file.rfilename);
        Ok(Some(files.filter(|file| check_relative(file).is_ok()).collect()))
    }

    /// Asks the hub for the size and the revision of a file. Both go into paths of the cache, and are checked for that.
    fn metadata(&self, url: &str) -> std::result::Result<Metadata, Failure> {
        let (api, url) = (self.api.clone(), url.to_owned());
        let metadata = while_active(self.options.timeout, &Arc::default(), move || api.metadata(&url))?;
        for part in [metadata.etag(), metadata.commit_hash()] {
            check_relative(part)
                .map_err(|_| Failure::Unexpected(format!("it calls a file version {part:?}")))?;
        }
        Ok(metadata)
    }

    /// Downloads a file into the cache.
    ///
    /// hf-hub moves a download into its place when the connection ends, without comparing lengths, and a connection can
    /// end early in ways that HTTP does not notice. So the length is compared here, and a short file removed again.
    fn download(&self, relative: &str, metadata: &Metadata) -> Result<PathBuf> {
        let expected = metadata.size() as u64;
        let blob = self.cache.repo(self.repo.clone()).blob_path(metadata.etag());
        // A finished download that was interrupted before it was moved cannot be resumed: nothing is left to ask for.
        let partial = blob.with_extension("part");
        if partial.metadata().is_ok_and(|part| part.len() >= expected) {
            std::fs::remove_file(&partial).map_err(Error::io(partial.display().to_string()))?;
        }

        let activity = Arc::new(AtomicU64::new(0));
        let bar = if self.options.progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let progress = Download { bar, activity: activity.clone() };
        let repository = self.api.repo(self.repo.clone());
        let file = relative.to_owned();
        let path = while_active(self.options.timeout, &activity, move || {
            repository.download_with_progress(&file, progress)
        })
        .map_err(|failure| self.error(relative, &failure))?;

        let found = path.metadata().map_err(Error::io(path.display().to_string()))?.len();
        if found != expected {
            for wrong in [&path, &blob] {
                // Either may be gone already: the path is a link to the blob, or where links do not work the file itself.
                if let Err(error) = std::fs::remove_file(wrong) {
                    tracing::debug!("{}: {error}", wrong.display());
                }
            }
            let problem = format!("the download has {found} bytes, expected {expected}");
            return Err(self.error(relative, &Failure::Unexpected(problem)));
        }
        Ok(path)
    }

    pub(super) fn missing(&self, files: &str) -> Error {
        if self.options.offline {
            return Error::Hub(format!(
                "{self}: {files} was not downloaded before, and the hub is not asked in offline mode (HF_HUB_OFFLINE); \
                 the cache is {}",
                self.options.cache.display()
            ));
        }
        Error::MissingFile { model: format!("{self} on {}", self.options.endpoint), file: files.to_owned() }
    }

    fn error(&self, relative: &str, failure: &Failure) -> Error {
        let endpoint = &self.options.endpoint;
        let problem = match failure {
            Failure::Silent(limit) => format!("hub {endpoint} sent nothing for {} s", limit.as_secs_f32()),
            Failure::Crashed => format!("hub {endpoint} does not answer as a hub does"),
            Failure::Unexpected(problem) => format!("hub {endpoint}: {problem}"),
            Failure::Api(error) => match status_of(error) {
                Some(status @ (401 | 403)) => format!(
                    "hub {endpoint} refuses access (HTTP {status}): the repository is private or gated, or there is none \
                     of this name; {} (HF_TOKEN)",
                    if self.options.token.is_some() {
                        "the token given is not enough"
                    } else {
                        "no token is given"
                    }
                ),
                Some(status) => format!("hub {endpoint} answers with HTTP status {status}"),
                None => match error {
                    ApiError::RequestError(error) => format!("cannot reach the hub {endpoint}: {error}"),
                    ApiError::MissingHeader(_) | ApiError::InvalidHeader(_) | ApiError::ParseIntError(_) => {
                        format!("hub {endpoint} does not answer as a hub does: {error}")
                    }
                    error => format!(
                        "the download from {endpoint} into {} broke off: {error}",
                        self.options.cache.display()
                    ),
                },
            },
        };
        Error::Hub(format!("{self}: cannot get {relative}: {problem}"))
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubRepository({self} on {})", self.options.endpoint)
    }
}

/// Why the hub did not deliver.
enum Failure {
    Api(ApiError),
    Silent(Duration),
    /// hf-hub panicked, as it does on a redirect to nowhere.
    Crashed,
    Unexpected(String),
}

/// Runs `work` on a thread of its own, for as long as it ends or counts up `activity` within every `limit`: hf-hub sets
/// no time limits, and a server that takes connections but sends nothing would hold the program up for ever.
fn while_active<T: Send + 'static>(
    limit: Duration,
    activity: &Arc<AtomicU64>,
    work: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, Failure> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    let mut seen = activity.load(Ordering::Relaxed);
    loop {
        match receiver.recv_timeout(limit) {
            Ok(result) => return result.map_err(Failure::Api),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Crashed),
            Err(RecvTimeoutError::Timeout) => {
                let now = activity.load(Ordering::Relaxed);
                if now == seen {
                    return Err(Failure::Silent(limit));
                }
                seen = now;
            }
        }
    }
}

/// A progress bar that also counts the bytes for [`while_active`].
struct Download {
    bar: ProgressBar,
    activity: Arc<AtomicU64>,
}

impl Progress for Download {
    fn init(&mut self, size: usize, filename: &str) {
        // Called again when a broken download is taken up: what had come is then counted anew.
        self.bar.set_position(0);
        Progress::init(&mut self.bar, size, filename);
    }

    fn update(&mut self, size: usize) {
        self.activity.fetch_add(size as u64, Ordering::Relaxed);
        Progress::update(&mut self.bar, size);
    }

    fn finish(&mut self) {
        Progress::finish(&mut self.bar);
    }
}

/// The HTTP status of a failed request, if it came to one.
fn status_of(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status_of(error),
        _ => None,
    }
}

fn is_repository_id(id: &str) -> bool {
    let is_part = |part: &str| {
        !part.starts_with('.')
            && !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    id.split_once('/').is_some_and(|(organisation, name)| is_part(organisation) && is_part(name))
}

/// A branch, a tag, a commit, or a pull request as in `refs/pr/1`.
fn is_revision(revision: &str) -> bool {
    check_relative(revision).is_ok()
        && revision.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_an_organisation_and_a_name() {
        for good in ["BAAI/AltDiffusion-m9", "a/b", "a_b/c.d"] {
            assert!(is_repository_id(good), "{good}");
        }
        for bad in ["", "model", "/model", "org/", "a/b/c", "./a", "../a", "a/..", "org/na me", "C:/x"] {
            assert!(!is_repository_id(bad), "{bad}");
        }
        for good in ["main", "v1.0", "refs/pr/1", "0123abcd"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "../main", "/main", "a?b"] {
            assert!(!is_revision(bad), "{bad}");
        }
    }

    #[test]
    fn the_token_stays_out_of_debug_output() {
        let options = HubOptions { token: Some("hf_secret".into()), ..HubOptions::from_env() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
