//! Trains the stages that only the emoji model needs. The others are those of [`altclip_training::stages`].

pub mod autoencoder;
pub mod decoder;
pub mod dual_encoder;
pub mod image_tower;
pub mod unet_shape;

/// Parts of a batch that are computed at the same time, where a recipe says nothing.
fn one_part() -> usize {
    1
}
