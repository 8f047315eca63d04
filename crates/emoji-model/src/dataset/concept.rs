//! Describes an emoji: its names and images.

use std::collections::BTreeMap;

use altclip_training::hash::hash as fnv1a;
use serde::{Deserialize, Serialize};

use super::cldr::ConceptLabel;
use super::selection::EmojiRecord;

/// The number of folds that [`Concept::fold`] divides concepts into.
pub const FOLDS: u8 = 10;

/// An emoji with its names and images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concept {
    /// Code points in hexadecimal, joined by `-`, such as `1F408-200D-2B1B`.
    pub id: String,
    /// The emoji itself.
    pub emoji: String,
    /// Unicode's category, such as `Animals & Nature`.
    pub category: String,
    /// Unicode's subcategory, such as `animal-mammal`.
    pub subcategory: String,
    /// For a person in a skin tone, what the emoji is composed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composition: Option<Composition>,
    /// A number below [`FOLDS`] that depends only on `id`, so that training and held-out concepts stay the same when
    /// others come or go.
    pub fold: u8,
    /// One image per drawing style.
    #[serde(alias = "pictures")]
    pub images: Vec<ImageRef>,
    /// Name and keywords by language code.
    pub labels: BTreeMap<String, ConceptLabel>,
}

/// A person and a skin tone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Composition {
    /// The id of the person without a skin tone.
    pub base: String,
    /// The modifier, one of [`SKIN_TONES`](super::SKIN_TONES).
    pub skin_tone: String,
}

/// The location of a concept's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// The drawing style.
    pub vendor: String,
    /// The row of the tensor `images`.
    pub index: usize,
}

impl Concept {
    pub(super) fn new(
        record: &EmojiRecord,
        emoji: String,
        images: Vec<ImageRef>,
        labels: BTreeMap<String, ConceptLabel>,
        composition: Option<Composition>,
    ) -> Self {
        Self {
            id: record.unified.clone(),
            emoji,
            category: record.category.clone(),
            subcategory: record.subcategory.clone(),
            composition,
            fold: (hash(&record.unified) % u64::from(FOLDS)) as u8,
            images,
            labels,
        }
    }

    /// Its name in a language, if it has one.
    pub fn name(&self, language: &str) -> Option<&str> {
        self.labels.get(language).map(|label| label.name.as_str())
    }
}

/// FNV-1a of a text, mixed with MurmurHash3's finalizer.
pub(crate) fn hash(id: &str) -> u64 {
    let hash = fnv1a(id.bytes());
    // Ids differ in few letters, for which FNV alone gives few distinct remainders.
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Folds case, to compare names.
pub(crate) fn fold_case(text: &str) -> String {
    text.to_lowercase()
}
