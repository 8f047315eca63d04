//! Tests that downloads from all kinds of servers are complete or fail.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model_files::source::{HubOptions, ModelSource};
use tempfile::TempDir;

use crate::mock_hub::{self, Encoding, Etag, Fault, Length, Manner, Ranges, Redirect};
use crate::place::{COMMIT, CONFIG, FOLDER, Place, REPOSITORY, line_of, weights};

/// `hub-without-content-range`: whatever servers leave out, add, or break off.
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
                        // Content without length, hash or end cannot be trusted.
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
                        // If the server does not name the commit, request one explicitly.
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

/// nginx makes an ETag of a file's time and size alone, so that files copied at once often share one.
#[test]
fn files_with_equal_etags_are_not_taken_for_each_other() {
    for api in [true, false] {
        let place = Place::new();
        let other = weights().into_iter().rev().collect::<Vec<u8>>();
        place.write(COMMIT, "other.bin", &other);
        let hub = place.hub(Manner { etag: Etag::Opaque, api, ..Manner::default() });
        let model = place.open(&hub);
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        assert!(fs::read(model.file("other.bin").unwrap()).unwrap() == other);
        // The names are hashes, as on the hub itself.
        let blobs = place.cached(&format!("{FOLDER}/blobs"));
        let is_hash = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        assert!(blobs.len() == 2 && blobs.iter().all(is_hash), "{blobs:?}");
    }
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
            // A reset may lose bytes in transit, and an attempt with progress restarts the count.
            assert!((4..60).contains(&contents), "the API and some tries, not {contents}");
            // Offline, only complete files count.
            assert!(place.cached(&format!("{FOLDER}/snapshots")).is_empty());
            // Once the connection holds, the file is complete.
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
    // The hub itself says it in `RateLimit`, which huggingface_hub reads too (`parse_ratelimit_headers`).
    let place = Place::new();
    let hub = place.hub(Manner::default());
    hub.fail(&[Fault::Limited(0)]);
    let start = Instant::now();
    assert_eq!(&*place.open(&hub).read("unet/config.json").unwrap(), CONFIG);
    assert!(start.elapsed() >= Duration::from_secs(1));
}
