//! Describes phrases with a place for a word, and what each can be said of.

/// What a phrase can be said of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Everything.
    Any,
    /// What can be counted: not a facial expression or a gesture.
    Thing,
    /// Facial expressions and gestures.
    Expression,
    /// What people ask for in the plural: fruit, vegetables, flowers, animals.
    Plural,
}

/// A phrase with slots, such as `an image of {a}`, and how often it is drawn beside the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phrase {
    pub(super) of: Of,
    /// Relative to the other phrases of the language.
    pub(super) weight: f32,
    pub(super) pattern: &'static str,
}
