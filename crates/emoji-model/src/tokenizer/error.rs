//! Says why no tokenizer came out of a training.

/// Why no model came out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnigramError {
    /// There is nothing to learn from.
    #[error("tokenizer training: expected texts, found none that is not blank")]
    NoText,
    /// Every character must be in the vocabulary.
    #[error(
        "tokenizer training: expected a vocabulary of at least {needed} pieces for the characters of the texts, found {asked}"
    )]
    VocabularyTooSmall {
        /// Pieces that hold the characters and the special pieces.
        needed: usize,
        /// The size that was asked for.
        asked: usize,
    },
    /// The normalisation rules are damaged.
    #[error(transparent)]
    Rules(#[from] altclip_encoder::Error),
}
