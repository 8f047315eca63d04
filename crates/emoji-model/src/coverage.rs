//! Says which concepts of the data set a model learns to draw.

use crate::dataset::Concept;

/// What a model learns to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Languages of the prompts, by their codes.
    pub languages: Vec<String>,
    /// DrawingParts styles.
    pub vendors: Vec<String>,
    /// Categories and subcategories of concepts that were left out.
    pub exclude: Vec<String>,
    /// Whether people in each skin tone were drawn, where the data set has such.
    pub skin_tones: bool,
}

impl Coverage {
    /// Whether the model learned to draw a concept.
    pub fn includes(&self, concept: &Concept) -> bool {
        let is_excluded = |name: &String| *name == concept.category || *name == concept.subcategory;
        (self.skin_tones || concept.composition.is_none()) && !self.exclude.iter().any(is_excluded)
    }
}
