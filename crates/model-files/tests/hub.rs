//! Downloading from a small hub on this machine, which can also misbehave.

#[path = "common/mock_hub.rs"]
mod mock_hub;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mock_hub::{Encoding, Etag, Fault, Hub, Length, Manner, Proxy, Ranges, Redirect};
use model_files::Error;
use model_files::source::{CachedModels, HubOptions, ModelSource, Proxies};
use tempfile::TempDir;

const REPOSITORY: &str = "someone/model";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const CONFIG: &[u8] = br#"{"hidden_size": 8}"#;
const FOLDER: &str = "hub/models--someone--model";

/// Two folders that go when the test ends: what the hub serves, and what was downloaded.
struct Place {
    root: TempDir,
    home: TempDir,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Place {
    /// A repository with `weights.bin` and `unet/config.json`.
    fn new() -> Self {
        let place =
            Self { root: TempDir::new().unwrap(), home: TempDir::new().unwrap(), notices: Arc::default() };
        place.write(COMMIT, "weights.bin", &weights());
        place.write(COMMIT, "unet/config.json", CONFIG);
        place.set_refs(&[("main", COMMIT), ("refs/pr/1", COMMIT), ("v1/final+1", COMMIT)]);
        place
    }

    fn write(&self, commit: &str, file: &str, content: &[u8]) {
        let path = self.root.path().join(REPOSITORY).join(commit).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn set_refs(&self, refs: &[(&str, &str)]) {
        let refs: std::collections::HashMap<_, _> = refs.iter().copied().collect();
        let json = serde_json::json!({ REPOSITORY: refs }).to_string();
        fs::write(self.root.path().join("refs.json"), json).unwrap();
    }

    fn hub(&self, manner: Manner) -> Hub {
        Hub::start(self.root.path(), manner)
    }

    fn options(&self, endpoint: impl Into<String>) -> HubOptions {
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

    fn open(&self, hub: &Hub) -> ModelSource {
        ModelSource::open_with(REPOSITORY, &self.options(hub.endpoint())).unwrap()
    }

    fn offline(&self) -> ModelSource {
        let options = HubOptions { offline: true, ..self.options("http://hub.invalid") };
        ModelSource::open_with(REPOSITORY, &options).unwrap()
    }

    /// The files in the cache below `folder`, without the locks.
    fn cached(&self, folder: &str) -> Vec<PathBuf> {
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

    fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap().clone()
    }
}

fn weights() -> Vec<u8> {
    (0..100_000_u32).map(|number| (number % 251) as u8).collect()
}

/// The error's line, which must name the repository.
fn line_of<T>(result: Result<T, Error>) -> String {
    let line = result.err().expect("an error").to_string();
    assert!(line.contains(REPOSITORY) && !line.contains('\n'), "{line}");
    line
}

#[test]
fn files_are_downloaded_once() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    let model = place.open(&hub);
    assert!(hub.requests().is_empty(), "nothing is downloaded before it is asked for");
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
    assert_eq!(hub.requests().len(), 3, "the revision, what the file is, and the file");
    assert_eq!(fs::read(model.file("weights.bin").unwrap()).unwrap(), weights());
    let config: serde_json::Value = model.read_json("unet/config.json").unwrap();
    assert_eq!(config["hidden_size"], 8);
    assert_eq!(hub.requests().len(), 5, "the config was in the cache");
    assert_eq!(model.to_string(), REPOSITORY);
    hub.forget_requests();
    place.open(&hub).file("weights.bin").unwrap();
    assert_eq!(hub.requests().len(), 1, "whether main has moved is asked, and nothing else");
}

#[test]
fn the_cache_is_laid_out_as_huggingface_hub_does() {
    let place = Place::new();
    let hub = place.hub(Manner { api: false, ..Manner::default() });
    let model = place.open(&hub);
    let path = model.file("unet/config.json").unwrap();
    assert_eq!(path, place.home.path().join(FOLDER).join("snapshots").join(COMMIT).join("unet/config.json"));
    #[cfg(unix)]
    {
        let target = fs::read_link(&path).unwrap();
        assert!(target.starts_with("../../../blobs"), "{}", target.display());
    }
    assert_eq!(fs::read_to_string(place.home.path().join(FOLDER).join("refs/main")).unwrap(), COMMIT);
    assert!(model.optional_file("vae/config.json").unwrap().is_none());
    let mark = place.home.path().join(FOLDER).join(".no_exist").join(COMMIT).join("vae/config.json");
    assert_eq!(fs::read(mark).unwrap(), b"");
    hub.forget_requests();
    assert!(place.open(&hub).optional_file("vae/config.json").unwrap().is_none());
    assert!(
        hub.requests()
            .iter()
            .all(|request| request.target.contains("/api/") || request.target.contains("main"))
    );
    // Where links do not work, or are not wanted.
    let copies = TempDir::new().unwrap();
    let options =
        HubOptions { symlinks: false, cache: copies.path().into(), ..place.options(hub.endpoint()) };
    let path = ModelSource::open_with(REPOSITORY, &options).unwrap().file("unet/config.json").unwrap();
    assert!(path.symlink_metadata().unwrap().is_file());
}

#[test]
fn revisions_are_branches_tags_and_commits_long_or_short() {
    for api in [true, false] {
        for revision in ["main", "refs/pr/1", "v1/final+1", COMMIT, "0123456"] {
            let place = Place::new();
            let hub = place.hub(Manner { api, ..Manner::default() });
            let name = format!("{REPOSITORY}@{revision}");
            let model = ModelSource::open_with(&name, &place.options(hub.endpoint())).unwrap();
            assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG, "{revision}");
            let offline = HubOptions { offline: true, ..place.options(hub.endpoint()) };
            let model = ModelSource::open_with(&name, &offline).unwrap();
            assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG, "{revision}");
        }
        let place = Place::new();
        let hub = place.hub(Manner { api, ..Manner::default() });
        let options = place.options(hub.endpoint());
        let line =
            line_of(ModelSource::open_with("someone/model@v9", &options).unwrap().file("unet/config.json"));
        assert!(line.contains("no such revision"), "{line}");
    }
}

#[test]
fn a_file_that_the_repository_lacks_is_named() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    let model = place.open(&hub);
    assert!(model.optional_file("vae/config.json").unwrap().is_none());
    assert!(model.read_optional("vae/config.json").unwrap().is_none());
    let error = model.file("vae/config.json").unwrap_err();
    assert_eq!(error.to_string(), format!("someone/model on {}: no file vae/config.json", hub.endpoint()));
    assert!(matches!(error, Error::MissingFile { .. }));
    let options = place.options(hub.endpoint());
    let line = ModelSource::open_with("someone/else", &options)
        .unwrap()
        .file("config.json")
        .unwrap_err()
        .to_string();
    assert!(line.contains("no repository of this name"), "{line}");
}

#[test]
fn a_private_repository_needs_the_token() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    hub.require("Bearer hf_right");
    let line = line_of(place.open(&hub).file("unet/config.json"));
    assert!(line.contains("HTTP 401") && line.contains("HF_TOKEN") && line.contains("no token"), "{line}");
    let with = |token: &str| HubOptions { token: Some(token.into()), ..place.options(hub.endpoint()) };
    let model = ModelSource::open_with(REPOSITORY, &with("hf_wrong")).unwrap();
    let line = line_of(model.file("unet/config.json"));
    assert!(line.contains("not enough") && !line.contains("hf_wrong"), "{line}");
    let model = ModelSource::open_with(REPOSITORY, &with("hf_right")).unwrap();
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
}

/// The kind `hub-without-content-range`: whatever servers leave out, do on top, or break off.
#[test]
fn every_manner_of_server_delivers_whole_files() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    let mut count = 0;
    let faults =
        [&[][..], &[Fault::EndsAfter(40_000)], &[Fault::ResetAfter(70_000), Fault::Status(503, Some(0))]];
    for ranges in [Ranges::Honoured, Ranges::Ignored, Ranges::Unsaid] {
        for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::AlwaysGzip] {
            for redirect in [Redirect::No, Redirect::Relative, Redirect::OtherHost] {
                for etag in [Etag::Sha256, Etag::Sha1, Etag::Git, Etag::Weak, Etag::Opaque, Etag::Absent] {
                    for length in [Length::Announced, Length::Chunked, Length::Unsaid] {
                        count += 1;
                        let faults = faults[count % faults.len()];
                        // What neither has a length, nor a hash, nor an end, nobody can trust.
                        let api = count % 2 == 0;
                        let is_unknown =
                            !api && length == Length::Unsaid && matches!(etag, Etag::Opaque | Etag::Absent);
                        let manner = Manner {
                            ranges,
                            encoding,
                            redirect,
                            etag,
                            length,
                            api,
                            prefix: if count % 4 < 2 { "" } else { "/artifactory/api/hf" },
                            commit: api || count % 3 > 0,
                        };
                        let case = format!("{manner:?} {faults:?}");
                        hub.set_manner(manner);
                        let home = TempDir::new().unwrap();
                        let options =
                            HubOptions { cache: home.path().into(), ..place.options(hub.endpoint()) };
                        // Of a server that does not tell the commit, one has to be asked for.
                        let name = if manner.commit {
                            REPOSITORY.to_owned()
                        } else {
                            format!("{REPOSITORY}@{COMMIT}")
                        };
                        let model = ModelSource::open_with(&name, &options).unwrap();
                        hub.fail(faults);
                        let found = model.file("weights.bin");
                        hub.fail(&[]);
                        if is_unknown {
                            let line = line_of(found);
                            assert!(line.contains("neither length nor hash"), "{case}: {line}");
                            continue;
                        }
                        let path = found.unwrap_or_else(|error| panic!("{case}: {error}"));
                        assert!(fs::read(path).unwrap() == weights(), "{case}");
                        assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG, "{case}");
                    }
                }
            }
        }
    }
    assert_eq!(count, 486);
    assert!(hub.requests().iter().all(|request| request.header("accept-encoding") == Some("identity")));
}

#[test]
fn half_a_file_is_never_taken_for_the_whole() {
    for length in [Length::Announced, Length::Chunked, Length::Unsaid] {
        for fault in [Fault::EndsAfter(50_000), Fault::ResetAfter(50_000)] {
            let place = Place::new();
            let hub = place.hub(Manner { length, ranges: Ranges::Ignored, ..Manner::default() });
            hub.fail(&[fault; 100]);
            let options = HubOptions { retries: 2, ..place.options(hub.endpoint()) };
            let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
            let line = line_of(model.file("weights.bin"));
            assert!(line.contains("weights.bin") && line.contains(&hub.endpoint()), "{line}");
            let contents = hub.requests().iter().filter(|request| request.method == "GET").count();
            // A reset may take bytes with it that were on their way, and a try that gets further counts anew.
            assert!((4..60).contains(&contents), "the API and some tries, not {contents}");
            // Offline, only what is whole counts.
            assert!(place.cached(&format!("{FOLDER}/snapshots")).is_empty());
            // And once the connection holds, the file is whole.
            hub.fail(&[]);
            assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
            assert!(place.offline().optional_file("weights.bin").unwrap().is_some());
        }
    }
}

#[test]
fn a_broken_download_goes_on_where_it_broke_off() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    hub.fail(&[Fault::EndsAfter(30_000), Fault::ResetAfter(30_000), Fault::EndsAfter(30_000)]);
    let options = HubOptions { retries: 1, ..place.options(hub.endpoint()) };
    let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
    assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
    let ranges: Vec<_> =
        hub.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert!(ranges.len() == 3 && ranges[0] == "bytes=30000-", "{ranges:?}");
}

#[test]
fn what_an_interrupted_run_left_is_used_if_it_is_right() {
    for (left, is_right) in [
        (weights()[..60_000].to_vec(), true),
        (vec![1; 60_000], false),
        (weights(), true),
        (vec![2; 100_000], false),
        (vec![3; 200_000], false),
    ] {
        let place = Place::new();
        let hub = place.hub(Manner::default());
        let name = mock_hub::hex(&<sha2::Sha256 as sha2::Digest>::digest(weights()));
        let blobs = place.home.path().join(FOLDER).join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{name}.0123abcd.incomplete")), &left).unwrap();
        let model = place.open(&hub);
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        let asked_for_all = hub.requests().iter().any(|request| {
            request.target.contains("weights") && request.method == "GET" && request.header("range").is_none()
        });
        assert_eq!(asked_for_all, !is_right, "{} bytes", left.len());
        assert_eq!(place.cached(&format!("{FOLDER}/blobs")).len(), 1);
    }
}

#[test]
fn wrong_contents_are_refused_and_not_kept() {
    for (manner, fault, reason) in [
        (Manner::default(), Fault::Garbled, "SHA-256"),
        (Manner { etag: Etag::Wrong, ..Manner::default() }, Fault::None, "SHA-256"),
        (Manner { etag: Etag::Git, ..Manner::default() }, Fault::Garbled, "SHA-1"),
        (Manner { etag: Etag::Sha1, api: false, ..Manner::default() }, Fault::Garbled, "SHA-1"),
        (Manner { etag: Etag::Absent, ..Manner::default() }, Fault::Garbled, "SHA-256"),
        (
            Manner { length: Length::Wrong, ..Manner::default() },
            Fault::None,
            "ended after 100000 of 100001 bytes",
        ),
        (
            Manner { length: Length::Wrong, redirect: Redirect::OtherHost, ..Manner::default() },
            Fault::None,
            "it sends 100001 bytes, expected 100000",
        ),
    ] {
        let place = Place::new();
        let hub = place.hub(manner);
        hub.fail(&[fault]);
        let options = HubOptions { retries: 0, ..place.options(hub.endpoint()) };
        let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
        assert!(line.contains(reason), "{manner:?}: {line}");
        assert!(place.cached(&format!("{FOLDER}/snapshots")).is_empty());
        let kept = place.cached(&format!("{FOLDER}/blobs"));
        assert!(kept.iter().all(|path| path.to_str().unwrap().ends_with(".incomplete")), "{kept:?}");
    }
}

#[test]
fn a_hub_that_misbehaves_is_an_error() {
    let place = Place::new();
    let manner = |change: fn(&mut Manner)| {
        let mut manner = Manner { api: false, ..Manner::default() };
        change(&mut manner);
        manner
    };
    for (manner, fault, reason) in [
        (Manner::default(), Fault::Silence, "sent nothing for 0.2 s"),
        (Manner::default(), Fault::Status(503, None), "HTTP status 503"),
        (Manner::default(), Fault::Status(429, Some(100_000)), "asks to wait for 100000 s"),
        (manner(|hub| hub.etag = Etag::Escaping), Fault::None, "it calls a file version \"../../escaped\""),
        (manner(|hub| hub.redirect = Redirect::Loop), Fault::None, "more than 10 redirects"),
        (manner(|hub| hub.commit = false), Fault::None, "does not answer as a hub does"),
    ] {
        let hub = place.hub(manner);
        hub.fail(&[fault; 20]);
        let limit = Duration::from_millis(200);
        let options = HubOptions {
            metadata_timeout: limit,
            download_timeout: limit,
            retries: 1,
            ..place.options(hub.endpoint())
        };
        let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("unet/config.json"));
        assert!(line.contains(reason) && line.contains(&hub.endpoint()), "{line}");
        assert!(place.cached(&format!("{FOLDER}/snapshots")).is_empty());
    }
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    for status in [429, 503] {
        let place = Place::new();
        let hub = place.hub(Manner::default());
        hub.fail(&[
            Fault::Status(status, Some(1)),
            Fault::Status(status, Some(0)),
            Fault::Status(status, None),
        ]);
        let start = Instant::now();
        assert_eq!(&*place.open(&hub).read("unet/config.json").unwrap(), CONFIG);
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}

/// The kind `token-to-another-host`: the token is for scheme, host and port of the endpoint, all three.
#[test]
fn the_token_goes_to_the_hub_alone() {
    for redirect in [Redirect::No, Redirect::Relative, Redirect::OtherHost] {
        for endpoint in ["", "me:secret@"] {
            let place = Place::new();
            let hub = place.hub(Manner { redirect, ..Manner::default() });
            hub.require(if endpoint.is_empty() { "Bearer hf_secret" } else { "Basic bWU6c2VjcmV0" });
            let options = HubOptions {
                token: Some("hf_secret".into()),
                ..place.options(hub.endpoint().replace("localhost", &format!("{endpoint}localhost")))
            };
            let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
            assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
            for request in hub.requests() {
                let is_hub = request.header("host").unwrap().starts_with("localhost");
                assert_eq!(request.header("authorization").is_some(), is_hub, "{request:?}");
            }
            hub.fail(&[Fault::Status(500, None); 20]);
            let line = line_of(model.file("unet/config.json"));
            let shown = format!("{line} {model:?} {options:?}");
            assert!(!shown.contains("secret") && shown.contains("localhost"), "{shown}");
        }
    }
}

/// The kind `hub-two-commits-mixed`: main moves between two runs, or while one goes on.
#[test]
fn a_model_is_of_one_commit() {
    for api in [true, false] {
        let place = Place::new();
        place.write(NEXT_COMMIT, "unet/config.json", b"{}");
        place.write(NEXT_COMMIT, "weights.bin", b"next");
        let hub = place.hub(Manner { api, ..Manner::default() });
        let model = place.open(&hub);
        assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
        place.set_refs(&[("main", NEXT_COMMIT)]);
        // The one that was opened before goes on at its commit.
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        // Those opened later have nothing of it, whatever is in the cache.
        let model = place.open(&hub);
        assert_eq!(&*model.read("weights.bin").unwrap(), b"next");
        place.set_refs(&[("main", COMMIT)]);
        assert_eq!(&*model.read("unet/config.json").unwrap(), b"{}");
        // Without the hub it is the commit of last time, even where only another one has the file.
        place.set_refs(&[("main", NEXT_COMMIT)]);
        assert_eq!(&*place.offline().read("weights.bin").unwrap(), b"next");
    }
    // A server whose commits are none that could be asked for.
    let place = Place::new();
    for (commit, content) in [("c0ffee", CONFIG), ("decade", b"{}")] {
        place.write(commit, "unet/config.json", content);
        place.write(commit, "weights.bin", b"weights");
    }
    place.set_refs(&[("main", "c0ffee")]);
    let hub = place.hub(Manner { api: false, ..Manner::default() });
    let model = place.open(&hub);
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
    place.set_refs(&[("main", "decade")]);
    let line = line_of(model.read("weights.bin"));
    assert!(line.contains("main changed from c0ffee to decade"), "{line}");
}

/// The kind `hub-gone-all-cached`: what is cached is enough, and one line says that it was used.
#[test]
fn a_cached_model_needs_no_hub() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, api, reason) in [
        (Some(format!("http://{gone}")), true, "cannot reach"),
        (Some("http://hub.invalid".to_owned()), false, "cannot reach"),
        (None, true, "HTTP status 503"),
        (None, false, "refuses access"),
    ] {
        let place = Place::new();
        let hub = place.hub(Manner { api, ..Manner::default() });
        let model = place.open(&hub);
        model.file("unet/config.json").unwrap();
        model.file("weights.bin").unwrap();
        model.optional_file("vae/config.json").unwrap();
        if api {
            // A busy hub: the API, too, is only a file of the mock.
            hub.set_manner(Manner { prefix: "/busy", ..Manner::default() });
        } else {
            hub.require("Bearer other");
        }
        let endpoint = endpoint.unwrap_or_else(|| if api { busy() } else { hub.endpoint() });
        let options = HubOptions { retries: 1, ..place.options(endpoint.clone()) };
        let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
        assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
        assert!(model.optional_file("vae/config.json").unwrap().is_none());
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        let notices = place.notices();
        let [notice] = notices.as_slice() else { panic!("{notices:?}") };
        assert!(
            notice.contains(reason) && notice.contains("0123456789ab") && notice.contains("cache"),
            "{notice}"
        );
        let line = line_of(model.file("text_encoder/config.json"));
        assert!(line.contains(reason) && line.contains("not downloaded before"), "{line}");
    }
}

/// A server that is always busy.
fn busy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let _ = connection.read(&mut [0; 4096]);
            let _ =
                connection.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    format!("http://{address}")
}

#[test]
fn offline_mode_uses_what_is_there_and_asks_nothing() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    place.open(&hub).file("unet/config.json").unwrap();
    let asked = hub.requests().len();
    let options = HubOptions { offline: true, ..place.options(hub.endpoint()) };
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
    assert_eq!(hub.requests().len(), asked);
    assert!(place.notices().is_empty(), "who asked for it needs not be told");
}

#[test]
fn an_unreachable_hub_is_named() {
    let place = Place::new();
    // A port that was free a moment ago.
    let endpoint = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let model = ModelSource::open_with(REPOSITORY, &place.options(endpoint.clone())).unwrap();
    let line = line_of(model.file("unet/config.json"));
    assert!(line.contains(&format!("cannot reach the hub {endpoint}")), "{line}");
}

/// The kind `hub-private-ca`: a file, a directory, and no trust without either.
#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let place = Place::new();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let directory = TempDir::new().unwrap();
    fs::copy(tls.join("authority.pem"), directory.path().join("0123abcd.0")).unwrap();
    let hub = Hub::start_encrypted(
        place.root.path(),
        Manner { redirect: Redirect::OtherHost, ..Manner::default() },
        &tls,
    );
    assert!(hub.is_encrypted);
    for authority in [tls.join("authority.pem"), directory.path().to_owned()] {
        let home = TempDir::new().unwrap();
        let options = HubOptions {
            authorities: vec![authority],
            cache: home.path().into(),
            ..place.options(hub.endpoint())
        };
        let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
    }
    let line = line_of(place.open(&hub).file("weights.bin"));
    assert!(line.contains("certificate") && line.contains("SSL_CERT_FILE"), "{line}");
    let options = HubOptions { authorities: vec!["/none.pem".into()], ..place.options(hub.endpoint()) };
    let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
    assert!(line.contains("/none.pem") && line.contains("SSL_CERT_FILE"), "{line}");
    // From there, no redirect leads to where anybody could read along.
    hub.set_manner(Manner { redirect: Redirect::Unprotected, api: false, ..Manner::default() });
    let options = HubOptions {
        authorities: vec![tls.join("authority.pem")],
        retries: 0,
        ..place.options(hub.endpoint())
    };
    let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
    assert!(line.contains("redirect from https:// to http://"), "{line}");
}

#[test]
fn proxies_are_asked_for_urls_and_for_tunnels() {
    let place = Place::new();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    for encrypted in [false, true] {
        let hub = match encrypted {
            false => place.hub(Manner::default()),
            true => Hub::start_encrypted(place.root.path(), Manner::default(), &tls),
        };
        let proxy = Proxy::start(&hub);
        let home = TempDir::new().unwrap();
        // Nobody but the proxy knows this host.
        let endpoint = hub.endpoint().replace("localhost", "hub.invalid");
        let options = HubOptions {
            proxies: Proxies {
                all: Some(format!("http://me:secret@{}", proxy.address)),
                ..Proxies::default()
            },
            authorities: vec![tls.join("authority.pem")],
            token: Some("hf_right".into()),
            cache: home.path().into(),
            ..place.options(endpoint)
        };
        let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        let seen = proxy.requests();
        for request in &seen {
            let host = format!("hub.invalid:{}", hub.address.port());
            assert_eq!(request.header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
            match encrypted {
                true => assert!(
                    request.method == "CONNECT"
                        && request.target == host
                        && request.header("authorization").is_none()
                ),
                false => assert!(request.target.starts_with(&format!("http://{host}/")), "{request:?}"),
            }
        }
        assert!(!seen.is_empty());
        assert!(hub.requests().iter().all(|request| request.header("proxy-authorization").is_none()));
    }
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for proxy in [format!("http://me:secret@{refused}"), "me:secret@what ever".to_owned()] {
        for scheme in ["http", "https"] {
            let options = HubOptions {
                proxies: Proxies { all: Some(proxy.clone()), ..Proxies::default() },
                ..place.options(format!("{scheme}://hub.invalid"))
            };
            let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
            assert!(line.contains("cannot reach") && !line.contains("secret"), "{line}");
        }
    }
}

#[test]
fn two_downloads_at_once_do_not_disturb_each_other() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let model = place.open(&hub);
                assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
            });
        }
    });
    let contents =
        |request: &&mock_hub::Request| request.method == "GET" && request.target.contains("weights");
    assert_eq!(hub.requests().iter().filter(contents).count(), 1, "seven wait for the eighth");
    assert_eq!(place.cached(&format!("{FOLDER}/blobs")).len(), 1);
}

#[test]
fn a_whole_model_is_downloaded_and_nothing_else() {
    let pipeline: &[&str] = &[
        "model_index.json",
        "README.md",
        "v1-5-pruned.ckpt",
        "scheduler/scheduler_config.json",
        "tokenizer/sentencepiece.bpe.model",
        "tokenizer/tokenizer_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/a-00001.safetensors",
        "text_encoder/a-00002.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder/flax_model.msgpack",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/model.onnx",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    ];
    let of_pipeline = [
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/a-00001.safetensors",
        "text_encoder/a-00002.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        "tokenizer/sentencepiece.bpe.model",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ];
    let dual: &[&str] =
        &["config.json", "pytorch_model.bin", "tokenizer.json", "preprocessor_config.json", "tf_model.h5"];
    let of_dual = ["config.json", "preprocessor_config.json", "pytorch_model.bin", "tokenizer.json"];
    let lora: &[&str] = &["adapter_config.json", "adapter_model.safetensors", "image_0.png"];
    for api in [true, false] {
        for (all, read) in [(pipeline, &of_pipeline[..]), (dual, &of_dual), (lora, &lora[..2])] {
            let place = Place {
                root: TempDir::new().unwrap(),
                home: TempDir::new().unwrap(),
                notices: Arc::default(),
            };
            for file in all {
                place.write(COMMIT, file, file.as_bytes());
            }
            if all.len() == pipeline.len() {
                let index = br#"{"weight_map": {"x": "a-00001.safetensors", "y": "a-00002.safetensors"}}"#;
                place.write(COMMIT, "text_encoder/model.safetensors.index.json", index);
            }
            place.set_refs(&[("main", COMMIT)]);
            let hub = place.hub(Manner { api, ..Manner::default() });
            let downloaded = place.open(&hub).download().unwrap();
            let mut files: Vec<_> = downloaded.files.iter().map(|(file, _)| file.as_str()).collect();
            files.sort_unstable();
            assert_eq!(files, read);
            assert_eq!(downloaded.commit, COMMIT);
            let models = CachedModels::new(place.home.path().join("hub")).list().unwrap();
            let [model] = models.as_slice() else { panic!("{models:?}") };
            assert_eq!(
                (model.name.as_str(), model.commit.as_str(), model.size),
                (REPOSITORY, COMMIT, downloaded.size)
            );
            assert_eq!(model.revisions, ["main"]);
            let notices = place.notices();
            assert!(
                notices.len() == 1 && notices[0].starts_with("Downloading someone/model: "),
                "{notices:?}"
            );
            hub.forget_requests();
            assert_eq!(place.open(&hub).download().unwrap().downloaded, 0);
            assert!(
                hub.requests()
                    .iter()
                    .all(|request| request.method == "HEAD" || request.target.contains("/api/"))
            );
        }
    }
    let place = Place::new();
    place.write(COMMIT, "unet/diffusion_pytorch_model.fp16.safetensors", b"half");
    place.write(COMMIT, "unet/diffusion_pytorch_model.safetensors", b"whole");
    let hub = place.hub(Manner::default());
    let files = place.open(&hub).with_variant("fp16").unwrap().download().unwrap().files;
    let files: Vec<_> = files.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]);
}

#[test]
fn cached_models_are_removed_whole_or_by_commit() {
    let place = Place::new();
    place.write(NEXT_COMMIT, "weights.bin", &weights());
    place.write(NEXT_COMMIT, "unet/config.json", b"{\"next\": 1}");
    let hub = place.hub(Manner::default());
    let open = || {
        let model = place.open(&hub);
        model.file("weights.bin").unwrap();
        model.file("unet/config.json").unwrap()
    };
    open();
    place.set_refs(&[("main", NEXT_COMMIT)]);
    let kept = open();
    let models = CachedModels::new(place.home.path().join("hub"));
    assert_eq!(models.list().unwrap().len(), 2);
    assert_eq!(
        models.remove("someone/model@0123456").unwrap(),
        CONFIG.len() as u64,
        "the weights are of both"
    );
    assert_eq!(models.list().unwrap().len(), 1);
    assert!(kept.is_file() && place.offline().file("weights.bin").unwrap().is_file());
    for bad in ["someone/else", "../hub", "someone/model@v9"] {
        assert!(models.remove(bad).unwrap_err().to_string().contains(bad), "{bad}");
    }
    models.remove(REPOSITORY).unwrap();
    assert!(models.list().unwrap().is_empty());
    assert!(CachedModels::new("/no/such/cache").list().unwrap().is_empty());
}

#[test]
fn names_that_are_neither_directory_nor_repository_are_explained() {
    let place = Place::new();
    let options = place.options("http://hub.invalid");
    for name in ["no-such-directory", "./models/none", "a/b/c", "someone/model@../x"] {
        let line = ModelSource::open_with(name, &options).unwrap_err().to_string();
        assert!(line.contains(name) && line.contains("directory") && line.contains("org/name"), "{line}");
    }
    let file = place.home.path().join("file.ckpt");
    fs::write(&file, "").unwrap();
    let line = ModelSource::open_with(file.to_str().unwrap(), &options).unwrap_err().to_string();
    assert!(line.contains("found a file"), "{line}");
    for (endpoint, shown) in
        [("hub.example", "hub.example"), ("ftp://me:secret@hub.example", "ftp://hub.example")]
    {
        let options = HubOptions { endpoint: endpoint.into(), ..options.clone() };
        let line = ModelSource::open_with(REPOSITORY, &options).unwrap_err().to_string();
        assert!(line.contains(&format!("hub endpoint {shown}:")) && !line.contains("secret"), "{line}");
    }
}
