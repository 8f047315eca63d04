//! Computes the hash by which an image names its model.

use std::fs;
use std::io::Write;
use std::path::Path;

use model_files::checkpoint::Checkpoint;
use model_files::hex;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The digits that web interfaces show.
const DIGITS: usize = 10;

/// The SHA-256 of a single file, as in web interfaces; for several files, the hash of their hashes.
pub(super) fn of(weights: &[Checkpoint]) -> Result<String> {
    let mut digests = Vec::new();
    for file in weights.iter().flat_map(Checkpoint::files) {
        digests.push(match in_hub_cache(Path::new(file.name())) {
            Some(digest) => digest,
            None => {
                let mut digest = Sha256::new();
                file.write_to(&mut digest as &mut dyn Write)
                    .map_err(|error| Error::io(Path::new(file.name()), error))?;
                hex(&digest.finalize())
            }
        });
    }
    let mut hash = match &digests[..] {
        [one] => one.clone(),
        several => hex(&Sha256::digest(several.concat())),
    };
    hash.truncate(DIGITS);
    Ok(hash)
}

/// The hub's cache names large files by their SHA-256, and a model's files link there.
fn in_hub_cache(file: &Path) -> Option<String> {
    const HEX_DIGITS: usize = 64;
    let blob = fs::canonicalize(file).ok()?;
    let name = blob.file_name()?.to_str()?;
    let is_digest = name.len() == HEX_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest && blob.parent()?.ends_with("blobs")).then(|| name.to_owned())
}
