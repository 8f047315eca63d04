//! Recognizes the formats of weight files.

use std::collections::BTreeMap;

use super::stored::Listing;
use super::{gguf, mindspore, pickle, safetensors};
use crate::error::{Error, Result};
use crate::file_data::{FileData, is_lfs_pointer};

/// The bytes checked for being text, and the part that an error shows.
const LOOKED_AT: usize = 512;
const REPEATED: usize = 60;
/// Signatures of compressed files, with their names.
const PACKED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd"),
];

/// Reads the table of contents of a weight file.
///
/// Its first bytes identify the format, whatever its name. If they do not, its ending says what it should be, so that
/// errors of damaged files mention that format.
pub(super) fn read(file: &FileData) -> Result<Listing> {
    let listing = match not_weights(file) {
        Some(problem) => Err(problem),
        None => match Format::of(file) {
            Format::Pickle => pickle::read(file),
            Format::Gguf => gguf::read(file),
            Format::MindSpore => mindspore::read(file),
            Format::Safetensors => safetensors::read(file),
        },
    };
    listing.map_err(|problem| Error::format(file.name(), problem))
}

/// A file's metadata.
pub(super) fn metadata(file: &FileData) -> BTreeMap<String, String> {
    match Format::of(file) {
        Format::Pickle | Format::MindSpore => BTreeMap::new(),
        Format::Gguf => gguf::metadata(file),
        Format::Safetensors => safetensors::metadata(file),
    }
}

/// The formats of weight files.
enum Format {
    Pickle,
    Gguf,
    MindSpore,
    Safetensors,
}

impl Format {
    fn of(file: &FileData) -> Self {
        if file.starts_with(gguf::MAGIC) {
            return Self::Gguf;
        }
        if mindspore::recognises(file) {
            return Self::MindSpore;
        }
        if pickle::recognises(file) {
            return Self::Pickle;
        }
        if safetensors::recognises(file) {
            return Self::Safetensors;
        }
        if pickle::recognises_plain(file) {
            return Self::Pickle;
        }
        match file.name().rsplit_once('.').map(|(_, ending)| ending) {
            Some("gguf") => Self::Gguf,
            Some("bin" | "ckpt" | "pkl" | "pt" | "pth") => Self::Pickle,
            _ => Self::Safetensors,
        }
    }
}

/// Why a file does not contain weights, if known: failed downloads have the names of weight files.
fn not_weights(file: &[u8]) -> Option<String> {
    if file.is_empty() {
        return Some("the file is empty".to_owned());
    }
    if is_lfs_pointer(file) {
        return Some("is a Git LFS pointer: the weights were not downloaded; run git lfs pull".to_owned());
    }
    if let Some((_, what)) = PACKED.iter().find(|(magic, _)| file.starts_with(magic)) {
        return Some(format!("is {what}, expected weights: unpack it first"));
    }
    let beginning = &file[..file.len().min(LOOKED_AT)];
    let text = match str::from_utf8(beginning) {
        Ok(text) => text,
        // Truncated in the middle of a character.
        Err(error) if error.error_len().is_none() => {
            str::from_utf8(&beginning[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_text = !text.chars().any(|char| char.is_control() && !char.is_whitespace());
    let text = text.trim_start_matches('\u{feff}').trim();
    let lower = text.get(..text.len().min(LOOKED_AT))?.to_ascii_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        return Some("is a web page, not weights: the download got a page in their place".to_owned());
    }
    // A protocol 0 pickle is text too; safetensors and GGUF are not.
    (is_text && !pickle::recognises(file)).then(|| {
        let line: String =
            text.chars().take(REPEATED).map(|char| if char.is_control() { ' ' } else { char }).collect();
        format!("is text, not weights: it begins with {line:?}")
    })
}
