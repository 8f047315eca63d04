//! The AltCLIP and AltDiffusion training recipe: data, losses, stages and metrics.

mod cache;
pub mod emoji;
mod emoji_recipe;
mod error;
mod evaluate;
pub mod evaluation;
mod export;
mod fidelity;
mod files;
mod gradients;
pub mod images;
mod low_rank;
mod optimizer;
pub mod pairs;
pub mod parallel;
mod parameters;
pub mod recipes;
mod run;
pub mod settings;
pub mod stages;
pub mod text_file;
mod unigram;
mod workers;

pub use cache::Cache;
pub use emoji_recipe::EmojiRecipe;
pub use error::{Error, Result};
pub use evaluate::{Drawn, EmojiEvaluation, EmojiScore, LanguageScore, Taught};
pub use export::{TrainedUnet, export, export_autoencoder, export_dual_encoder};
pub use fidelity::Fidelity;
pub use gradients::Gradients;
pub use low_rank::{LowRank, LowRankConfig, unet_file};
pub use optimizer::{Optimizer, OptimizerConfig, Schedule};
pub use parameters::Parameters;
pub use run::{Batch, Metrics, Objective, Observer, Run, save_tensors, save_weights};
pub use unigram::{UnigramError, train_unigram};
pub use workers::Workers;
