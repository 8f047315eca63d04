//! The stages of the recipe, in their order.

mod by_length;
pub mod clip;
pub mod contrastive;
pub mod decoder;
pub mod denoising;
pub(crate) mod functions;
pub mod image;
pub mod realign;
pub mod sheet;
pub mod teacher;
pub mod unet_shape;
pub mod vae;
