//! Tests the cache when the hub is unreachable, that all files are from one commit, and the removal of models.

use std::fs;
use std::net::TcpListener;

use model_files::ErrorKind;
use model_files::source::{CachedModels, HubOptions, ModelSource};

use crate::mock_hub::Manner;
use crate::place::{COMMIT, CONFIG, FOLDER, NEXT_COMMIT, Place, REPOSITORY, line_of, weights};

/// `hub-two-commits-mixed`: main moves between two runs, or during one.
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
        // A model opened before stays at its commit.
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        // Models opened later use none of its files, whatever is cached.
        let model = place.open(&hub);
        assert_eq!(&*model.read("weights.bin").unwrap(), b"next");
        place.set_refs(&[("main", COMMIT)]);
        assert_eq!(&*model.read("unet/config.json").unwrap(), b"{}");
        // Without the hub it is the last known commit, even if only another one has the file.
        place.set_refs(&[("main", NEXT_COMMIT)]);
        assert_eq!(&*place.offline().read("weights.bin").unwrap(), b"next");
    }
    // A server whose commits cannot be requested.
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

/// `hub-gone-all-cached`: cached files are enough, and one line says that they were used.
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
            // A busy hub: the API is just a file of the mock.
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
    let error = model.file("unet/config.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    let line = line_of(Err::<(), _>(error));
    assert!(line.contains(&format!("cannot reach the hub {endpoint}")), "{line}");
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

/// Desktops leave files wherever they are shown a folder; `scan_cache_dir` of huggingface_hub passes over `.DS_Store`,
/// `Thumbs.db` and `desktop.ini` too.
#[test]
fn files_that_desktops_leave_in_the_cache_are_passed_over() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    place.open(&hub).file("unet/config.json").unwrap();
    let cache = place.home.path().join("hub");
    let folder = place.home.path().join(FOLDER);
    for left in [
        cache.join(".DS_Store"),
        cache.join("models--of--nobody"),
        folder.join(".DS_Store"),
        folder.join("refs/.DS_Store"),
        folder.join("refs/desktop.ini"),
        folder.join("snapshots/.DS_Store"),
        folder.join("blobs/.DS_Store"),
    ] {
        fs::write(left, b"\0\0\0\x01Bud1\xff\xfe").unwrap();
    }
    let models = CachedModels::new(cache);
    let listed = models.list().unwrap();
    let [model] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((model.name.as_str(), model.commit.as_str()), (REPOSITORY, COMMIT));
    assert_eq!(model.revisions, ["main"]);
    assert!(place.offline().file("unet/config.json").is_ok());
    models.remove(&format!("{REPOSITORY}@main")).unwrap();
    assert!(models.list().unwrap().is_empty());
}
