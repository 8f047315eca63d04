//! Describes one emoji: what it is called, and which images show it.

use std::collections::BTreeMap;

use altclip_training::hash::hash as fnv1a;
use serde::{Deserialize, Serialize};

use super::cldr::ConceptLabel;
use super::selection::EmojiRecord;

/// Number of parts that [`Concept::fold`] divides the concepts into.
pub const FOLDS: u8 = 10;

/// One emoji: its images and what it is called.
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
    /// What the emoji is put together from, where it is a person in a skin tone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composition: Option<Composition>,
    /// A number below [`FOLDS`] that depends on `id` alone, for a division into training and held-out concepts that
    /// stays the same when concepts come or go.
    pub fold: u8,
    /// One image for each drawing style that has it.
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

/// Where a concept's image lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// The drawing style.
    pub vendor: String,
    /// Row of the tensor `images`.
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

    /// Its name in a language, where it has one.
    pub fn name(&self, language: &str) -> Option<&str> {
        self.labels.get(language).map(|label| label.name.as_str())
    }
}

/// FNV-1a of a text, mixed by MurmurHash3's finaliser.
pub(crate) fn hash(id: &str) -> u64 {
    let hash = fnv1a(id.bytes());
    // Ids differ in few letters, which FNV alone spreads over few remainders.
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// How names are compared.
pub(crate) fn fold_case(text: &str) -> String {
    text.to_lowercase()
}
