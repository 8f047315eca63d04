//! Reads weights written by `torch.save`, `pytorch_model.bin`, `*.ckpt`, and pickles of numpy's arrays.
//!
//! A pickle is a program for a small stack machine, and Python's reader lets it call any function. This reader knows
//! the few names that make tensors, builds descriptions of tensors from them, and treats everything else as opaque
//! values. Nothing is ever executed.
//!
//! There are two containers: since PyTorch 1.6 a zip archive with the pickle and one file per storage, and before
//! that the pickle followed by the storages. Arrays of numpy are in the pickle, which needs no container. In all of
//! them, numbers are uncompressed and read from the mapped file.

mod calls;
mod legacy;
mod machine;
mod names;
mod objects;
mod place;
mod plain;
mod reader;
mod state_dict;
mod zipped;

use super::stored::Listing;
use reader::Result;

/// The offset of the format's name in a tar archive.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Whether `file` starts like one of the two containers.
pub(super) fn recognises(file: &[u8]) -> bool {
    file.starts_with(zipped::MAGIC) || legacy::magic_length(file).is_some()
}

/// Whether `file` starts like a pickle, as some safetensors files do, too: their length comes first.
pub(super) fn recognises_plain(file: &[u8]) -> bool {
    plain::recognises(file)
}

/// The tensors in `file`. Nested dictionaries are flattened, with dotted names.
pub(super) fn read(file: &[u8]) -> Result<Listing> {
    if file.starts_with(zipped::MAGIC) {
        return zipped::read(file);
    }
    if let Some(length) = legacy::magic_length(file) {
        return legacy::read(file, length);
    }
    if plain::recognises(file) {
        return plain::read(file);
    }
    let (at, tar) = TAR_MAGIC;
    if file.get(at..).is_some_and(|rest| rest.starts_with(tar)) {
        return Err(
            "it is a tar archive, as PyTorch wrote it before version 0.1.10; loading it there and saving it \
                    again makes it one that can be read"
                .to_owned(),
        );
    }
    Err("expected a file that torch.save wrote, found neither its zip archive nor its older form".to_owned())
}
