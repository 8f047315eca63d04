//! Generates captions: names and keywords of emoji in phrases that people might type.
//!
//! A caption is a *word* (a concept's name or one of its keywords) in a *phrase* of the language. Most often the word
//! is the name. Concepts share keywords ("fruit", "smile"), so each is drawn in proportion to its specificity (1 /
//! the number of concepts that share it). Those shared by more than a few only occur together with the name, and a
//! keyword that is another concept's name belongs to that concept alone: "star" means ⭐, not 🤩. Everyday words
//! are second names (see `everyday.rs`). [`CaptionSettings`] has the shares.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt};

use super::language::{draw, language};
use super::settings::CaptionSettings;
use super::slips::slip;
use super::styles::{STYLED_SHARE, in_style};
use super::traditional::{TRADITIONAL_SHARE, traditional};
use super::words::{ConceptWords, words_of};
use crate::dataset::Dataset;
use crate::error::Result;

/// Chinese captions are in simplified characters, as CLDR's names for this code are.
const CHINESE: &str = "zh";
/// The share of captions with both the name and a keyword.
const COMBINED_SHARE: f64 = 0.06;
/// The share of captions that end with a full stop or exclamation mark.
const PUNCTUATED_SHARE: f64 = 0.06;
/// The share of captions that start with a capital letter.
const CAPITALISED_SHARE: f64 = 0.12;

/// How often a concept's words occur in the tokenizer's texts, all words of a concept together.
const TIMES_EACH_NAME: f32 = 8.0;

/// How often the text around a word occurs there, per concept and unit of weight.
const TIMES_EACH_FRAME: f32 = 0.1;

/// A caption and its frequency.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// A text that a user might type.
    pub text: String,
    /// Relative frequency; the captions of one concept in one language sum to 1.
    pub weight: f32,
}

/// A caption, and the word in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnCaption {
    /// A text that a user might type.
    pub text: String,
    /// The name, a second name or a keyword.
    pub word: String,
    /// Whether the word is a name, which identifies the concept on its own.
    pub is_name: bool,
}

/// Draws captions for the concepts of one data set.
#[derive(Debug)]
pub struct CaptionSampler {
    /// For each concept, its subcategory and its words by language.
    concepts: Vec<(String, BTreeMap<String, ConceptWords>)>,
    /// How often a language with phrases is drawn, relative to one with bare words.
    phrased_weight: f32,
}

impl CaptionSampler {
    /// Weights every name and keyword of the data set, with the default settings.
    pub fn new(dataset: &Dataset) -> Self {
        Self::of(dataset, &CaptionSettings::default())
    }

    /// Weights every name and keyword of the data set.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn with_settings(dataset: &Dataset, settings: &CaptionSettings) -> Result<Self> {
        settings.check()?;
        Ok(Self::of(dataset, settings))
    }

    fn of(dataset: &Dataset, settings: &CaptionSettings) -> Self {
        Self { concepts: words_of(dataset, settings), phrased_weight: settings.phrased_weight }
    }

    /// Draws one of these languages, by code; `None` if there are none.
    pub fn draw_language<'a>(&self, rng: &mut impl Rng, languages: &'a [String]) -> Option<&'a str> {
        draw(rng, languages, |code| self.language_weight(code)).map(String::as_str)
    }

    /// How often a language is drawn, relative to one with bare words.
    fn language_weight(&self, code: &str) -> f32 {
        if language(code).has_phrases() { self.phrased_weight } else { 1.0 }
    }

    /// Draws a caption of a concept; `None` if there is no such concept or it has no name in that language.
    pub fn sample(&self, rng: &mut impl Rng, concept: usize, language_code: &str) -> Option<String> {
        self.draw(rng, concept, language_code).map(|caption| caption.text)
    }

    /// Draws a caption of a concept's image in the style of a vendor, and whether it names the style, as some do.
    pub fn sample_styled(
        &self,
        rng: &mut impl Rng,
        concept: usize,
        language_code: &str,
        vendor: &str,
    ) -> Option<(String, bool)> {
        if rng.random_bool(STYLED_SHARE) {
            return Some((self.sample_in_style(rng, concept, language_code, vendor)?, true));
        }
        Some((self.sample(rng, concept, language_code)?, false))
    }

    /// Draws a caption of a concept's image that names the style of a vendor.
    pub fn sample_in_style(
        &self,
        rng: &mut impl Rng,
        concept: usize,
        language_code: &str,
        vendor: &str,
    ) -> Option<String> {
        let caption = self.sample(rng, concept, language_code)?;
        Some(in_style(rng, &caption, language_code, vendor))
    }

    /// Like [`sample`](Self::sample), and returns the word in the caption too; a slip may have changed it there.
    pub fn draw(&self, rng: &mut impl Rng, concept: usize, language_code: &str) -> Option<DrawnCaption> {
        let (subcategory, words) = self.concepts.get(concept)?;
        let words = words.get(language_code)?;
        let language = language(language_code);
        let (mut text, word) = if !words.beside.is_empty() && rng.random_bool(COMBINED_SHARE) {
            let keyword = words.beside.get(rng.random_range(0..words.beside.len()))?;
            let pattern = language.combined.get(rng.random_range(0..language.combined.len()))?;
            let name = words.alone.first()?;
            (combine(pattern, &name.text, keyword), name)
        } else {
            let word = draw(rng, &words.alone, |word| word.weight)?;
            (language.draw_phrase(rng, &word.text, subcategory)?, word)
        };
        if rng.random_bool(CAPITALISED_SHARE) {
            text = capitalise(&text);
        }
        if rng.random_bool(PUNCTUATED_SHARE) {
            text.push_str(language.endings.get(rng.random_range(0..language.endings.len()))?);
        }
        if language_code == CHINESE && rng.random_bool(TRADITIONAL_SHARE) {
            text = traditional(&text);
        }
        let text = slip(rng, text);
        Some(DrawnCaption { text, word: word.text.clone(), is_name: word.is_name })
    }

    /// The words for captions of a concept in a language, and whether each is a name. The concept's own name comes
    /// first.
    pub fn words(&self, concept: usize, language_code: &str) -> impl Iterator<Item = (&str, bool)> {
        let words = self.concepts.get(concept).and_then(|(_, words)| words.get(language_code));
        words.into_iter().flat_map(|words| &words.alone).map(|word| (word.text.as_str(), word.is_name))
    }

    /// All captions of a concept in a language, without variants in capitals and punctuation; empty if there is no
    /// such concept or it has no name in that language.
    pub fn captions(&self, concept: usize, language_code: &str) -> Vec<Caption> {
        let Some((subcategory, words)) = self.concepts.get(concept) else {
            return Vec::new();
        };
        let Some(words) = words.get(language_code) else {
            return Vec::new();
        };
        let language = language(language_code);
        let combined = if words.beside.is_empty() { 0.0 } else { COMBINED_SHARE as f32 };
        let mut captions = Vec::new();
        for word in &words.alone {
            let phrases: Vec<_> = language.phrases_for(&word.text, subcategory).collect();
            let total: f32 = phrases.iter().map(|(_, weight)| weight).sum();
            captions.extend(phrases.into_iter().map(|(text, weight)| Caption {
                text,
                weight: (1.0 - combined) * word.weight * weight / total,
            }));
        }
        let Some(name) = words.alone.first() else {
            return captions;
        };
        let each = combined / (words.beside.len() * language.combined.len()).max(1) as f32;
        for keyword in &words.beside {
            captions.extend(
                language
                    .combined
                    .iter()
                    .map(|pattern| Caption { text: combine(pattern, &name.text, keyword), weight: each }),
            );
        }
        captions
    }

    /// The tokenizer's training texts: every name and keyword, and the text that phrases put around them.
    ///
    /// Words and phrases are separate, so that the tokenizer learns to split "一只猫" between 一只 and 猫. They are
    /// repeated by their weight in captions and that of their language, phrases less, so that few pieces are spent on
    /// them.
    pub fn tokenizer_texts(&self, languages: &[&str]) -> Vec<String> {
        let mut texts = Vec::new();
        for code in languages {
            let language = language(code);
            let mut frames: BTreeMap<String, f32> = BTreeMap::new();
            for (subcategory, words) in &self.concepts {
                let Some(words) = words.get(*code) else { continue };
                for word in &words.alone {
                    let times = (word.weight * TIMES_EACH_NAME * self.language_weight(code)).ceil() as usize;
                    texts.extend(std::iter::repeat_n(word.text.clone(), times));
                    texts.push(capitalise(&word.text));
                }
                texts.extend(words.beside.iter().cloned());
                if *code == CHINESE {
                    let alone = words.alone.iter().map(|word| &word.text);
                    texts.extend(alone.chain(&words.beside).map(|word| traditional(word)));
                }
                if let Some(name) = words.alone.first() {
                    for (frame, weight) in language.frames(&name.text, subcategory) {
                        *frames.entry(frame).or_default() += weight * TIMES_EACH_FRAME;
                    }
                }
            }
            // Text between and after words occurs once per concept.
            let marks = language.combined.iter().map(|pattern| combine(pattern, "", ""));
            let marks: Vec<String> =
                marks.chain(language.endings.iter().map(|&ending| ending.to_owned())).collect();
            texts.extend(self.concepts.iter().flat_map(|_| marks.iter().cloned()));
            for (frame, times) in frames {
                texts.push(capitalise(&frame));
                if *code == CHINESE {
                    texts.push(traditional(&frame));
                }
                texts.extend(std::iter::repeat_n(frame, times.ceil() as usize));
            }
        }
        // Captions are also typed in lower or upper case throughout.
        let letters: BTreeSet<char> = texts.iter().flat_map(|text| text.chars()).collect();
        let other_cases =
            letters.iter().flat_map(|letter| letter.to_lowercase().chain(letter.to_uppercase()));
        let missing: BTreeSet<char> = other_cases.filter(|letter| !letters.contains(letter)).collect();
        texts.extend(missing.into_iter().map(String::from));
        texts
    }
}

fn combine(pattern: &str, name: &str, keyword: &str) -> String {
    pattern.replace("{keyword}", keyword).replace("{name}", name)
}

/// Capitalises the first letter, if the script has upper case.
fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
