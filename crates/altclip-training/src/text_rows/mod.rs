//! Draws texts for training, each with the row of the vector that it belongs to.

mod shuffled;
mod source;

pub use shuffled::ShuffledTexts;
pub use source::TextRows;
