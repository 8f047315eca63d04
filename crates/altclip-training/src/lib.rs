//! The AltCLIP and AltDiffusion training recipe: data, losses, stages and metrics.

mod cache;
mod contact_sheet;
mod error;
pub mod evaluation;
mod files;
mod gradients;
pub mod hash;
mod low_rank;
mod optimizer;
pub mod pairs;
pub mod parallel;
mod parameters;
pub mod recipes;
mod run;
pub mod settings;
pub mod stages;
mod tensor_file;
pub mod text_file;
mod workers;

pub use cache::Cache;
pub use contact_sheet::contact_sheet;
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use low_rank::{LowRank, LowRankConfig, unet_file};
pub use optimizer::{Optimizer, OptimizerConfig, Schedule};
pub use parameters::{Parameters, frozen};
pub use run::{Batch, Metrics, Objective, Observer, Run};
pub use tensor_file::{save_tensors, save_weights};
pub use workers::Workers;
