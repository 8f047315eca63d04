//! Remembers a set of words in ten bits each, by a Bloom filter.

use std::collections::BTreeSet;

use crate::dataset::hash;

/// With as many bits as this per word and seven hashes, one in 120 other words counts as known.
const BITS_PER_WORD: usize = 10;
const HASHES: u64 = 7;

/// A set of words. Says of a few others, too, that they are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WordFilter {
    /// At least one.
    bytes: Vec<u8>,
}

impl WordFilter {
    pub(super) fn of(words: &BTreeSet<String>) -> Self {
        let mut bytes = vec![0; (words.len() * BITS_PER_WORD).div_ceil(8).max(1)];
        let count = bytes.len();
        for (byte, bit) in words.iter().flat_map(|word| places(word, count)) {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte |= bit;
            }
        }
        Self { bytes }
    }

    /// A filter in these bytes; `None` without any.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self { bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn has(&self, word: &str) -> bool {
        places(word, self.bytes.len())
            .all(|(byte, bit)| self.bytes.get(byte).is_some_and(|byte| byte & bit != 0))
    }
}

/// The bits of a word in a filter of so many bytes: the byte of each, and the bit in it (Kirsch and Mitzenmacher, "Less
/// Hashing, Same Performance").
fn places(word: &str, bytes: usize) -> impl Iterator<Item = (usize, u8)> + use<> {
    let hash = hash(word);
    let (first, step) = (hash >> 32, (hash & 0xffff_ffff) | 1);
    let bits = 8 * bytes as u64;
    (0..HASHES).map(move |number| {
        let place = (first + number * step) % bits;
        ((place / 8) as usize, 1u8 << (place % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_other_words_count_as_known() {
        let words: BTreeSet<String> = (0..5000).map(|number| format!("word {number}")).collect();
        let filter = WordFilter::of(&words);
        assert_eq!(filter.bytes().len(), 6250);
        assert!(words.iter().all(|word| filter.has(word)));
        let wrong = (0..10_000).filter(|number| filter.has(&format!("other {number}"))).count();
        assert!((40..160).contains(&wrong), "{wrong} of 10 000");
        assert_eq!(WordFilter::from_bytes(filter.bytes().to_vec()), Some(filter));
        assert_eq!(WordFilter::from_bytes(Vec::new()), None);
        assert!(!WordFilter::of(&BTreeSet::new()).has("a"));
    }
}
