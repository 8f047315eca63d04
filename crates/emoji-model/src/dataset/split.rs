//! Holds out part of the data set from training, for evaluation.
//!
//! Three kinds of data are never trained on: people in a skin tone, while others are trained in that tone and the
//! same person in other tones; keywords in one language, while the concept keeps its other names there and all of
//! them elsewhere; and images in one drawing style of concepts trained in another. The choice depends only on ids.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use model_files::write_whole;
use serde::{Deserialize, Serialize};

use super::concept::{Concept, fold_case, hash};
use super::prepared::Dataset;
use super::selection::SKIN_TONES;
use crate::error::{Error, Result};

/// The file of held-out data, beside the data set's.
pub const SPLIT_FILE: &str = "held_out.json";
/// Folds of people with one skin tone held out.
const FOLDS_WITHOUT_A_TONE: std::ops::Range<u8> = 0..3;
/// The fold of concepts with one keyword held out.
const FOLD_WITHOUT_A_KEYWORD: u8 = 3;
/// The fold of concepts with their images in [`HELD_OUT_STYLE`] held out.
const FOLD_WITHOUT_A_STYLE: u8 = 4;
const HELD_OUT_STYLE: &str = "twitter";

/// What training must not see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSplit {
    /// Ids of people in a skin tone, which are not trained at all.
    pub compositions: Vec<String>,
    /// Keywords not trained in a language.
    pub keywords: Vec<HeldOutKeyword>,
    /// Images not trained.
    #[serde(alias = "pictures")]
    pub images: Vec<HeldOutImage>,
}

/// A keyword removed from its concept for training, in one language.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldOutKeyword {
    /// The concept's id.
    pub concept: String,
    /// The language, by its code.
    pub language: String,
    /// The keyword, as the data set writes it.
    pub keyword: String,
}

/// A concept's image in one drawing style.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldOutImage {
    /// The concept's id.
    pub concept: String,
    /// The drawing style.
    pub vendor: String,
}

impl DataSplit {
    /// The split of a data set.
    pub fn of(data: &Dataset) -> Self {
        Self { compositions: compositions(data), keywords: keywords(data), images: images(data) }
    }

    /// Reads the split in the folder of a data set.
    ///
    /// # Errors
    ///
    /// If the file is missing or not a split.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(SPLIT_FILE);
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        serde_json::from_slice(&text)
            .map_err(|e| Error::data(&path, format!("expected what is held out from training: {e}")))
    }

    pub(super) fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(SPLIT_FILE);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::data(&path, format!("cannot be written: {e}")))?;
        text.push(b'\n');
        Ok(write_whole(&path, |temporary| std::fs::write(temporary, &text))?)
    }

    /// The data set without held-out data; `None` if nothing is left.
    pub fn training(&self, data: &Dataset) -> Option<Dataset> {
        let compositions: HashSet<&str> = self.compositions.iter().map(String::as_str).collect();
        let keywords: HashSet<(&str, &str, String)> = self
            .keywords
            .iter()
            .map(|held| (held.concept.as_str(), held.language.as_str(), fold_case(&held.keyword)))
            .collect();
        let images: HashSet<(&str, &str)> =
            self.images.iter().map(|held| (held.concept.as_str(), held.vendor.as_str())).collect();
        data.changed(|concept| {
            if compositions.contains(concept.id.as_str()) {
                return None;
            }
            let mut concept = concept.clone();
            let id = concept.id.as_str();
            concept.images.retain(|image| !images.contains(&(id, image.vendor.as_str())));
            for (language, label) in &mut concept.labels {
                label.keywords.retain(|word| !keywords.contains(&(id, language.as_str(), fold_case(word))));
            }
            (!concept.images.is_empty()).then_some(concept)
        })
    }

    /// The indices of held-out images of trained concepts, with their concepts' indices, both in the whole data set.
    pub fn held_out_images(&self, data: &Dataset) -> Vec<(usize, usize)> {
        let held: HashSet<(&str, &str)> =
            self.images.iter().map(|held| (held.concept.as_str(), held.vendor.as_str())).collect();
        let of_concept = |(number, concept): (usize, &Concept)| -> Vec<(usize, usize)> {
            let images = concept.images.iter();
            images
                .filter(|image| held.contains(&(concept.id.as_str(), image.vendor.as_str())))
                .map(|image| (image.index, number))
                .collect()
        };
        data.concepts().iter().enumerate().flat_map(of_concept).collect()
    }
}

/// One skin tone per person in some folds, if all five exist.
fn compositions(data: &Dataset) -> Vec<String> {
    let mut people: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for concept in data.concepts() {
        if let Some(composition) = &concept.composition {
            people.entry(&composition.base).or_default().insert(&composition.skin_tone, &concept.id);
        }
    }
    let folds: HashMap<&str, u8> = data.concepts().iter().map(|c| (c.id.as_str(), c.fold)).collect();
    let held = people.into_iter().filter_map(|(base, tones)| {
        let is_chosen = folds.get(base).is_some_and(|fold| FOLDS_WITHOUT_A_TONE.contains(fold));
        let tone = SKIN_TONES.get(hash(base) as usize / 16 % SKIN_TONES.len())?;
        if is_chosen && tones.len() == SKIN_TONES.len() {
            tones.get(tone).map(|&id| id.to_owned())
        } else {
            None
        }
    });
    held.collect()
}

/// One keyword per concept of a fold, in one language, that no other concept has in that language.
fn keywords(data: &Dataset) -> Vec<HeldOutKeyword> {
    let mut sharers: HashMap<(&str, String), usize> = HashMap::new();
    for (language, label) in data.concepts().iter().flat_map(|concept| &concept.labels) {
        let words: HashSet<String> =
            label.keywords.iter().chain([&label.name]).map(|word| fold_case(word)).collect();
        for word in words {
            *sharers.entry((language, word)).or_default() += 1;
        }
    }
    let mut held = Vec::new();
    let chosen = |concept: &&Concept| concept.fold == FOLD_WITHOUT_A_KEYWORD && concept.composition.is_none();
    for concept in data.concepts().iter().filter(chosen) {
        let languages: Vec<&String> = concept.labels.keys().collect();
        let Some(&language) = languages.get(hash(&concept.id) as usize / 16 % languages.len().max(1)) else {
            continue;
        };
        let own = |word: &&String| sharers.get(&(language.as_str(), fold_case(word))) == Some(&1);
        let label = concept.labels.get(language);
        // A concept's only keyword is kept.
        let several = label.filter(|label| label.keywords.len() > 1);
        if let Some(keyword) = several.and_then(|label| label.keywords.iter().find(own)) {
            held.push(HeldOutKeyword {
                concept: concept.id.clone(),
                language: language.clone(),
                keyword: keyword.clone(),
            });
        }
    }
    held
}

/// The images of a fold in one style, if another style remains to learn the concept from.
fn images(data: &Dataset) -> Vec<HeldOutImage> {
    let chosen = data.concepts().iter().filter(|concept| {
        let styles = |held_out: bool| concept.images.iter().any(|p| (p.vendor == HELD_OUT_STYLE) == held_out);
        concept.fold == FOLD_WITHOUT_A_STYLE && concept.composition.is_none() && styles(true) && styles(false)
    });
    let held =
        |concept: &Concept| HeldOutImage { concept: concept.id.clone(), vendor: HELD_OUT_STYLE.to_owned() };
    chosen.map(held).collect()
}
