//! Telling the formats of weight files apart.

use super::{StoredTensor, pickle, safetensors};
use crate::error::{Error, Result};
use crate::source::FileData;

/// What a clone of a repository without Git LFS holds in place of every large file.
const GIT_LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec";

/// The table of contents of a weight file.
///
/// Its name's ending says what it should be, so that a damaged file is held to that; otherwise its first bytes do.
pub(super) fn read(file: &FileData) -> Result<Vec<(String, StoredTensor)>> {
    let tensors = if file.is_empty() {
        Err("the file is empty".to_owned())
    } else if file.starts_with(GIT_LFS_POINTER) {
        Err("the file is a Git LFS pointer, not the weights (`git lfs pull` fetches them)".to_owned())
    } else if is_pickle(file) {
        pickle::read(file)
    } else {
        safetensors::read(file)
    };
    tensors.map_err(|problem| Error::format(file.name(), problem))
}

/// Whether the file is read as a pickle.
pub(super) fn is_pickle(file: &FileData) -> bool {
    match file.name().rsplit_once('.').map(|(_, ending)| ending) {
        Some("safetensors") => false,
        Some("bin" | "ckpt" | "pt" | "pth") => true,
        _ => pickle::recognises(file),
    }
}
