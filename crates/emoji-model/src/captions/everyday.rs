//! Finds everyday words that CLDR gives to many emoji or to none.
//!
//! CLDR's keywords are for searching an emoji keyboard: "car" finds eleven vehicles, "orange" six orange things, and
//! 花 every flower. Somebody who types only such a word means the plainest image of it. Each word of
//! `data/everyday.tsv` becomes a second name of one concept; everything else in captions is from CLDR.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::dataset::{Concept, ENGLISH};

/// Words by language.
type Words = HashMap<&'static str, Vec<&'static str>>;

/// The words of each concept, by its English name.
static WORDS: LazyLock<HashMap<&'static str, Words>> = LazyLock::new(|| {
    let mut of_names: HashMap<&str, Words> = HashMap::new();
    for line in include_str!("../../data/everyday.tsv").lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('\t');
        if let (Some(language), Some(word), Some(name)) = (columns.next(), columns.next(), columns.next()) {
            of_names.entry(name).or_default().entry(language).or_default().push(word);
        }
    }
    of_names
});

/// Whether people often ask for a concept: it has second names.
pub(crate) fn is_everyday(concept: &Concept) -> bool {
    concept.name(ENGLISH).is_some_and(|name| WORDS.contains_key(name))
}

/// The second names of a concept in a language, the most frequent first.
pub(super) fn second_names(concept: &Concept, language: &str) -> &'static [&'static str] {
    let words = concept.name(ENGLISH).and_then(|name| WORDS.get(name)?.get(language));
    words.map_or(&[], Vec::as_slice)
}
