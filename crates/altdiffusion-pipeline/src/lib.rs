//! AltDiffusion: hidden states of a prompt to pictures

mod config;
mod error;
mod layers;
pub mod unet;
pub mod vae;

pub use config::PerBlock;
pub use error::{Error, Result};
