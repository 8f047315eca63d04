//! Defines the errors of training a tokenizer.

/// Why training a tokenizer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnigramError {
    /// There are no texts to train on.
    #[error("tokenizer training: expected texts, found none that is not blank")]
    NoText,
    /// The vocabulary cannot hold every character.
    #[error(
        "tokenizer training: expected a vocabulary of at least {needed} pieces for the characters of the texts, found {asked}"
    )]
    VocabularyTooSmall {
        /// Pieces needed for the characters and special pieces.
        needed: usize,
        /// The requested size.
        asked: usize,
    },
    /// The normalisation rules are damaged.
    #[error(transparent)]
    Rules(#[from] altclip_encoder::Error),
}
