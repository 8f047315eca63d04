//! Applies SentencePiece's compiled replacement rules: a darts-clone double array over UTF-8, and the replacements.

use crate::{Error, Result};

/// Darts-clone makes units in blocks, so the children of a unit are in the array if one place below it is.
const BLOCK_BYTES: usize = 1024;

/// Replacement rules; the longest matching prefix is replaced.
#[derive(Debug, Clone)]
pub(super) struct CharsMap {
    /// Units of the double array.
    units: Vec<u32>,
    /// Replacements, each terminated by a zero byte.
    replacements: String,
}

/// A unit of a darts-clone double array: bit 31 marks a value, bits 0 to 7 hold the label, bit 8 says whether there
/// is a value below, and bits 9 to 31 hold the offset of the children.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn is_value(self) -> bool {
        self.0 >> 31 == 1
    }

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
    ///
    /// What SentencePiece 0.2.3 refuses is refused, and replacements that are not UTF-8.
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let broken = |problem: String| Error::format(name, format!("precompiled_charsmap: {problem}"));
        let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(broken(format!("expected at least 4 bytes, found {}", bytes.len())));
        };
        let size = u32::from_le_bytes(*size) as usize;
        if size == 0 || !size.is_multiple_of(BLOCK_BYTES) || size >= rest.len() {
            let most = rest.len().saturating_sub(1);
            return Err(broken(format!(
                "expected a trie of {BLOCK_BYTES} to {most} bytes, a multiple of {BLOCK_BYTES}; found {size}"
            )));
        }
        let (trie, replacements) = rest.split_at(size);
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        let units: Vec<u32> = units.collect();
        let replacements = String::from_utf8(replacements.to_vec())
            .map_err(|error| broken(format!("expected replacements in UTF-8: {error}")))?;
        if !replacements.ends_with('\0') {
            return Err(broken("expected a zero byte after the last replacement".to_owned()));
        }
        if let Some(place) = wrong_unit(&units, &replacements) {
            return Err(broken(format!(
                "expected units that point into the trie or to replacements, found {:#x} at {place}",
                units[place]
            )));
        }
        Ok(Some(Self { units, replacements }))
    }

    /// The longest rule that matches the start of a text: its length in bytes and its replacement.
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
        let text = self.replacements.as_bytes().get(start as usize..)?;
        let end = text.iter().position(|&byte| byte == 0)?;
        text.get(..end)
    }
}

/// The first unit that cannot be followed, as SentencePiece checks them, used or not: one whose children are outside
/// the trie, that has another unit where its value should be, or is a value outside the replacements. The root has
/// children and nothing else.
fn wrong_unit(units: &[u32], replacements: &str) -> Option<usize> {
    let root = Unit(*units.first()?);
    if root.label() != 0 || root.has_value() || root.offset() == 0 {
        return Some(0);
    }
    let is_wrong = |place: usize, unit: Unit| {
        if unit.is_value() {
            let start = unit.value() as usize;
            return start >= replacements.len() || !replacements.is_char_boundary(start);
        }
        match units.get(place ^ unit.offset() as usize) {
            Some(&below) => unit.has_value() && !Unit(below).is_value(),
            None => true,
        }
    };
    units.iter().enumerate().find(|&(place, &unit)| is_wrong(place, Unit(unit))).map(|(place, _)| place)
}
