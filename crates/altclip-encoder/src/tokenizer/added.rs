//! Words that were added to a vocabulary, each with tokens of its own.

use std::ops::Range;

use crate::{Error, Result};

/// Added words with their ids, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct AddedWords(Vec<(String, Range<u32>)>);

impl AddedWords {
    /// How many ids there are.
    pub fn ids(&self) -> usize {
        self.0.iter().map(|(_, ids)| ids.len()).sum()
    }

    /// Adds a word of `count` tokens to a vocabulary of `own` ids, and returns the id of its first token.
    pub fn add(&mut self, word: &str, own: usize, count: usize) -> Result<u32> {
        if word.trim().is_empty() || count == 0 {
            return Err(Error::Input(format!(
                "added word: expected a word with tokens, found {word:?} with {count}"
            )));
        }
        if self.0.iter().any(|(other, _)| other == word) {
            return Err(Error::Input(format!("added word {word:?}: expected another, it is there already")));
        }
        let first = u32::try_from(own + self.ids()).ok();
        let ids = first.and_then(|first| Some(first..first.checked_add(u32::try_from(count).ok()?)?));
        let Some(ids) = ids else {
            return Err(Error::Input(format!("added word {word:?}: has too many tokens, {count}")));
        };
        let first = ids.start;
        self.0.push((word.to_owned(), ids));
        Ok(first)
    }

    /// The first added word in a text, and of several that begin there the longest: what stands before it, its ids, and
    /// what follows.
    pub fn split<'a>(&self, text: &'a str) -> Option<(&'a str, Range<u32>, &'a str)> {
        let found = self.0.iter().filter_map(|(word, ids)| Some((text.find(word.as_str())?, word, ids)));
        let (at, word, ids) = found.min_by_key(|(at, word, _)| (*at, usize::MAX - word.len()))?;
        let (before, rest) = text.split_at(at);
        Some((before, ids.clone(), rest.strip_prefix(word.as_str())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_longest_word_counts() -> Result<()> {
        let mut words = AddedWords::default();
        assert_eq!(words.add("<cat>", 10, 1)?, 10);
        assert_eq!(words.add("<cat>s", 10, 3)?, 11);
        assert_eq!(words.add("狗", 10, 1)?, 14);
        assert_eq!(words.ids(), 5);
        assert_eq!(words.split("two <cat>s, 一只狗"), Some(("two ", 11..14, ", 一只狗")));
        assert_eq!(words.split("一只狗 <cat>"), Some(("一只", 14..15, " <cat>")));
        assert_eq!(words.split("a cat"), None);
        assert!(
            words.add("<cat>", 10, 1).is_err()
                && words.add(" ", 10, 1).is_err()
                && words.add("x", 10, 0).is_err()
        );
        Ok(())
    }
}
