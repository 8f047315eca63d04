//! Provides texts for training, each with the row of its vector.

mod shuffled;
mod source;

pub use shuffled::ShuffledTexts;
pub use source::TextRows;
