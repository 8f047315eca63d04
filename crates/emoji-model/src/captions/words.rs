//! Weights the words for a concept's captions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::everyday;
use super::settings::CaptionSettings;
use crate::dataset::{Concept, ConceptLabel, Dataset, fold_case};

/// The sum of 1 / sharers from which keywords get their full share.
const ENOUGH_SPECIFICITY: f32 = 1.0;

/// How much rarer each next second name is than the first: the first two as 1.5 to 1.
const RANK_WEIGHT: f32 = 0.5;

/// A name or keyword, and how often captions use it.
#[derive(Debug, Clone)]
pub(super) struct CaptionWord {
    pub text: String,
    pub is_name: bool,
    /// The weights of a concept's words in a language add up to 1.
    pub weight: f32,
}

/// The words of a concept in a language.
#[derive(Debug, Clone)]
pub(super) struct ConceptWords {
    /// The name comes first.
    pub alone: Vec<CaptionWord>,
    /// Keywords that only occur together with the name.
    pub beside: Vec<String>,
}

/// The words of every concept by language, with its subcategory.
pub(super) fn words_of(
    dataset: &Dataset,
    settings: &CaptionSettings,
) -> Vec<(String, BTreeMap<String, ConceptWords>)> {
    // A person's words are as specific as if there were no skin tones, which have them all.
    let among_all = Sharers::count(dataset.concepts().iter());
    let without_tones =
        Sharers::count(dataset.concepts().iter().filter(|concept| concept.composition.is_none()));
    let owners = SecondNameOwners::collect(dataset);
    let concepts = dataset.concepts().iter().enumerate().map(|(index, concept)| {
        let sharers = if concept.composition.is_some() { &among_all } else { &without_tones };
        let words = concept.labels.iter().map(|(language, label)| {
            let second_names = owners.of(dataset, language, index);
            let names_another = |word: &str| {
                let named = dataset.concepts_named(language, word);
                let owner = owners.0.get(&(language.clone(), word.to_owned()));
                !named.is_empty() && !named.contains(&index) || owner.is_some_and(|&owner| owner != index)
            };
            let sharers = |word: &str| sharers.of(language, word);
            (language.clone(), words(settings, label, &second_names, sharers, names_another))
        });
        (concept.subcategory.clone(), words.collect())
    });
    concepts.collect()
}

/// Weights the name, second names and keywords of a concept in a language.
fn words(
    settings: &CaptionSettings,
    label: &ConceptLabel,
    second_names: &[&str],
    sharers: impl Fn(&str) -> usize,
    names_another: impl Fn(&str) -> bool,
) -> ConceptWords {
    let is_name = |folded: &str| {
        fold_case(&label.name) == folded || second_names.iter().any(|name| fold_case(name) == folded)
    };
    let folded: BTreeSet<String> = label.keywords.iter().map(|keyword| fold_case(keyword)).collect();
    let specific: Vec<CaptionWord> = folded
        .iter()
        .filter(|keyword| !is_name(keyword) && !names_another(keyword))
        .map(|keyword| (keyword, sharers(keyword).max(1)))
        .filter(|(_, sharers)| *sharers <= settings.max_sharers)
        .map(|(keyword, sharers)| CaptionWord {
            text: original(label, keyword),
            is_name: false,
            weight: 1.0 / sharers as f32,
        })
        .collect();
    let specificity: f32 = specific.iter().map(|word| word.weight).sum();
    let keyword_share = settings.keyword_share * (specificity / ENOUGH_SPECIFICITY).min(1.0);
    let second_share = if second_names.is_empty() { 0.0 } else { settings.everyday_share };

    let name_share = 1.0 - keyword_share - second_share;
    let mut alone = vec![CaptionWord { text: label.name.clone(), is_name: true, weight: name_share }];
    let rank_weight = |rank: usize| 1.0 / (1.0 + RANK_WEIGHT * rank as f32);
    let ranks: f32 = (0..second_names.len()).map(rank_weight).sum();
    alone.extend(second_names.iter().enumerate().map(|(rank, name)| CaptionWord {
        text: (*name).to_owned(),
        is_name: true,
        weight: second_share * rank_weight(rank) / ranks,
    }));
    alone.extend(
        specific
            .into_iter()
            .map(|word| CaptionWord { weight: keyword_share * word.weight / specificity, ..word }),
    );
    ConceptWords { alone, beside: label.keywords.clone() }
}

/// A case-folded keyword in its original spelling.
fn original(label: &ConceptLabel, folded: &str) -> String {
    label
        .keywords
        .iter()
        .find(|keyword| fold_case(keyword) == folded)
        .cloned()
        .unwrap_or_else(|| folded.to_owned())
}

/// The concept with a second name, by language and case-folded word.
struct SecondNameOwners(HashMap<(String, String), usize>);

impl SecondNameOwners {
    fn collect(dataset: &Dataset) -> Self {
        let mut owners = HashMap::new();
        for (index, concept) in dataset.concepts().iter().enumerate() {
            for language in concept.labels.keys() {
                for word in everyday::second_names(concept, language) {
                    owners.insert((language.clone(), fold_case(word)), index);
                }
            }
        }
        // A word that is another concept's CLDR name stays with that concept.
        owners.retain(|(language, word), index| {
            let named = dataset.concepts_named(language, word);
            named.is_empty() || named.contains(index)
        });
        Self(owners)
    }

    /// A concept's second names, except its CLDR name.
    fn of(&self, dataset: &Dataset, language: &str, index: usize) -> Vec<&'static str> {
        let Some(concept) = dataset.concepts().get(index) else {
            return Vec::new();
        };
        let words = everyday::second_names(concept, language).iter().copied();
        words
            .filter(|word| {
                let folded = fold_case(word);
                let is_name = concept.name(language).is_some_and(|name| fold_case(name) == folded);
                !is_name && self.0.get(&(language.to_owned(), folded)) == Some(&index)
            })
            .collect()
    }
}

/// The number of concepts that share a word, by language.
struct Sharers(HashMap<(String, String), usize>);

impl Sharers {
    fn count<'a>(concepts: impl Iterator<Item = &'a Concept>) -> Self {
        let mut counts = HashMap::new();
        for (language, label) in concepts.flat_map(|concept| &concept.labels) {
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
