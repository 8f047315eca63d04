//! Trains a SentencePiece unigram tokenizer.

mod em;
mod error;
mod seeds;
mod transfer;
mod unigram;
mod words;

pub use error::UnigramError;
pub(crate) use transfer::transfer;
pub use unigram::train_unigram;
pub(crate) use unigram::with_todays_rules;
