//! Builds a language's phrases around words.

use rand::{Rng, RngExt};

use super::phrase::{Of, Phrase};
use super::{chinese, english};

/// How a language builds phrases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Language {
    /// At least one phrase fits [`Of::Any`].
    pub(super) phrases: &'static [Phrase],
    /// Patterns for a name with a keyword.
    pub(super) combined: &'static [&'static str],
    /// The endings of a sentence.
    pub(super) endings: &'static [&'static str],
    /// The values of a slot for a word: the word with its article, measure words …
    slots: fn(slot: &str, word: &str, subcategory: &str) -> Vec<String>,
}

const BARE: Language = Language {
    phrases: &[Phrase { of: Of::Any, weight: 1.0, pattern: "{name}" }],
    combined: &["{name}, {keyword}", "{keyword} {name}"],
    endings: &[".", "!"],
    slots: |_, word, _| vec![word.to_owned()],
};

/// The phrases of a language. Languages without a table use bare words.
pub(super) fn language(code: &str) -> Language {
    match code {
        "en" => Language {
            phrases: english::PHRASES,
            combined: &["{name}, {keyword}", "{keyword} {name}", "{name} {keyword}"],
            endings: &[".", "!"],
            slots: english::slot,
        },
        "zh" => Language {
            phrases: chinese::PHRASES,
            combined: &["{name}，{keyword}", "{keyword} {name}", "{name} {keyword}", "{name}、{keyword}"],
            endings: &["。", "！"],
            slots: chinese::slot,
        },
        _ => BARE,
    }
}

impl Language {
    /// Whether it has phrases, and not only bare words.
    pub(super) fn has_phrases(&self) -> bool {
        self.phrases.len() > 1
    }

    /// The phrases that fit a subcategory.
    fn fitting(&self, subcategory: &str) -> impl Iterator<Item = &'static Phrase> {
        let expression = is_expression(subcategory);
        let plural = is_asked_in_plural(subcategory);
        self.phrases.iter().filter(move |phrase| match phrase.of {
            Of::Any => true,
            Of::Thing => !expression,
            Of::Expression => expression,
            Of::Plural => plural,
        })
    }

    /// Draws a phrase around a word; `None` if none fits.
    pub(super) fn draw_phrase(&self, rng: &mut impl Rng, word: &str, subcategory: &str) -> Option<String> {
        let phrases: Vec<&Phrase> = self.fitting(subcategory).collect();
        let phrase = draw(rng, &phrases, |phrase| phrase.weight)?;
        Some(self.render(rng, phrase, word, subcategory))
    }

    /// Fills a phrase's slots, choosing randomly among several values.
    fn render(&self, rng: &mut impl Rng, phrase: &Phrase, word: &str, subcategory: &str) -> String {
        let mut variants = self.variants(phrase, word, subcategory);
        let chosen = rng.random_range(0..variants.len());
        variants.swap_remove(chosen)
    }

    /// Every fitting phrase around a word, with its relative weight.
    pub(super) fn phrases_for(&self, word: &str, subcategory: &str) -> impl Iterator<Item = (String, f32)> {
        self.fitting(subcategory).flat_map(move |phrase| {
            let variants = self.variants(phrase, word, subcategory);
            let each = phrase.weight / variants.len() as f32;
            variants.into_iter().map(move |text| (text, each))
        })
    }

    /// What phrases put before and after a word, with the phrase's weight.
    pub(super) fn frames(&self, word: &str, subcategory: &str) -> impl Iterator<Item = (String, f32)> {
        self.phrases_for(word, subcategory).flat_map(move |(text, weight)| {
            let parts = match text.split_once(word) {
                Some((before, after)) => vec![before.trim().to_owned(), after.trim().to_owned()],
                // An irregular plural, such as "mice".
                None => vec![text],
            };
            parts.into_iter().filter(|part| !part.is_empty()).map(move |part| (part, weight))
        })
    }

    /// The phrase with each value of its slot; at least one. A pattern has `{name}` and at most one other slot.
    fn variants(&self, phrase: &Phrase, word: &str, subcategory: &str) -> Vec<String> {
        let fill = |text: &str| text.replace("{name}", word);
        match split_slot(phrase.pattern) {
            None => vec![fill(phrase.pattern)],
            Some((before, slot, after)) => {
                let values = (self.slots)(slot, word, subcategory).into_iter();
                values.map(|value| format!("{}{value}{}", fill(before), fill(after))).collect()
            }
        }
    }
}

/// Splits a pattern at the first slot other than `{name}`: the text before, the slot's name, and the text after.
fn split_slot(pattern: &str) -> Option<(&str, &str, &str)> {
    pattern.match_indices('{').find_map(|(open, _)| {
        let (slot, after) = pattern[open + 1..].split_once('}')?;
        (slot != "name").then_some((&pattern[..open], slot, after))
    })
}

fn is_expression(subcategory: &str) -> bool {
    const EXPRESSIONS: &[&str] = &[
        "monkey-face",
        "emotion",
        "hands",
        "hand-prop",
        "person-gesture",
        "person-activity",
        "person-sport",
    ];
    // Costumes (ghost, robot, clown …) are things.
    (subcategory.starts_with("face-") && subcategory != "face-costume")
        || subcategory.starts_with("hand-")
        || EXPRESSIONS.contains(&subcategory)
}

fn is_asked_in_plural(subcategory: &str) -> bool {
    subcategory.starts_with("animal-")
        || ["food-fruit", "food-vegetable", "food-sweet", "plant-flower"].contains(&subcategory)
}

/// Draws an item with probability proportional to its weight; `None` if there are none.
pub(super) fn draw<'a, T>(rng: &mut impl Rng, items: &'a [T], weight: impl Fn(&T) -> f32) -> Option<&'a T> {
    let total: f32 = items.iter().map(&weight).sum();
    let mut left = rng.random::<f32>() * total;
    for item in items {
        left -= weight(item);
        if left < 0.0 {
            return Some(item);
        }
    }
    items.last()
}
