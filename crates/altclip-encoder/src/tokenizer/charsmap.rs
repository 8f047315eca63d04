//! Applies SentencePiece's compiled replacement rules: a darts-clone double array over UTF-8, and the replacements.

use crate::{Error, Result};

/// Replacement rules; the longest matching prefix is replaced.
#[derive(Debug, Clone)]
pub(super) struct CharsMap {
    /// Units of the double array.
    units: Vec<u32>,
    /// Replacements, each terminated by a zero byte.
    replacements: Vec<u8>,
}

/// A unit of a darts-clone double array: bit 31 marks a value, bits 0 to 7 hold the label, bit 8 says whether there
/// is a value below, and bits 9 to 31 hold the offset of the children.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_value(self) -> bool {
        (self.0 >> 8) & 1 == 1
    }

    fn value(self) -> u32 {
        self.0 & 0x7FFF_FFFF
    }

    /// A value unit's label exceeds any byte, so no byte leads to it.
    fn label(self) -> u32 {
        self.0 & 0x8000_00FF
    }

    fn offset(self) -> u32 {
        (self.0 >> 10) << ((self.0 & (1 << 9)) >> 6)
    }
}

impl CharsMap {
    /// Parses `precompiled_charsmap`: the size of the trie in bytes (u32), the trie, the replacements, all
    /// little-endian. `None` if it is empty and replaces nothing. `name` is used in errors.
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let broken = |problem: String| Error::format(name, format!("precompiled_charsmap: {problem}"));
        let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(broken(format!("expected at least 4 bytes, found {}", bytes.len())));
        };
        let size = u32::from_le_bytes(*size) as usize;
        if size == 0 || !size.is_multiple_of(4) || size > rest.len() {
            let left = rest.len();
            return Err(broken(format!(
                "expected a trie of 4 to {left} bytes, a multiple of 4; found {size}"
            )));
        }
        let (trie, replacements) = rest.split_at(size);
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        Ok(Some(Self { units: units.collect(), replacements: replacements.to_vec() }))
    }

    /// The longest rule that matches the start of a text: its length in bytes and its replacement. Rules that point
    /// outside the file are ignored.
    pub(super) fn longest_rule(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let mut place = Unit(*self.units.first()?).offset();
        let mut longest = None;
        for (at, &byte) in text.iter().enumerate() {
            place ^= u32::from(byte);
            let Some(&unit) = self.units.get(place as usize) else { break };
            let unit = Unit(unit);
            if unit.label() != u32::from(byte) {
                break;
            }
            place ^= unit.offset();
            if unit.has_value() {
                let value = self.units.get(place as usize).map(|&unit| Unit(unit).value());
                if let Some(replacement) = value.and_then(|value| self.replacement(value)) {
                    longest = Some((at + 1, replacement));
                }
            }
        }
        longest
    }

    fn replacement(&self, start: u32) -> Option<&[u8]> {
        let text = self.replacements.get(start as usize..)?;
        let end = text.iter().position(|&byte| byte == 0)?;
        text.get(..end)
    }
}
