//! Downloading from a small hub on this machine, which can also misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use altclip_encoder::Error;
use altclip_encoder::source::{HubOptions, ModelSource};
use tempfile::TempDir;

const REPOSITORY: &str = "someone/model";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONFIG: &[u8] = br#"{"hidden_size": 8}"#;

/// How the hub answers a request for a file's content.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Announces the whole length and hangs up in the middle.
    HangsUp,
    /// Announces no length and ends in the middle, which HTTP takes for the end of the file.
    EndsEarly,
    /// Takes the connection and never says a word.
    Silent,
    /// Announces a file version that is a path out of the cache.
    Escapes,
    /// Answers, but with what no hub sends.
    NoHub,
    Fails,
}

struct Hub {
    endpoint: String,
    state: Arc<State>,
}

struct State {
    files: HashMap<String, Vec<u8>>,
    token: Option<&'static str>,
    manner: Mutex<Manner>,
    requests: AtomicUsize,
}

impl Hub {
    /// A hub that has `weights.bin` of this content, and `unet/config.json`, at `main` and `refs/pr/1`.
    fn start(weights: Vec<u8>, manner: Manner, token: Option<&'static str>) -> Self {
        let mut files = HashMap::new();
        for revision in ["main", "refs%2Fpr%2F1"] {
            files.insert(format!("/{REPOSITORY}/resolve/{revision}/unet/config.json"), CONFIG.to_vec());
        }
        files.insert(format!("/{REPOSITORY}/resolve/main/weights.bin"), weights);
        let state =
            Arc::new(State { files, token, manner: Mutex::new(manner), requests: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = shared.clone();
                // A client that hangs up early is no failure of the hub.
                std::thread::spawn(move || state.answer(connection).ok());
            }
        });
        Self { endpoint, state }
    }

    fn honest() -> Self {
        Self::start(vec![7; 100_000], Manner::Honest, None)
    }

    fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    fn options(&self, cache: &Path) -> HubOptions {
        HubOptions {
            endpoint: self.endpoint.clone(),
            cache: cache.join("hub"),
            token: None,
            offline: false,
            progress: false,
            timeout: Duration::from_secs(2),
        }
    }

    fn open(&self, cache: &Path) -> ModelSource {
        ModelSource::open_with(REPOSITORY, &self.options(cache)).unwrap()
    }
}

impl State {
    fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let mut headers = HashMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let manner = *self.manner.lock().unwrap();
        if manner == Manner::Silent {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        let refusal =
            |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        if let Some(token) = self.token
            && headers.get("authorization") != Some(&format!("Bearer {token}"))
        {
            return connection.write_all(refusal("401 Unauthorized").as_bytes());
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let Some(file) = self.files.get(path) else {
            return connection.write_all(refusal("404 Not Found").as_bytes());
        };
        match manner {
            Manner::NoHub => return connection.write_all(refusal("200 OK").as_bytes()),
            Manner::Fails => return connection.write_all(refusal("503 Service Unavailable").as_bytes()),
            _ => {}
        }

        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(file.len(), |last: usize| (last + 1).min(file.len()));
        let content = &file[from..to];
        let etag = if manner == Manner::Escapes {
            "../../escaped".to_owned()
        } else {
            format!("etag-{}", file.len())
        };
        write!(
            connection,
            "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\nAccept-Ranges: bytes\r\n\
             Content-Range: bytes {from}-{}/{}\r\nConnection: close\r\n",
            to - 1,
            file.len()
        )?;
        let whole = content.len() == 1 || !matches!(manner, Manner::HangsUp | Manner::EndsEarly);
        if manner != Manner::EndsEarly {
            write!(connection, "Content-Length: {}\r\n", content.len())?;
        }
        connection.write_all(b"\r\n")?;
        connection.write_all(if whole { content } else { &content[..content.len() / 2] })
    }
}

/// The error's line, which must name the repository.
fn line_of<T>(result: Result<T, Error>) -> String {
    let line = result.err().expect("an error").to_string();
    assert!(line.contains(REPOSITORY) && !line.contains('\n'), "{line}");
    line
}

#[test]
fn files_are_downloaded_once() {
    let (hub, cache) = (Hub::honest(), TempDir::new().unwrap());
    let model = hub.open(cache.path());
    assert_eq!(hub.requests(), 0, "nothing is downloaded before it is asked for");
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
    let asked = hub.requests();
    assert_eq!(std::fs::read(model.file("weights.bin").unwrap()).unwrap(), vec![7; 100_000]);
    let config: serde_json::Value = model.read_json("unet/config.json").unwrap();
    assert_eq!(config["hidden_size"], 8);
    assert_eq!(hub.requests(), 2 * asked, "the config was in the cache");
    assert_eq!(model.to_string(), REPOSITORY);
}

#[test]
fn revisions_have_files_of_their_own() {
    let (hub, cache) = (Hub::honest(), TempDir::new().unwrap());
    let options = hub.options(cache.path());
    let model = ModelSource::open_with("someone/model@refs/pr/1", &options).unwrap();
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
    assert!(model.optional_file("weights.bin").unwrap().is_none());
}

#[test]
fn a_file_that_the_repository_lacks_is_named() {
    let (hub, cache) = (Hub::honest(), TempDir::new().unwrap());
    let model = hub.open(cache.path());
    assert!(model.optional_file("vae/config.json").unwrap().is_none());
    assert!(model.read_optional("vae/config.json").unwrap().is_none());
    let error = model.file("vae/config.json").unwrap_err();
    assert_eq!(error.to_string(), format!("someone/model on {}: no file vae/config.json", hub.endpoint));
    assert!(matches!(error, Error::MissingFile { .. }));
}

#[test]
fn a_private_repository_needs_the_token() {
    let hub = Hub::start(vec![1], Manner::Honest, Some("hf_right"));
    let cache = TempDir::new().unwrap();
    let line = line_of(hub.open(cache.path()).file("unet/config.json"));
    assert!(line.contains("HTTP 401") && line.contains("HF_TOKEN") && line.contains("no token"), "{line}");
    let with = |token: &str| HubOptions { token: Some(token.into()), ..hub.options(cache.path()) };
    let model = ModelSource::open_with(REPOSITORY, &with("hf_wrong")).unwrap();
    let line = line_of(model.file("unet/config.json"));
    assert!(line.contains("not enough") && !line.contains("hf_wrong"), "{line}");
    let model = ModelSource::open_with(REPOSITORY, &with("hf_right")).unwrap();
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
}

#[test]
fn half_a_file_is_never_taken_for_the_whole() {
    for manner in [Manner::HangsUp, Manner::EndsEarly] {
        let hub = Hub::start((0..=255).cycle().take(1000).collect(), manner, None);
        let cache = TempDir::new().unwrap();
        let model = hub.open(cache.path());
        let line = line_of(model.file("weights.bin"));
        assert!(line.contains("weights.bin") && line.contains(&hub.endpoint), "{line}");
        // Offline, only what is whole counts.
        let offline = HubOptions { offline: true, ..hub.options(cache.path()) };
        let offline = ModelSource::open_with(REPOSITORY, &offline).unwrap();
        assert!(offline.optional_file("weights.bin").unwrap().is_none());
        // And once the connection holds, the file is whole.
        *hub.state.manner.lock().unwrap() = Manner::Honest;
        let content = std::fs::read(model.file("weights.bin").unwrap()).unwrap();
        assert!(content == (0..=255).cycle().take(1000).collect::<Vec<u8>>());
        assert!(offline.optional_file("weights.bin").unwrap().is_some());
    }
}

#[test]
fn offline_mode_uses_what_is_there_and_asks_nothing() {
    let (hub, cache) = (Hub::honest(), TempDir::new().unwrap());
    hub.open(cache.path()).file("unet/config.json").unwrap();
    let asked = hub.requests();
    let options = HubOptions { offline: true, ..hub.options(cache.path()) };
    let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
    assert!(model.optional_file("vae/config.json").unwrap().is_none());
    let line = line_of(model.file("weights.bin"));
    assert!(
        line.contains("weights.bin") && line.contains("offline") && line.contains("HF_HUB_OFFLINE"),
        "{line}"
    );
    // A commit is a revision too.
    let model = ModelSource::open_with(&format!("{REPOSITORY}@{COMMIT}"), &options).unwrap();
    assert!(model.file("unet/config.json").is_ok());
    assert_eq!(hub.requests(), asked);
}

#[test]
fn an_unreachable_hub_is_named() {
    let cache = TempDir::new().unwrap();
    // A port that was free a moment ago.
    let endpoint = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let options = HubOptions { endpoint: endpoint.clone(), ..Hub::honest().options(cache.path()) };
    let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("unet/config.json"));
    assert!(line.contains(&format!("cannot reach the hub {endpoint}")), "{line}");
}

#[test]
fn a_hub_that_misbehaves_is_an_error() {
    for (manner, reason) in [
        (Manner::Silent, "sent nothing for 0.2 s"),
        (Manner::Escapes, "it calls a file version \"../../escaped\""),
        (Manner::NoHub, "does not answer as a hub does"),
        (Manner::Fails, "HTTP status 503"),
    ] {
        let hub = Hub::start(vec![1], manner, None);
        let cache = TempDir::new().unwrap();
        let options = HubOptions { timeout: Duration::from_millis(200), ..hub.options(cache.path()) };
        let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("unet/config.json"));
        assert!(line.contains(reason) && line.contains(&hub.endpoint), "{line}");
    }
}

#[test]
fn names_that_are_neither_directory_nor_repository_are_explained() {
    let cache = TempDir::new().unwrap();
    let options = Hub::honest().options(cache.path());
    for name in ["no-such-directory", "./models/none", "a/b/c", "someone/model@../x"] {
        let line = ModelSource::open_with(name, &options).unwrap_err().to_string();
        assert!(line.contains(name) && line.contains("directory") && line.contains("org/name"), "{line}");
    }
    let file = cache.path().join("file.ckpt");
    std::fs::write(&file, "").unwrap();
    let line = ModelSource::open_with(file.to_str().unwrap(), &options).unwrap_err().to_string();
    assert!(line.contains("found a file"), "{line}");
    let options = HubOptions { endpoint: "hub.example".into(), ..options };
    let line = ModelSource::open_with(REPOSITORY, &options).unwrap_err().to_string();
    assert!(line.contains("hub endpoint hub.example"), "{line}");
}
