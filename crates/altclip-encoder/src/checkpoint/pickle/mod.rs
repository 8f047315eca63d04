//! Weights that `torch.save` wrote: `pytorch_model.bin`, `*.ckpt`.
//!
//! A pickle is a program for a small stack machine, and Python's own reader lets it call any function. The reader here
//! knows the few operations and names that a dictionary of tensors needs, builds descriptions of tensors from them, and
//! refuses the rest by name. Nothing is ever executed.
//!
//! Two containers exist: since PyTorch 1.6 a zip archive of the pickle and one file per storage, and before that the
//! pickle with the storages behind it. In both the numbers lie uncompressed, and are read from the mapped file.

mod legacy;
mod machine;
mod state_dict;
mod zipped;

use super::StoredTensor;

/// The longest pickle that is read. One of an image model with its optimiser is a hundredth of that.
const LONGEST_PICKLE: usize = 16 << 20;

/// What went wrong. The caller knows the file's name.
type Result<T> = std::result::Result<T, String>;

/// Whether `file` begins like one of the two containers.
pub(super) fn recognises(file: &[u8]) -> bool {
    file.starts_with(zipped::MAGIC) || file.starts_with(legacy::MAGIC)
}

/// The tensors in `file`. Nested dictionaries are flattened, with dots between the names.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, StoredTensor)>> {
    if file.starts_with(zipped::MAGIC) {
        zipped::read(file)
    } else if file.starts_with(legacy::MAGIC) {
        legacy::read(file)
    } else {
        Err("expected a file that torch.save wrote, found neither its zip archive nor its older form"
            .to_owned())
    }
}
