//! The stages of the recipe, in their order.

pub mod contrastive;
pub mod diffusion;
pub mod image;
pub mod vae;
