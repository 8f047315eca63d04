//! Sets up a mock hub's content, and a cache to download into.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model_files::Error;
use model_files::source::{HubOptions, ModelSource};
use tempfile::TempDir;

use crate::mock_hub::{Hub, Manner};

pub const REPOSITORY: &str = "someone/model";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub const CONFIG: &[u8] = br#"{"hidden_size": 8}"#;
pub const FOLDER: &str = "hub/models--someone--model";

/// Two temporary folders: the hub's content, and the cache.
pub struct Place {
    pub root: TempDir,
    pub home: TempDir,
    pub notices: Arc<Mutex<Vec<String>>>,
}

impl Place {
    /// A repository with `weights.bin` and `unet/config.json`.
    pub fn new() -> Self {
        let place =
            Self { root: TempDir::new().unwrap(), home: TempDir::new().unwrap(), notices: Arc::default() };
        place.write(COMMIT, "weights.bin", &weights());
        place.write(COMMIT, "unet/config.json", CONFIG);
        place.set_refs(&[("main", COMMIT), ("refs/pr/1", COMMIT), ("v1/final+1", COMMIT)]);
        place
    }

    pub fn write(&self, commit: &str, file: &str, content: &[u8]) {
        let path = self.root.path().join(REPOSITORY).join(commit).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn set_refs(&self, refs: &[(&str, &str)]) {
        let refs: std::collections::HashMap<_, _> = refs.iter().copied().collect();
        let json = serde_json::json!({ REPOSITORY: refs }).to_string();
        fs::write(self.root.path().join("refs.json"), json).unwrap();
    }

    pub fn hub(&self, manner: Manner) -> Hub {
        Hub::start(self.root.path(), manner)
    }

    pub fn options(&self, endpoint: impl Into<String>) -> HubOptions {
        let notices = self.notices.clone();
        HubOptions {
            progress: false,
            pause: Duration::from_millis(1),
            metadata_timeout: Duration::from_secs(5),
            download_timeout: Duration::from_secs(5),
            notice: Arc::new(move |line| notices.lock().unwrap().push(line.to_owned())),
            ..HubOptions::new(endpoint, self.home.path().join("hub"))
        }
    }

    pub fn open(&self, hub: &Hub) -> ModelSource {
        ModelSource::open_with(REPOSITORY, &self.options(hub.endpoint())).unwrap()
    }

    pub fn offline(&self) -> ModelSource {
        let options = HubOptions { offline: true, ..self.options("http://hub.invalid") };
        ModelSource::open_with(REPOSITORY, &options).unwrap()
    }

    /// The cached files below `folder`, except locks.
    pub fn cached(&self, folder: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.home.path().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.push(entry.path());
                }
            }
        }
        files
    }

    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap().clone()
    }
}

pub fn weights() -> Vec<u8> {
    (0..100_000_u32).map(|number| (number % 251) as u8).collect()
}

/// The error's line, which must name the repository.
pub fn line_of<T>(result: Result<T, Error>) -> String {
    let line = result.err().expect("an error").to_string();
    assert!(line.contains(REPOSITORY) && !line.contains('\n'), "{line}");
    line
}
