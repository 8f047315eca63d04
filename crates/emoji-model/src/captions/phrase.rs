//! Defines phrases with a place for a word, and what they fit.

/// What a phrase fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Everything.
    Any,
    /// Countable things, not facial expressions or gestures.
    Thing,
    /// Facial expressions and gestures.
    Expression,
    /// What people ask for in the plural: fruit, vegetables, flowers, animals.
    Plural,
}

/// A phrase with slots, such as `an image of {a}`, and its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phrase {
    pub(super) of: Of,
    /// Relative to the other phrases of the language.
    pub(super) weight: f32,
    pub(super) pattern: &'static str,
}
