//! Serves a directory as a hub on this machine, for scripts that test downloads.
//!
//! ```text
//! mock_hub ROOT
//! ```
//!
//! ROOT holds `org/name/<commit>/<files>` and `refs.json`, such as `{"org/name": {"main": "<commit>"}}`. The port is
//! printed on standard output. Each line on standard input, such as
//! `ranges=ignored etag=weak faults=ends:1000,status:503:0`, changes how the hub answers, and is acknowledged with
//! `ok`.

#[path = "../tests/common/mock_hub/mod.rs"]
mod mock_hub;

use std::io::BufRead;
use std::path::Path;

use mock_hub::{Encoding, Etag, Fault, Hub, Length, Manner, Ranges, Redirect};

fn main() {
    let Some(root) = std::env::args().nth(1) else {
        eprintln!("usage: mock_hub ROOT");
        std::process::exit(2);
    };
    let hub = Hub::start(Path::new(&root), Manner::default());
    println!("{}", hub.address.port());
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut manner = Manner::default();
        let mut faults = Vec::new();
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("faults", list)) => faults = list.split(',').map(fault).collect(),
                Some((field, value)) => set(&mut manner, field, value),
                None => panic!("expected FIELD=VALUE, found {word:?}"),
            }
        }
        hub.set_manner(manner);
        hub.fail(&faults);
        println!("ok");
    }
}

fn set(manner: &mut Manner, field: &str, value: &str) {
    match (field, value) {
        ("ranges", "honoured") => manner.ranges = Ranges::Honoured,
        ("ranges", "ignored") => manner.ranges = Ranges::Ignored,
        ("ranges", "unsaid") => manner.ranges = Ranges::Unsaid,
        ("encoding", "plain") => manner.encoding = Encoding::Plain,
        ("encoding", "gzip") => manner.encoding = Encoding::Gzip,
        ("encoding", "always-gzip") => manner.encoding = Encoding::AlwaysGzip,
        ("redirect", "no") => manner.redirect = Redirect::No,
        ("redirect", "relative") => manner.redirect = Redirect::Relative,
        ("redirect", "other-host") => manner.redirect = Redirect::OtherHost,
        ("etag", "sha256") => manner.etag = Etag::Sha256,
        ("etag", "sha1") => manner.etag = Etag::Sha1,
        ("etag", "git") => manner.etag = Etag::Git,
        ("etag", "weak") => manner.etag = Etag::Weak,
        ("etag", "opaque") => manner.etag = Etag::Opaque,
        ("etag", "absent") => manner.etag = Etag::Absent,
        ("length", "announced") => manner.length = Length::Announced,
        ("length", "chunked") => manner.length = Length::Chunked,
        ("length", "unsaid") => manner.length = Length::Unsaid,
        // One path is enough; a mirror uses this one.
        ("prefix", "yes") => manner.prefix = "/artifactory/api/huggingfaceml/hf",
        ("prefix", "no") => manner.prefix = "",
        ("api", value) => manner.api = value == "yes",
        _ => panic!("{field}={value}: there is no such manner"),
    }
}

fn fault(text: &str) -> Fault {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &str| text.parse().expect("a number");
    match parts.as_slice() {
        ["ends", bytes] => Fault::EndsAfter(number(bytes) as usize),
        ["reset", bytes] => Fault::ResetAfter(number(bytes) as usize),
        ["status", status] => Fault::Status(number(status) as u16, None),
        ["status", status, wait] => Fault::Status(number(status) as u16, Some(number(wait))),
        _ => panic!("{text}: there is no such fault"),
    }
}
