//! Approximates images from latents without running the decoder.

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use crate::Result;
use crate::images::to_images;
use crate::vae::AutoencoderKl;

/// The side of the flat latents decoded to find each channel's colour: away from the edges the colour is uniform.
const SIDE: usize = 4;

/// A linear map from a latent to a colour, found by decoding flat latents of one channel each.
#[derive(Debug, Clone)]
pub struct LatentPreview {
    /// (channels, 3)
    colours: Tensor,
    /// (3), the colour of all-zero latents.
    zero: Tensor,
}

impl LatentPreview {
    /// Fits the map by decoding one small batch.
    ///
    /// # Errors
    /// If decoding fails.
    pub fn new(vae: &AutoencoderKl, device: &Device) -> Result<Self> {
        let channels = vae.config().latent_channels;
        // One image per channel, of 1 in that channel in the UNet's scale, and one of zeros.
        let ones = Tensor::eye(channels, DType::F32, device)?;
        let flat = Tensor::cat(&[&ones, &Tensor::zeros((1, channels), DType::F32, device)?], 0)?;
        let flat = (flat.reshape((channels + 1, channels, 1, 1))? / vae.scaling_factor())?;
        let flat = flat.broadcast_as((channels + 1, channels, SIDE, SIDE))?.contiguous()?;
        let decoded = vae.decode(&flat)?.mean((2, 3))?; // (channels + 1, 3)
        let zero = decoded.get(channels)?;
        let colours = decoded.narrow(0, 0, channels)?.broadcast_sub(&zero)?;
        Ok(Self { colours, zero })
    }

    /// Converts latents (images, channels, height, width), in the UNet's scale, to images with one pixel per latent.
    ///
    /// # Errors
    /// If the latents have another shape, or are not finite.
    pub fn images(&self, latents: &Tensor) -> Result<Vec<RgbImage>> {
        let (images, channels, height, width) = latents.dims4()?;
        let rows = latents.permute((0, 2, 3, 1))?.reshape(((), channels))?;
        let pixels = rows.matmul(&self.colours)?.broadcast_add(&self.zero)?;
        to_images(&pixels.reshape((images, height, width, 3))?.permute((0, 3, 1, 2))?)
    }
}
