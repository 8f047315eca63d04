//! The form that `torch.save` wrote before PyTorch 1.6: five pickles, one after the other, and then the storages.
//!
//! The pickles are a magic number, the version, facts about the machine that wrote the file, the saved object, and the
//! list of the storages' keys. Each storage is its number of elements (eight bytes) and the elements.

use std::collections::HashMap;

use super::machine::{Machine, Node};
use super::{LONGEST_PICKLE, Result, StoredTensor, state_dict};

/// The pickle of the number 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

const VERSION: i64 = 1001;

pub(super) fn read(file: &[u8]) -> Result<Vec<(String, StoredTensor)>> {
    let mut position = MAGIC.len();
    // Lays the next pickle out as objects, and steps over it.
    let mut next = || {
        let rest = file.get(position..).unwrap_or_default();
        let (objects, length) = Machine::run(&rest[..rest.len().min(LONGEST_PICKLE)])?;
        position += length;
        Result::Ok(objects)
    };
    match next()?.root() {
        Node::Int(VERSION) => {}
        _ => return Err(format!("expected version {VERSION} of torch.save's older form, found another")),
    }
    let _machine_facts = next()?;
    let objects = next()?;
    let keys = next()?;
    let Node::List(keys_in_order) = keys.root() else {
        return Err("expected the list of storages behind the saved object, found something else".to_owned());
    };

    let mut ranges = HashMap::with_capacity(keys_in_order.len());
    for key in keys_in_order {
        let Node::Text(key) = keys.node(*key) else {
            return Err("expected the key of a storage to be text, found something else".to_owned());
        };
        let storage = objects.storage(key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let range = file.get(position..).and_then(|rest| {
            let (elements, _) = rest.split_first_chunk()?;
            let start = position.checked_add(size_of::<u64>())?;
            let elements = usize::try_from(u64::from_le_bytes(*elements)).ok()?;
            let end = start.checked_add(elements.checked_mul(storage.dtype.bitsize() / 8)?)?;
            (end <= file.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| format!("the file is truncated: storage {key} goes beyond its end"))?;
        position = range.end;
        ranges.insert(*key, range);
    }
    state_dict::tensors(&objects, |storage| {
        ranges.get(storage.key).cloned().ok_or_else(|| format!("the file lacks storage {}", storage.key))
    })
}
