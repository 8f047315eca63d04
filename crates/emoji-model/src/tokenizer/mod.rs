//! Trains a SentencePiece unigram tokenizer.

mod em;
mod error;
mod seeds;
mod unigram;
mod words;

pub use error::UnigramError;
pub use unigram::train_unigram;
pub(crate) use unigram::with_todays_rules;
