//! Trains AltCLIP and AltDiffusion: data, losses, stages, fine-tuning and evaluation.
//!
//! A [`TrainingRun`] is the loop that all stages share, and an [`Objective`] is what a stage minimises. Its random
//! draws depend only on the seed and the number of the batch, so a resumed run ends with exactly the same weights.
//! [`Parameters`] are a model's weights during training, [`Gradients`] those of a loss, and the [`Optimizer`] takes
//! the steps.
//!
//! * [`stages`]: contrastive and teacher learning of AltCLIP (Chen et al., [arXiv 2211.06679]), re-alignment and
//!   denoising of AltDiffusion (Ye et al., [arXiv 2308.09991])
//! * [`recipes`]: complete runs on published models, each from one TOML file, including LoRA, DreamBooth and textual
//!   inversion
//! * [`text_rows`]: the texts of a stage; [`embedding_index::readers`] reads files of texts and of captioned images
//! * [`parallel`]: training in several processes
//! * [`evaluation`]: retrieval and zero-shot classification
//!
//! Training uses the same model definitions as inference: every operation in them has a gradient.
//!
//! # Example
//!
//! Some steps of a minimal model, `y = factor · x`, towards `y = 2 · x`:
//!
//! ```
//! use altclip_training::candle_core::{Device, Tensor};
//! use altclip_training::candle_nn::Init;
//! use altclip_training::{
//!     Batch, Gradients, Objective, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun,
//! };
//!
//! struct Line {
//!     factor: Tensor,
//! }
//!
//! impl Objective for Line {
//!     fn gradients(&self, _: &mut Batch) -> Result<Gradients> {
//!         let x = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
//!         let error = (x.broadcast_mul(&self.factor)? - (&x * 2.)?)?;
//!         Gradients::of(&error.sqr()?.mean_all()?)
//!     }
//! }
//!
//! # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! let parameters = Parameters::new(1);
//! let factor = parameters.var_builder(&Device::Cpu).get_with_hints((), "factor", Init::Const(0.))?;
//! let config = OptimizerConfig { steps: 100, learning_rate: 0.1, ..OptimizerConfig::default() };
//! let mut optimizer = Optimizer::new(config, &parameters)?;
//!
//! let folder = tempfile::tempdir()?;
//! let run = TrainingRun::open(folder.path().join("line"), 1)?;
//! run.train(&mut optimizer, &mut (), &Line { factor: factor.clone() })?;
//! assert!((factor.to_scalar::<f32>()? - 2.).abs() < 0.1);
//! // Checkpoints, metrics and a plot are in the folder; the run is finished, so that no step is left to take.
//! assert_eq!(run.train(&mut optimizer, &mut (), &Line { factor })?, 0);
//! # Ok(())
//! # }
//! ```
//!
//! [arXiv 2211.06679]: https://arxiv.org/abs/2211.06679
//! [arXiv 2308.09991]: https://arxiv.org/abs/2308.09991

#![warn(missing_docs, unreachable_pub)]

mod cache;
mod contact_sheet;
mod error;
pub mod evaluation;
mod gradients;
mod low_rank;
mod optimizer;
pub mod parallel;
mod parameters;
mod png_file;
pub mod recipes;
mod run;
mod setting_limits;
pub mod settings;
pub mod stages;
mod tensor_file;
pub mod text_rows;
mod workers;

pub use cache::Cache;
pub use contact_sheet::contact_sheet;
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use low_rank::{LowRankAdapter, LowRankConfig, unet_file};
pub use model_files::checkpoint::save_tensors;
pub use optimizer::{Optimizer, OptimizerConfig, Schedule};
pub use parameters::{Parameters, frozen};
pub use png_file::save_png;
pub use run::{Batch, Metrics, Objective, Observer, TrainingRun};
pub use tensor_file::save_weights;
pub use workers::Workers;

pub use embedding_index::hash;
pub use {candle_core, candle_nn, image};

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
