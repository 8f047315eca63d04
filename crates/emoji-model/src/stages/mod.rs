//! Defines the stages that only the emoji model needs. The others are in [`altclip_training::stages`].

pub mod autoencoder;
pub mod decoder;
pub mod dual_encoder;
pub mod image_tower;
pub mod unet_shape;
pub mod upscaler;

/// The default number of parts of a batch that are computed at the same time.
fn one_part() -> usize {
    1
}
