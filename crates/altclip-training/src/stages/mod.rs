//! The stages of the recipe, in their order.

pub mod clip;
pub mod denoising;
pub mod diffusion;
mod functions;
pub mod image;
pub mod vae;
