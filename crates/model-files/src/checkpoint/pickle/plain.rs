//! Reads a pickle without a container: a dictionary of numpy arrays, whose numbers are in the pickle itself.

use super::machine::Machine;
use super::reader::Result;
use super::state_dict;
use crate::checkpoint::stored::Listing;

/// Whether `file` starts like a pickle in protocol 2 or later.
pub(super) fn recognises(file: &[u8]) -> bool {
    matches!(file, [0x80, 2..=5, ..])
}

pub(super) fn read(file: &[u8]) -> Result<Listing> {
    let listing = || {
        let (objects, _) = Machine::run(file)?;
        state_dict::tensors(file, &objects, false, |storage| {
            Err(format!("the file lacks storage {}", storage.key))
        })
    };
    listing().map_err(|problem| {
        format!("expected a file that torch.save wrote, or a pickle of numpy's arrays; it is a pickle, but {problem}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_pickle_is_known() {
        assert!(recognises(b"\x80\x02}q\x00.") && recognises(b"\x80\x05\x95"));
        assert!(!recognises(b"\x80\x01") && !recognises(b"\x80") && !recognises(b"PK\x03\x04"));
    }
}
