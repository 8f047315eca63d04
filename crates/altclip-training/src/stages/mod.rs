//! The stages of the recipe, in their order.

pub mod contrastive;
pub mod diffusion;
pub mod vae;
