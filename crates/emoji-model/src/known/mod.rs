//! Knows what a model draws, and finds prompts that are about something else.
//!
//! A contrastive text encoder cannot tell: it was only shown captions of its concepts, and brings every text near one
//! of them. So a prompt is judged by its words: a share of its letters is in words that no caption has. From which
//! share on it is unknown depends on its script, and is set on phrases that were held out from training.

mod file;
mod filter;
mod held_out;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::captions::CaptionSampler;
use crate::coverage::Coverage;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

pub use self::file::KNOWN_CONCEPTS_FILE;
pub use self::held_out::FalseAlarms;
pub use self::words::Script;

use self::filter::WordFilter;

/// The concepts that a model draws, and the words that it was trained with.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownConcepts {
    /// In Unicode's order.
    emoji: Vec<String>,
    /// The concepts' names by language, in the same order; empty for those that have none.
    names: BTreeMap<String, Vec<String>>,
    words: WordFilter,
    /// The largest share of unknown letters in a known prompt, by script.
    thresholds: BTreeMap<Script, f32>,
}

impl KnownConcepts {
    /// Collects what a model learns to draw from this data set, and counts the held-out phrases in each language that are
    /// taken for something else.
    ///
    /// # Errors
    /// If the model learns to draw nothing.
    pub fn of(data: &Dataset, coverage: &Coverage) -> Result<(Self, Vec<FalseAlarms>)> {
        let drawn = data.filtered(|concept| {
            let has_style = concept.images.iter().any(|image| coverage.vendors.contains(&image.vendor));
            has_style && coverage.includes(concept)
        });
        let drawn =
            drawn.ok_or_else(|| Error::Setting("the recipe covers no concept of the data set".to_owned()))?;
        let concepts = drawn.concepts();
        let languages: Vec<&str> = coverage.languages.iter().map(String::as_str).collect();
        let names = languages.iter().map(|&language| {
            let names = concepts.iter().map(|concept| concept.name(language).unwrap_or_default().to_owned());
            (language.to_owned(), names.collect::<Vec<_>>())
        });
        let texts = CaptionSampler::new(&drawn).tokenizer_texts(&languages);
        let keys: BTreeSet<String> = texts.iter().flat_map(|text| words::keys(text)).collect();
        let mut known = Self {
            emoji: concepts.iter().map(|concept| concept.emoji.clone()).collect(),
            names: names.collect(),
            words: WordFilter::of(&keys),
            thresholds: BTreeMap::new(),
        };
        let phrases = held_out::phrases(&drawn, &languages);
        let (setting, measuring): (Vec<_>, Vec<_>) =
            phrases.into_iter().partition(|phrase| phrase.sets_threshold);
        known.thresholds =
            held_out::thresholds(setting.iter().filter_map(|phrase| known.unknown_share(&phrase.text)));
        let alarms = languages.iter().map(|&language| {
            let judged: Vec<_> = measuring.iter().filter(|phrase| phrase.language == language).collect();
            FalseAlarms {
                language: language.to_owned(),
                phrases: judged.len(),
                alarms: judged.iter().filter(|phrase| known.is_unknown(&phrase.text)).count(),
            }
        });
        let alarms = alarms.collect();
        Ok((known, alarms))
    }

    /// The number of concepts.
    pub fn count(&self) -> usize {
        self.emoji.len()
    }

    /// The languages of the names, by code.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Every concept that has a name in a language: its emoji and that name. `None` for other languages.
    pub fn named(&self, language: &str) -> Option<impl Iterator<Item = (&str, &str)>> {
        let names = self.names.get(language)?;
        let all = self.emoji.iter().map(String::as_str).zip(names.iter().map(String::as_str));
        Some(all.filter(|(_, name)| !name.is_empty()))
    }

    /// Whether a prompt is mostly made of words that no caption has.
    pub fn is_unknown(&self, prompt: &str) -> bool {
        self.unknown_share(prompt).is_some_and(|(script, share)| {
            // No language of the model has another script.
            share > self.thresholds.get(&script).copied().unwrap_or(0.0)
        })
    }

    /// The script of most letters, and the share of letters in unknown words; `None` without letters.
    fn unknown_share(&self, prompt: &str) -> Option<(Script, f32)> {
        words::unknown_share(prompt, |key| self.words.has(key))
    }
}
