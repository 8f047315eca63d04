//! AltDiffusion: hidden states of a prompt to pictures

mod adapters;
mod config;
mod control;
mod denoise;
mod denoising_windows;
mod error;
mod given_picture;
mod guidance;
mod latent_preview;
mod layers;
mod model_parts;
mod options;
mod picture;
mod pipeline;
mod probe;
mod prompt;
mod prompt_syntax;
mod safety_checker;
mod start;
mod whole_file;
mod windows;

pub mod controlnet;
pub mod latents;
pub mod random;
pub mod schedulers;
pub mod unet;
pub mod vae;

pub use adapters::{Lora, TextualInversion};
pub use config::PerBlock;
pub use control::Control;
pub use denoise::{Denoised, Denoising, Step, denoise};
pub use denoising_windows::DenoisingWindows;
pub use error::{Error, Result};
pub use guidance::Guidance;
pub use latent_preview::LatentPreview;
pub use model_parts::{Converted, ModelParts, convert_weights};
pub use options::GenerateOptions;
pub use picture::to_pictures;
pub use pipeline::{AltDiffusion, Generated, LoadOptions, Timings};
pub use probe::{OutputLoss, UNetProbe};
pub use prompt::{PROMPT_TOKENS, Prompt, PromptReading, TextStates};
pub use prompt_syntax::{PromptPart, parse_prompt};
pub use safety_checker::SafetyChecker;
pub use start::{Inpainting, Rest, Start};
pub use whole_file::write_whole;
