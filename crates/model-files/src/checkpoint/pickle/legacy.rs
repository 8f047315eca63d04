//! Reads the format of `torch.save` before PyTorch 1.6: five concatenated pickles, followed by the storages.
//!
//! The pickles are a magic number, the version, facts about the machine that wrote the file, the saved object, and
//! the list of storage keys. Each storage is its number of elements (eight bytes) and the elements.

use std::collections::HashMap;

use super::machine::Machine;
use super::objects::Node;
use super::reader::Result;
use super::state_dict;
use crate::checkpoint::stored::Listing;

/// The number 0x1950a86a20f9469cfc6c in protocols 0 and 1.
const MAGIC_LINE: &[u8] = b"L119547037146038801333356L\n.";
/// The same in protocol 2 and later, after `PROTO` and, since protocol 4, `FRAME`.
const MAGIC_BYTES: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;

const VERSION: i64 = 1001;

/// The length of the magic number at the start of `file`, if there is one.
pub(super) fn magic_length(file: &[u8]) -> Option<usize> {
    if file.starts_with(MAGIC_LINE) {
        return Some(MAGIC_LINE.len());
    }
    let [PROTO, _protocol, rest @ ..] = file else { return None };
    let rest = match rest {
        [FRAME, rest @ ..] => rest.get(size_of::<u64>()..)?,
        rest => rest,
    };
    rest.starts_with(MAGIC_BYTES).then(|| file.len() - rest.len() + MAGIC_BYTES.len())
}

pub(super) fn read(file: &[u8], magic_length: usize) -> Result<Listing> {
    let mut position = magic_length;
    // Runs the next pickle, and moves past it.
    let mut next = || {
        let (objects, length) = Machine::run(file.get(position..).unwrap_or_default())?;
        position += length;
        Result::Ok(objects)
    };
    let version = next()?;
    if !matches!(version.node(version.root), Node::Int(VERSION)) {
        return Err(format!("expected version {VERSION} of torch.save's older form, found another"));
    }
    let _machine_facts = next()?;
    let objects = next()?;
    let keys = next()?;
    let Node::List(keys_in_order) = keys.node(keys.root) else {
        return Err("expected the list of storages behind the saved object, found something else".to_owned());
    };

    let mut ranges = HashMap::with_capacity(keys_in_order.len());
    for key in keys_in_order {
        let Node::Text(key) = keys.node(*key) else {
            return Err("expected the key of a storage to be text, found something else".to_owned());
        };
        let storage =
            objects.storages.get(key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let width = storage.element.width();
        if width == 0 {
            return Err(format!("storage {key} is of the type {:?}, which is not known", storage.element));
        }
        let range = file.get(position..).and_then(|rest| {
            let (elements, _) = rest.split_first_chunk()?;
            let start = position.checked_add(size_of::<u64>())?;
            let elements = usize::try_from(u64::from_le_bytes(*elements)).ok()?;
            let end = start.checked_add(elements.checked_mul(width)?)?;
            (end <= file.len()).then_some(start..end)
        });
        let range =
            range.ok_or_else(|| format!("the file is truncated: storage {key} goes beyond its end"))?;
        position = range.end;
        ranges.insert(*key, range);
    }
    // The numbers are little-endian, whatever machine wrote them.
    state_dict::tensors(file, &objects, false, |storage| {
        ranges.get(storage.key).cloned().ok_or_else(|| format!("the file lacks storage {}", storage.key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_number_is_known_in_every_protocol() {
        assert_eq!(magic_length(&[b"\x80\x02", MAGIC_BYTES, b"rest"].concat()), Some(15));
        let framed = [&b"\x80\x04\x95\x0d\0\0\0\0\0\0\0"[..], MAGIC_BYTES, b"rest"].concat();
        assert_eq!(magic_length(&framed), Some(24));
        assert_eq!(magic_length(&[MAGIC_LINE, b"I1001\n."].concat()), Some(28));
        assert_eq!(magic_length(&framed[..23]), None);
        assert_eq!(magic_length(b"\x80\x04\x95"), None);
        assert_eq!(magic_length(b"\x80\x02}."), None);
    }
}
