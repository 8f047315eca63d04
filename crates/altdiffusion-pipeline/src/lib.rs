//! Draws images from prompts in Chinese, English and sixteen other languages with AltDiffusion.
//!
//! Most programs only need [`AltDiffusion`]. It loads a model from a directory or the Hugging Face hub, and draws
//! what [`GenerateOptions`] ask for. Threads can share it.
//!
//! ```
//! use altdiffusion_pipeline::{AltDiffusion, DType, Device, GenerateOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji");
//! # #[cfg(any())]
//! let model = "models/emoji"; // or "BAAI/AltDiffusion-m9"
//! let pipeline = AltDiffusion::from_pretrained(model, DType::F32, &Device::Cpu)?;
//!
//! let options = GenerateOptions::new("一只猫").steps(4).guidance_scale(2.25).seed(1);
//! let generated = pipeline.generate(&options)?;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("cat.png");
//! # #[cfg(any())]
//! let path = "cat.png";
//! generated.images[0].save(path)?;
//! # Ok(())
//! # }
//! ```
//!
//! A run starts from noise or from an [image](GenerateOptions::image), part of which a [mask](GenerateOptions::mask)
//! can keep. It can follow images with [ControlNets](Control), take [images as prompts](ip_adapter::ImagePrompt), and
//! draw large images in [windows](DenoisingWindows). [`LoadOptions`] add [LoRAs](Lora) and
//! [textual inversions](TextualInversion). A seed gives the same image as in diffusers ([`random`]).
//!
//! # Your own scheduler or denoiser
//!
//! The sampling loop takes any [`Scheduler`] and any [`Denoiser`]. This is Euler's method on the model's noise
//! levels:
//!
//! ```
//! use altdiffusion_pipeline::schedulers::{NoiseSchedule, SchedulerConfig, SchedulerFactory};
//! use altdiffusion_pipeline::{AltDiffusion, DType, Device, GenerateOptions, Noise, Result, Scheduler};
//! use candle_core::Tensor;
//!
//! /// Straight steps between noise levels σ, for a model that predicts velocities.
//! struct Straight {
//!     timesteps: Vec<f64>,
//!     /// One more than there are steps: the last is 0.
//!     sigmas: Vec<f64>,
//! }
//!
//! impl Straight {
//!     fn new(config: &SchedulerConfig, steps: usize) -> Self {
//!         let sigmas = NoiseSchedule::new(config).sigmas();
//!         let timesteps: Vec<usize> =
//!             (0..steps).map(|step| (sigmas.len() - 1) * (steps - step) / steps).collect();
//!         let levels = timesteps.iter().map(|timestep| f64::from(sigmas[*timestep])).chain([0.0]);
//!         Self { sigmas: levels.collect(), timesteps: timesteps.iter().map(|t| *t as f64).collect() }
//!     }
//! }
//!
//! impl Scheduler for Straight {
//!     fn timesteps(&self) -> &[f64] {
//!         &self.timesteps
//!     }
//!
//!     fn init_noise_sigma(&self) -> f64 {
//!         self.sigmas[0]
//!     }
//!
//!     fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
//!         Ok((sample / (self.sigmas[index].powi(2) + 1.0).sqrt())?)
//!     }
//!
//!     fn step(
//!         &mut self,
//!         output: &Tensor,
//!         index: usize,
//!         sample: &Tensor,
//!         _: &mut dyn Noise,
//!     ) -> Result<Tensor> {
//!         let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
//!         let variance = sigma * sigma + 1.0;
//!         let clean = ((sample / variance)? - (output * (sigma / variance.sqrt()))?)?;
//!         Ok((sample + ((sample - clean)? * ((next - sigma) / sigma))?)?)
//!     }
//!
//!     fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
//!         Ok((original + (noise * self.sigmas[index])?)?)
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji");
//! # let pipeline = AltDiffusion::from_pretrained(model, DType::F32, &Device::Cpu)?;
//! let config = pipeline.scheduler().clone();
//! let factory =
//!     SchedulerFactory::new(move |steps| Ok(Box::new(Straight::new(&config, steps.count()))));
//! let options = GenerateOptions::new("a cat").steps(4).scheduler_factory(factory);
//! assert_eq!(pipeline.generate(&options)?.images.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`AltDiffusion::from_parts`] joins a denoiser and an autoencoder. [`denoise`] is the loop alone: it takes a
//! [`Start`] and a [`Conditioning`], and returns [`Denoised`] latents.
//!
//! # Servers
//!
//! [`AltDiffusion::generate_observed`] reports every stage, a [`Cancellation`] ends a run from another thread, and
//! [`Error::kind`] classifies errors. Options can be read from JSON, and reject unknown fields.
//!
//! # Parts
//!
//! Each part can be used alone. All take and return tensors in the reference's layout, (batch, channels, height,
//! width): the [UNet](unet), the [autoencoder](vae), the [schedulers], the [noise](random), [ControlNets](controlnet)
//! and [IP-Adapters](ip_adapter). The text encoder is in [`altclip_encoder`], and [`model_files`] reads files.

#![warn(missing_docs, unreachable_pub)]

mod adapters;
mod cancellation;
mod conditioning;
mod config;
mod contact_sheet;
mod control;
mod denoise;
mod denoiser;
mod denoising_windows;
mod error;
mod fused_steps;
mod guidance;
mod image_input;
mod images;
mod inpainting;
mod latent_preview;
mod layers;
mod model_parts;
mod options;
mod pipeline;
mod progress;
mod prompt;
mod quantization_error;
mod safety_checker;
mod start;
mod text_states;
mod unused_tensors;

pub mod controlnet;
pub mod image_metadata;
pub mod ip_adapter;
pub mod latents;
pub mod random;
pub mod schedulers;
pub mod unet;
pub mod upscaler;
pub mod vae;

pub use adapters::{Lora, TextualInversion};
pub use cancellation::Cancellation;
pub use conditioning::Conditioning;
pub use config::PerBlock;
pub use contact_sheet::{ContactSheet, contact_sheet};
pub use control::Control;
pub use controlnet::ControlNetModel;
pub use denoise::{DenoiseOptions, Denoised, denoise};
pub use denoiser::{Denoiser, DenoiserSpec, PreparedDenoiser};
pub use denoising_windows::DenoisingWindows;
pub use error::{Error, Result};
pub use guidance::Guidance;
pub use images::to_images;
pub use inpainting::{Inpainting, InpaintingMode};
pub use ip_adapter::{ImageEncoder, ImagePrompt, IpAdapter};
pub use latent_preview::LatentPreview;
pub use model_parts::{
    Converted, Cosines, ModelParts, SmoothedLayer, Smoothing, TextStatesLoss, convert_weights,
};
pub use options::GenerateOptions;
pub use pipeline::{AltDiffusion, Components, Generated, LoadOptions, Timings};
pub use progress::{Progress, Step};
pub use prompt::{PromptReading, PromptSegment, parse_prompt};
pub use quantization_error::{OutputError, QuantizationProbe};
pub use random::{Noise, Rng, Seeds};
pub use safety_checker::SafetyChecker;
pub use schedulers::{Scheduler, SchedulerConfig, SchedulerFactory, SchedulerKind, Steps};
pub use start::Start;
pub use text_states::TextStates;
pub use unet::UNet2DConditionModel;
pub use upscaler::PixelShuffleUpscaler;
pub use vae::{AutoencoderKl, Tiling};

// What users of this crate need from others.
pub use altclip_encoder::PROMPT_TOKENS;
pub use altclip_encoder::conditioner::Conditioner;
pub use altclip_encoder::tokenizer::Tokenizer;
pub use candle_core::{DType, Device, Tensor};
pub use model_files::ErrorKind;
pub use model_files::source::ModelSource;
pub use {altclip_encoder, candle_core, image, model_files};

/// Compiles the code in the pages about this crate.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/library.md")]
    struct LibraryGuide;
}
