//! The emoji model that ships with the program: its data set, its captions, its tokenizer, its recipe and its evaluation.

pub mod captions;
mod coverage;
pub mod dataset;
mod error;
mod evaluation;
mod export;
mod fidelity;
pub mod pixels;
mod recipe;
pub mod stages;
pub mod tokenizer;
mod weights;

pub use coverage::Coverage;
pub use error::{Error, Result};
pub use evaluation::{EmojiEvaluation, EmojiScore, EvaluatedImage, LanguageScore};
pub use export::{TrainedUnet, export, export_autoencoder, export_dual_encoder};
pub use fidelity::Fidelity;
pub use recipe::EmojiRecipe;
