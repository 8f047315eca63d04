//! Telling the formats of weight files apart.

use std::collections::BTreeMap;

use super::{StoredTensor, gguf, pickle, safetensors};
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
    } else {
        match Format::of(file) {
            Format::Pickle => pickle::read(file),
            Format::Gguf => gguf::read(file),
            Format::Safetensors => safetensors::read(file),
        }
    };
    tensors.map_err(|problem| Error::format(file.name(), problem))
}

/// What a file says about itself beside its tensors.
pub(super) fn metadata(file: &FileData) -> BTreeMap<String, String> {
    match Format::of(file) {
        Format::Pickle => BTreeMap::new(),
        Format::Gguf => gguf::metadata(file),
        Format::Safetensors => safetensors::metadata(file),
    }
}

/// The formats of weight files.
enum Format {
    Pickle,
    Gguf,
    Safetensors,
}

impl Format {
    fn of(file: &FileData) -> Self {
        match file.name().rsplit_once('.').map(|(_, ending)| ending) {
            Some("safetensors") => Self::Safetensors,
            Some("gguf") => Self::Gguf,
            Some("bin" | "ckpt" | "pt" | "pth") => Self::Pickle,
            _ if file.starts_with(gguf::MAGIC) => Self::Gguf,
            _ if pickle::recognises(file) => Self::Pickle,
            _ => Self::Safetensors,
        }
    }
}
