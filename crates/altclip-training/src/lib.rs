//! The AltCLIP and AltDiffusion training recipe: data, losses, stages and metrics.

pub mod emoji;
mod error;
mod evaluate;
pub mod evaluation;
mod export;
mod gradients;
mod optimizer;
mod parameters;
pub mod pictures;
mod recipe;
mod run;
pub mod stages;
mod unigram;
mod workers;

pub use error::{Error, Result};
pub use evaluate::{Drawn, EmojiEvaluation, EmojiScore, LanguageScore};
pub use export::export;
pub use gradients::Gradients;
pub use optimizer::{Optimizer, OptimizerConfig, Schedule};
pub use parameters::Parameters;
pub use recipe::{Recipe, Stage};
pub use run::{Batch, Metrics, Objective, Observer, Run, save_tensors};
pub use unigram::{UnigramError, train_unigram};
