//! Verifies files by their versions: the hub's ETags are hashes.

use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::failure::Failure;
use crate::hex::hex;

/// A file's expected hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// For large files: SHA-256, 64 hexadecimal digits.
    Sha256(String),
    /// 40 hexadecimal digits: for small files git's SHA-1; from mirrors such as Artifactory, plain SHA-1.
    Sha1(String),
}

impl Expected {
    /// The hash in an ETag, if it is one.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        let etag = etag.to_ascii_lowercase();
        let is_hash = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        match etag.len() {
            64 if is_hash => Some(Self::Sha256(etag)),
            40 if is_hash => Some(Self::Sha1(etag)),
            _ => None,
        }
    }

    /// The hexadecimal digits, by which the hub calls this content.
    pub(super) fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Sha1(digits) => digits,
        }
    }
}

/// The hashes of what was written so far.
pub(super) struct Hasher {
    /// Also computed if no hash is expected, to name the file.
    sha256: Option<Sha256>,
    sha1: Option<Sha1>,
    git: Option<Sha1>,
    expected: Option<Expected>,
}

impl Hasher {
    /// For a file of this size, if known.
    pub(super) fn new(expected: Option<&Expected>, size: Option<u64>) -> Self {
        let is_sha1 = matches!(expected, Some(Expected::Sha1(_)));
        let git = size.filter(|_| is_sha1).map(|size| Sha1::new_with_prefix(git_header(size)));
        Self {
            sha256: (!is_sha1).then(Sha256::new),
            sha1: is_sha1.then(Sha1::new),
            git,
            expected: expected.cloned(),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        for sha1 in [&mut self.sha1, &mut self.git].into_iter().flatten() {
            sha1.update(bytes);
        }
    }

    /// Verifies the file at `path`, all of whose bytes were hashed. Returns its SHA-256 if computed.
    pub(super) fn finish(self, path: &Path) -> Result<Option<String>, Failure> {
        let sha256 = self.sha256.map(|sha256| hex(&sha256.finalize()));
        match self.expected {
            None => {}
            Some(Expected::Sha256(expected)) => {
                let found = sha256.as_deref().unwrap_or_default();
                if found != expected {
                    return Err(wrong("SHA-256", &expected, found));
                }
            }
            Some(Expected::Sha1(expected)) => {
                let found = self.sha1.map(|sha1| hex(&sha1.finalize())).unwrap_or_default();
                let git = || match self.git {
                    Some(git) => Ok(hex(&git.finalize())),
                    // The length, which comes first in git's hash, was unknown until the end.
                    None => git_hash(path),
                };
                if found != expected && git()? != expected {
                    return Err(wrong("SHA-1", &expected, &found));
                }
            }
        }
        Ok(sha256)
    }
}

fn wrong(name: &str, expected: &str, found: &str) -> Failure {
    Failure::Content(format!(
        "the download has the {name} {found}, expected {expected}: it was changed on the way"
    ))
}

fn git_header(size: u64) -> Vec<u8> {
    format!("blob {size}\0").into_bytes()
}

fn git_hash(path: &Path) -> Result<String, Failure> {
    let mut file = std::fs::File::open(path).map_err(Failure::local(path))?;
    let size = file.metadata().map_err(Failure::local(path))?.len();
    let mut sha1 = Sha1::new_with_prefix(git_header(size));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Failure::local(path))? {
            0 => return Ok(hex(&sha1.finalize())),
            read => sha1.update(&buffer[..read]),
        }
    }
}

/// The SHA-256 of a text, used as a name.
pub(super) fn name_of(text: &str) -> String {
    hex(&Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of `hello\n`, from sha256sum, sha1sum and `git hash-object`.
    const HASHES: [&str; 3] = [
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "f572d396fae9206628714fb2ce00f72e94f2258f",
        "ce013625030ba8dba906f756967f9e9ca394464a",
    ];

    #[test]
    fn each_kind_of_hash_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        for hash in HASHES {
            for size in [Some(6), None] {
                let check = |hash: &str, content: &str| {
                    let mut hasher = Hasher::new(Expected::of_etag(hash).as_ref(), size);
                    hasher.update(content.as_bytes());
                    hasher.finish(&path)
                };
                check(&hash.to_uppercase(), "hello\n").unwrap();
                let other = hash.replace('5', "6");
                assert!(matches!(check(&other, "hello\n"), Err(Failure::Content(_))), "{hash}");
            }
        }
        assert_eq!(Hasher::new(None, None).finish(&path).unwrap().unwrap().len(), 64);
        for none in ["", "abc", "d41d8cd98f00b204e9800998ecf8427e", "5f3c-1234", &"g".repeat(40)] {
            assert_eq!(Expected::of_etag(none), None);
        }
    }
}
