//! Decodes latents to images, and finishes these.

use candle_core::Tensor;
use image::RgbImage;

use super::model::AltDiffusion;
use crate::Result;
use crate::cancellation::Cancellation;
use crate::images::{channels_last_to_images, to_images};
use crate::vae::Tiling;

impl AltDiffusion {
    /// Decodes latents (images, channels, height, width), in the denoiser's scale, one image at a time to limit the
    /// decoder's memory.
    ///
    /// # Errors
    /// If they have another shape, or decode to NaN or infinity.
    pub fn decode(&self, latents: &Tensor) -> Result<Vec<RgbImage>> {
        self.decode_with(latents, None, &Cancellation::default(), |_, _| Ok(()))
    }

    /// Calls `before_each` with the index of the next image and their number.
    pub(super) fn decode_with(
        &self,
        latents: &Tensor,
        tiling: Option<Tiling>,
        cancellation: &Cancellation,
        mut before_each: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<RgbImage>> {
        let count = latents.dim(0)?;
        before_each(0, count)?;
        let vae = self.vae()?;
        let latents = (latents / vae.scaling_factor())?;
        let mut images = Vec::with_capacity(count);
        for index in 0..count {
            if index > 0 {
                before_each(index, count)?;
            }
            let latents = latents.narrow(0, index, 1)?;
            images.extend(match tiling {
                Some(tiling) => to_images(&vae.decode_tiled_unless(&latents, tiling, cancellation)?)?,
                // In the decoder's dtype: 8 bits need no more.
                None => channels_last_to_images(&vae.decode_pixels(&latents, cancellation)?)?,
            });
        }
        Ok(images)
    }

    /// Enlarges the images, blackens those that the safety checker flags, if there is one, and returns the flags.
    pub(super) fn enlarge_checked(
        &self,
        images: Vec<RgbImage>,
        scale: usize,
    ) -> Result<(Vec<RgbImage>, Option<Vec<bool>>)> {
        let checker = self.safety_checker()?;
        let flagged = checker.map(|checker| checker.check(&images)).transpose()?;
        let mut images = self.enlarge(images, scale)?;
        for (image, _) in images.iter_mut().zip(flagged.iter().flatten()).filter(|(_, flagged)| **flagged) {
            image.fill(0);
        }
        Ok((images, flagged))
    }
}
