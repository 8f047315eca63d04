//! Reads weights that `torch.save` wrote: `pytorch_model.bin`, `*.ckpt`.
//!
//! A pickle is a program for a small stack machine, and Python's own reader lets it call any function. The reader here
//! knows the few names that tensors are made by, builds descriptions of tensors from them, and takes whatever else is
//! there for opaque values. Nothing is ever executed.
//!
//! Two containers exist: since PyTorch 1.6 a zip archive of the pickle and one file per storage, and before that the
//! pickle with the storages behind it. In both the numbers lie uncompressed, and are read from the mapped file.

mod calls;
mod legacy;
mod machine;
mod names;
mod objects;
mod place;
mod reader;
mod state_dict;
mod zipped;

use super::stored::Listing;
use reader::Result;

/// Where the name of the format stands in a tar archive.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Whether `file` begins like one of the two containers.
pub(super) fn recognises(file: &[u8]) -> bool {
    file.starts_with(zipped::MAGIC) || legacy::magic_length(file).is_some()
}

/// The tensors in `file`. Nested dictionaries are flattened, with dots between the names.
pub(super) fn read(file: &[u8]) -> Result<Listing> {
    if file.starts_with(zipped::MAGIC) {
        return zipped::read(file);
    }
    if let Some(length) = legacy::magic_length(file) {
        return legacy::read(file, length);
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
