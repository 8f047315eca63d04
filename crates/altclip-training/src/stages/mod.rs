//! The stages of the recipe, in their order.

pub mod vae;
