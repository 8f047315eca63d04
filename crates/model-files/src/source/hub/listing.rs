//! Reads a revision from the hub's API: its commit, and its files with their sizes.

use std::collections::HashMap;

use serde::Deserialize;

use super::client::{Ask, Client};
use super::digest::Expected;
use super::failure::Failure;
use super::names::is_commit;
use crate::relative_path::check_relative;

/// The hub truncates lists of this length.
const MOST_FILES: usize = 50_000;
const LARGEST_ANSWER: u64 = 256 << 20;
/// A revision, as the API describes it.
#[derive(Debug)]
pub(super) struct Revision {
    pub commit: String,
    /// All files, or `None` if the list is incomplete.
    pub files: Option<HashMap<String, ListedFile>>,
}

/// A file's entry in the list.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    pub size: Option<u64>,
    pub hash: Option<Expected>,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// Queries `revision` of the repository `id`. `None` if the server has no such API, as with some mirrors.
pub(super) fn revision(client: &Client, id: &str, revision: &str) -> Result<Option<Revision>, Failure> {
    let path = ["api", "models"].into_iter().chain(id.split('/')).chain(["revision", revision]);
    let url = client.url(path)?;
    let url = url.join("?blobs=true").unwrap_or(url);
    let answer = match client.ask(&url, Ask::Document) {
        Ok(answer) if answer.status == 200 => answer,
        Ok(_) => return Ok(None),
        Err(Failure::Status { status, code, message, retry_after }) => {
            let is_certain = matches!(code.as_deref(), Some("RepoNotFound" | "RevisionNotFound"));
            // A busy server gets no more requests. Other errors will show for files as well.
            return match is_certain || matches!(status, 429 | 503) {
                true => Err(Failure::Status { status, code, message, retry_after }),
                false => Ok(None),
            };
        }
        Err(Failure::NoHub(problem)) => {
            tracing::debug!("{}: no API: {problem}", client.endpoint());
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    let mut body = answer.body;
    let text = match body.with_config().limit(LARGEST_ANSWER).read_to_vec() {
        Ok(text) => text,
        Err(error) => return Err(Failure::of_request(error, client.download_timeout())),
    };
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Option<Revision> {
    let info: ModelInfo = serde_json::from_slice(text).ok()?;
    if !is_commit(&info.sha) {
        return None;
    }
    let is_complete = !info.siblings.is_empty() && info.siblings.len() < MOST_FILES;
    let files = is_complete.then(|| {
        let listed =
            info.siblings.into_iter().filter(|file| check_relative(&file.name).is_ok()).map(|file| {
                let lfs = file.lfs.as_ref();
                let hash = lfs.and_then(|lfs| lfs.sha256.as_deref()).or(file.blob_id.as_deref());
                let size = lfs.and_then(|lfs| lfs.size).or(file.size);
                (file.name, ListedFile { size, hash: hash.and_then(Expected::of_etag) })
            });
        listed.collect()
    });
    Some(Revision { commit: info.sha, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_read() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let json = format!(
            r#"{{"sha": "{commit}", "siblings": [
                {{"rfilename": "config.json", "size": 6, "blobId": "ce013625030ba8dba906f756967f9e9ca394464a"}},
                {{"rfilename": "m.bin", "size": 9, "blobId": "x", "lfs": {{"sha256": "{}", "size": 9}}}},
                {{"rfilename": "../x"}}]}}"#,
            "5".repeat(64)
        );
        let revision = parse(json.as_bytes()).unwrap();
        assert_eq!(revision.commit, commit);
        let files = revision.files.unwrap();
        assert_eq!(files.len(), 2, "a path out of the model is no file of it");
        assert_eq!(files["config.json"].size, Some(6));
        assert!(matches!(files["config.json"].hash, Some(Expected::Sha1(_))));
        assert!(matches!(files["m.bin"].hash, Some(Expected::Sha256(_))));
        assert!(parse(format!(r#"{{"sha": "{commit}"}}"#).as_bytes()).unwrap().files.is_none());
        for no_api in [
            "",
            "<html>",
            "[]",
            r#"{"sha": "main"}"#,
            r#"{"sha": "../../../../../../../../../../../../../"}"#,
        ] {
            assert!(parse(no_api.as_bytes()).is_none(), "{no_api}");
        }
    }
}
