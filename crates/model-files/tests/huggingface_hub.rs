//! Tests that huggingface_hub, the reference, and this crate share a cache in both directions.
//!
//! Needs Python with the package; `HUB_PYTHON` may name it. If it is missing, the tests say that they were skipped.

#[path = "common/mock_hub/mod.rs"]
mod mock_hub;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mock_hub::{Etag, Hub, Manner, Redirect};
use model_files::source::{HubOptions, ModelSource};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A Python with the package, or a message that bypasses the test harness's capture.
fn python() -> Option<String> {
    let python = std::env::var("HUB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_package = Command::new(&python)
        .args(["-c", "import huggingface_hub"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_package {
        let line = format!(
            "SKIPPED: {python} has no package huggingface_hub, which HUB_PYTHON could name one with\n"
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    has_package.then_some(python)
}

/// Runs `script` with the cache in `home`, and returns its output.
fn run(python: &str, home: &Path, endpoint: &str, offline: bool, script: &str) -> String {
    let output = Command::new(python)
        .args(["-c", script])
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("NO_PROXY", "*")
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with two files.
fn root() -> TempDir {
    let root = TempDir::new().unwrap();
    for (file, content) in [("config.json", &b"{}"[..]), ("unet/weights.bin", &[7; 300_000])] {
        let path = root.path().join("org/tiny").join(COMMIT).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(root.path().join("refs.json"), format!(r#"{{"org/tiny": {{"main": "{COMMIT}"}}}}"#)).unwrap();
    root
}

fn options(endpoint: &str, home: &Path, offline: bool) -> HubOptions {
    HubOptions { offline, progress: false, ..HubOptions::new(endpoint, home.join("hub")) }
}

#[test]
fn what_huggingface_hub_downloaded_is_used() {
    let Some(python) = python() else { return };
    let (root, home) = (root(), TempDir::new().unwrap());
    let hub = Hub::start(root.path(), Manner { etag: Etag::Git, api: false, ..Manner::default() });
    let script = r#"
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
for file in ["config.json", "unet/weights.bin"]:
    hf_hub_download("org/tiny", file)
try:
    hf_hub_download("org/tiny", "vae/config.json")
except EntryNotFoundError:
    print("absent")
"#;
    assert_eq!(run(&python, home.path(), &hub.endpoint(), false, script), "absent");
    let offline =
        ModelSource::open_with("org/tiny", &options("http://hub.invalid", home.path(), true)).unwrap();
    assert_eq!(&*offline.read("config.json").unwrap(), b"{}");
    assert_eq!(offline.read("unet/weights.bin").unwrap().len(), 300_000);
    hub.forget_requests();
    let model = ModelSource::open_with("org/tiny", &options(&hub.endpoint(), home.path(), false)).unwrap();
    assert!(model.file("unet/weights.bin").is_ok());
    assert!(model.optional_file("vae/config.json").unwrap().is_none(), "as huggingface_hub noted");
    let contents = hub
        .requests()
        .iter()
        .filter(|request| request.method == "GET" && !request.target.contains("/api/"))
        .count();
    assert_eq!(contents, 0);
}

#[test]
fn what_is_downloaded_here_is_used_by_huggingface_hub() {
    let Some(python) = python() else { return };
    for (redirect, etag) in
        [(Redirect::No, Etag::Sha256), (Redirect::Relative, Etag::Git), (Redirect::OtherHost, Etag::Sha1)]
    {
        for symlinks in [true, false] {
            let (root, home) = (root(), TempDir::new().unwrap());
            let hub = Hub::start(root.path(), Manner { redirect, etag, api: false, ..Manner::default() });
            let options = HubOptions { symlinks, ..options(&hub.endpoint(), home.path(), false) };
            let model = ModelSource::open_with("org/tiny", &options).unwrap();
            model.file("config.json").unwrap();
            let ours = model.file("unet/weights.bin").unwrap();
            assert!(model.optional_file("vae/config.json").unwrap().is_none());
            let script = r#"
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache, _CACHED_NO_EXIST
assert try_to_load_from_cache("org/tiny", "vae/config.json") is _CACHED_NO_EXIST
assert not scan_cache_dir().warnings, scan_cache_dir().warnings
assert [len(repo.revisions) for repo in scan_cache_dir().repos] == [1]
hf_hub_download("org/tiny", "config.json")
print(hf_hub_download("org/tiny", "unet/weights.bin"))
"#;
            assert_eq!(Path::new(&run(&python, home.path(), "http://hub.invalid", true, script)), ours);
            hub.forget_requests();
            assert_eq!(Path::new(&run(&python, home.path(), &hub.endpoint(), false, script)), ours);
            assert!(
                hub.requests().iter().all(|request| request.method == "HEAD"),
                "it downloads nothing anew"
            );
        }
    }
}

#[test]
fn both_at_once_download_one_file_one_after_the_other() {
    let Some(python) = python() else { return };
    let (root, home) = (root(), TempDir::new().unwrap());
    let hub = Hub::start(root.path(), Manner { api: false, ..Manner::default() });
    let script =
        "from huggingface_hub import hf_hub_download\nprint(hf_hub_download('org/tiny', 'unet/weights.bin'))";
    let paths: Vec<_> = std::thread::scope(|scope| {
        let theirs =
            [0; 2].map(|_| scope.spawn(|| run(&python, home.path(), &hub.endpoint(), false, script)));
        let ours = [0; 2].map(|_| {
            scope.spawn(|| {
                let model = ModelSource::open_with("org/tiny", &options(&hub.endpoint(), home.path(), false))
                    .unwrap();
                model.file("unet/weights.bin").unwrap().to_str().unwrap().to_owned()
            })
        });
        theirs.into_iter().chain(ours).map(|run| run.join().unwrap()).collect()
    });
    for path in paths {
        assert_eq!(fs::read(path).unwrap(), [7; 300_000]);
    }
    let blobs = fs::read_dir(home.path().join("hub/models--org--tiny/blobs")).unwrap().count();
    assert_eq!(blobs, 1);
}
