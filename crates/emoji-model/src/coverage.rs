//! Defines which concepts of the data set a model learns to draw.

use crate::dataset::Concept;

/// What a model learns to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The prompts' languages, by code.
    pub languages: Vec<String>,
    /// Drawing styles.
    pub vendors: Vec<String>,
    /// Categories and subcategories of excluded concepts.
    pub exclude: Vec<String>,
    /// Whether people are drawn in each skin tone, if the data set has them.
    pub skin_tones: bool,
}

impl Coverage {
    /// Whether the model learned to draw a concept.
    pub fn includes(&self, concept: &Concept) -> bool {
        let is_excluded = |name: &String| *name == concept.category || *name == concept.subcategory;
        (self.skin_tones || concept.composition.is_none()) && !self.exclude.iter().any(is_excluded)
    }
}
