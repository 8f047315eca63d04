//! Captions: an emoji's names and keywords in the phrases that people type.
//!
//! A caption is a *word* (the concept's name, or one of its keywords) in a *phrase* of the language. The name is the
//! word most of the time. Keywords are shared between concepts ("fruit", "smile"), so each is drawn in proportion to
//! how specific it is (1 / the number of concepts that share it), those shared by more than [`MAX_SHARERS`] stand
//! beside the name only, and a keyword that is another concept's very name is that concept's alone: "star" asks for
//! ⭐, not for 🤩. Some everyday words are second names (see `everyday.rs`).

mod chinese;
mod english;
mod everyday;
mod phrase;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{Rng, RngExt};

use super::cldr::Label;
use super::dataset::{Concept, Dataset, fold_case};
use phrase::{Language, Phrase, language};

/// A keyword that more concepts share says too little to stand alone.
const MAX_SHARERS: usize = 8;
/// Share of captions whose word is a keyword, where a concept has specific ones.
const KEYWORD_SHARE: f32 = 0.3;
/// Share of captions whose word is a second name, where a concept has such.
const SECOND_NAME_SHARE: f32 = 0.3;
/// Sum of 1 / sharers from which keywords get their full share.
const ENOUGH_SPECIFICITY: f32 = 1.0;
/// Share of captions that hold the name and a keyword.
const COMBINED_SHARE: f64 = 0.06;
/// Share of captions that end in a full stop or exclamation mark.
const PUNCTUATED_SHARE: f64 = 0.06;
/// Share of captions that begin with a capital letter.
const CAPITALISED_SHARE: f64 = 0.12;

/// How often a concept's words come in the texts for the tokenizer, all of one concept together.
const TIMES_EACH_NAME: f32 = 8.0;

/// How often the text around a word comes there, for each concept and unit of weight.
const TIMES_EACH_FRAME: f32 = 0.1;

/// A caption and how often it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// What a person might type.
    pub text: String,
    /// Relative frequency; the captions of one concept in one language sum to 1.
    pub weight: f32,
}

/// A caption, and the word in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnCaption {
    pub text: String,
    /// The name, a second name or a keyword.
    pub word: String,
    /// Whether the word is a name, and so alone enough to know the concept by.
    pub is_name: bool,
}

/// The name or a keyword, and how often captions use it.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    is_name: bool,
    /// The words of one concept in one language sum to 1.
    weight: f32,
}

/// Words of one concept in one language.
#[derive(Debug, Clone)]
struct Words {
    /// The name comes first.
    alone: Vec<Word>,
    /// Keywords that may stand beside the name.
    beside: Vec<String>,
}

/// Draws captions for the concepts of one data set.
#[derive(Debug)]
pub struct CaptionSampler {
    /// For each concept, its subcategory and its words by language.
    concepts: Vec<(String, BTreeMap<String, Words>)>,
}

impl CaptionSampler {
    /// Weighs every name and keyword of the data set.
    pub fn new(dataset: &Dataset) -> Self {
        let sharers = Sharers::count(dataset.concepts());
        let owners = SecondNameOwners::collect(dataset);
        let concepts = dataset.concepts().iter().enumerate().map(|(index, concept)| {
            let words = concept.labels.iter().map(|(language, label)| {
                let second_names = owners.of(dataset, language, index);
                let names_another = |word: &str| {
                    let named = dataset.concepts_named(language, word);
                    let owner = owners.0.get(&(language.clone(), word.to_owned()));
                    !named.is_empty() && !named.contains(&index) || owner.is_some_and(|&owner| owner != index)
                };
                let sharers = |word: &str| sharers.of(language, word);
                (language.clone(), words(label, &second_names, sharers, names_another))
            });
            (concept.subcategory.clone(), words.collect())
        });
        Self { concepts: concepts.collect() }
    }

    /// Draws one caption of a concept; `None` where there is no such concept or it has no name in that language.
    pub fn sample(&self, rng: &mut impl Rng, concept: usize, language_code: &str) -> Option<String> {
        self.draw(rng, concept, language_code).map(|caption| caption.text)
    }

    /// Like [`sample`](Self::sample), and tells the word in the caption.
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
            (draw_phrase(rng, &language, &word.text, subcategory)?, word)
        };
        if rng.random_bool(CAPITALISED_SHARE) {
            text = capitalise(&text);
        }
        if rng.random_bool(PUNCTUATED_SHARE) {
            text.push_str(language.endings.get(rng.random_range(0..language.endings.len()))?);
        }
        Some(DrawnCaption { text, word: word.text.clone(), is_name: word.is_name })
    }

    /// The words that captions of a concept in a language are made around, and whether each is a name. The concept's own
    /// name comes first.
    pub fn words(&self, concept: usize, language_code: &str) -> impl Iterator<Item = (&str, bool)> {
        let words = self.concepts.get(concept).and_then(|(_, words)| words.get(language_code));
        words.into_iter().flat_map(|words| &words.alone).map(|word| (word.text.as_str(), word.is_name))
    }

    /// Every caption of a concept in a language, without the variants in capitals and punctuation; empty where there
    /// is no such concept or it has no name in that language.
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
}

impl CaptionSampler {
    /// Texts to train the tokenizer on: every name and keyword, and what the phrases put around them.
    ///
    /// Words and phrases come apart, so that the tokenizer learns to cut "一只猫" between 一只 and 猫. Each comes again as
    /// its weight in the captions says, phrases less often than that, so that few pieces are spent on them.
    pub fn tokenizer_texts(&self, languages: &[&str]) -> Vec<String> {
        let mut texts = Vec::new();
        for code in languages {
            let language = language(code);
            let mut frames: BTreeMap<String, f32> = BTreeMap::new();
            for (subcategory, words) in &self.concepts {
                let Some(words) = words.get(*code) else { continue };
                for word in &words.alone {
                    let times = (word.weight * TIMES_EACH_NAME).ceil() as usize;
                    texts.extend(std::iter::repeat_n(word.text.clone(), times));
                    texts.push(capitalise(&word.text));
                }
                texts.extend(words.beside.iter().cloned());
                if let Some(name) = words.alone.first() {
                    for (frame, weight) in language.frames(&name.text, subcategory) {
                        *frames.entry(frame).or_default() += weight * TIMES_EACH_FRAME;
                    }
                }
            }
            // What stands between and after words comes with every concept once.
            let marks = language.combined.iter().map(|pattern| combine(pattern, "", ""));
            let marks: Vec<String> =
                marks.chain(language.endings.iter().map(|&ending| ending.to_owned())).collect();
            texts.extend(self.concepts.iter().flat_map(|_| marks.iter().cloned()));
            for (frame, times) in frames {
                texts.push(capitalise(&frame));
                texts.extend(std::iter::repeat_n(frame, times.ceil() as usize));
            }
        }
        texts
    }
}

/// Draws a phrase of the language around a word.
pub(super) fn draw_phrase(
    rng: &mut impl Rng,
    language: &Language,
    word: &str,
    subcategory: &str,
) -> Option<String> {
    let phrases: Vec<&Phrase> = language.fitting(subcategory).collect();
    draw(rng, &phrases, |phrase| phrase.weight).map(|phrase| language.render(rng, phrase, word, subcategory))
}

/// The phrases of a language, for prompts around a name.
pub(super) fn phrases_of(code: &str) -> Language {
    language(code)
}

/// Draws an item in proportion to its weight; `None` where there are no items.
fn draw<'a, T>(rng: &mut impl Rng, items: &'a [T], weight: impl Fn(&T) -> f32) -> Option<&'a T> {
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

fn combine(pattern: &str, name: &str, keyword: &str) -> String {
    pattern.replace("{keyword}", keyword).replace("{name}", name)
}

/// The text with its first letter in upper case, where the script has such.
fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

fn words(
    label: &Label,
    second_names: &[&str],
    sharers: impl Fn(&str) -> usize,
    names_another: impl Fn(&str) -> bool,
) -> Words {
    let is_name = |folded: &str| {
        fold_case(&label.name) == folded || second_names.iter().any(|name| fold_case(name) == folded)
    };
    let folded: BTreeSet<String> = label.keywords.iter().map(|keyword| fold_case(keyword)).collect();
    let specific: Vec<Word> = folded
        .iter()
        .filter(|keyword| !is_name(keyword) && !names_another(keyword))
        .map(|keyword| (keyword, sharers(keyword).max(1)))
        .filter(|(_, sharers)| *sharers <= MAX_SHARERS)
        .map(|(keyword, sharers)| Word {
            text: original(label, keyword),
            is_name: false,
            weight: 1.0 / sharers as f32,
        })
        .collect();
    let specificity: f32 = specific.iter().map(|word| word.weight).sum();
    let keyword_share = KEYWORD_SHARE * (specificity / ENOUGH_SPECIFICITY).min(1.0);
    let second_share = if second_names.is_empty() { 0.0 } else { SECOND_NAME_SHARE };

    let name_share = 1.0 - keyword_share - second_share;
    let mut alone = vec![Word { text: label.name.clone(), is_name: true, weight: name_share }];
    alone.extend(second_names.iter().map(|name| Word {
        text: (*name).to_owned(),
        is_name: true,
        weight: second_share / second_names.len() as f32,
    }));
    alone.extend(
        specific.into_iter().map(|word| Word { weight: keyword_share * word.weight / specificity, ..word }),
    );
    Words { alone, beside: label.keywords.clone() }
}

/// A folded keyword as its label writes it.
fn original(label: &Label, folded: &str) -> String {
    label
        .keywords
        .iter()
        .find(|keyword| fold_case(keyword) == folded)
        .cloned()
        .unwrap_or_else(|| folded.to_owned())
}

/// By language and folded word, the concept that has it as a second name.
struct SecondNameOwners(HashMap<(String, String), usize>);

impl SecondNameOwners {
    fn collect(dataset: &Dataset) -> Self {
        let mut owners = HashMap::new();
        for (index, concept) in dataset.concepts().iter().enumerate() {
            for language in concept.labels.keys() {
                for word in everyday::second_names(&concept.emoji, language) {
                    owners.insert((language.clone(), fold_case(word)), index);
                }
            }
        }
        // What CLDR calls another concept stays that concept's name.
        owners.retain(|(language, word), index| {
            let named = dataset.concepts_named(language, word);
            named.is_empty() || named.contains(index)
        });
        Self(owners)
    }

    /// The second names of a concept that are not CLDR's name of it already.
    fn of(&self, dataset: &Dataset, language: &str, index: usize) -> Vec<&'static str> {
        let Some(concept) = dataset.concepts().get(index) else {
            return Vec::new();
        };
        let words = everyday::second_names(&concept.emoji, language).iter().copied();
        words
            .filter(|word| {
                let folded = fold_case(word);
                let is_name = concept.name(language).is_some_and(|name| fold_case(name) == folded);
                !is_name && self.0.get(&(language.to_owned(), folded)) == Some(&index)
            })
            .collect()
    }
}

/// How many concepts share a word, by language.
struct Sharers(HashMap<(String, String), usize>);

impl Sharers {
    fn count(concepts: &[Concept]) -> Self {
        let mut counts = HashMap::new();
        for (language, label) in concepts.iter().flat_map(|concept| &concept.labels) {
            let words: BTreeSet<String> =
                label.keywords.iter().chain([&label.name]).map(|word| fold_case(word)).collect();
            for word in words {
                *counts.entry((language.clone(), word)).or_insert(0) += 1;
            }
        }
        Self(counts)
    }

    fn of(&self, language: &str, folded: &str) -> usize {
        self.0.get(&(language.to_owned(), folded.to_owned())).copied().unwrap_or(0)
    }
}
