//! AltDiffusion: hidden states of a prompt to pictures

mod config;
mod error;
mod layers;
mod picture;
mod whole_file;

pub mod latents;
pub mod schedulers;
pub mod vae;

pub use config::PerBlock;
pub use error::{Error, Result};
pub use picture::to_pictures;
pub use whole_file::write_whole;
