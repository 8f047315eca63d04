//! Keeps the unmasked part of an image during inpainting.

use candle_core::Tensor;

use crate::Result;
use crate::schedulers::Scheduler;

/// An inpainting run's image. All tensors are f32 and in the latents' size.
#[derive(Debug, Clone)]
pub struct Inpainting {
    /// (1, 1, height, width): 1 where the image is redrawn, 0 where it is kept.
    pub mask: Tensor,
    /// How the kept part of the image reaches the UNet.
    pub mode: InpaintingMode,
}

/// How the kept part of an image reaches the UNet.
#[derive(Debug, Clone)]
pub enum InpaintingMode {
    /// For any UNet: it is blended in after each step, noised to the next step's level.
    Blend {
        /// Scaled latents of the image, (1 or images, channels, height, width).
        original: Tensor,
        /// Standard normal, (images, channels, height, width).
        noise: Tensor,
    },
    /// For an inpainting UNet: it gets the mask and the masked image's latents as additional channels.
    Channels {
        /// Scaled, (1 or images, channels, height, width).
        masked: Tensor,
    },
}

impl Inpainting {
    /// Appends the additional channels to `sample`, if the UNet takes any.
    pub(crate) fn extend(&self, sample: Tensor) -> Result<Tensor> {
        let InpaintingMode::Channels { masked } = &self.mode else { return Ok(sample) };
        let (images, channels, height, width) = sample.dims4()?;
        let mask = self.mask.broadcast_as((images, 1, height, width))?;
        let masked = masked.broadcast_as((images, channels, height, width))?;
        Ok(Tensor::cat(&[&sample, &mask, &masked], 1)?)
    }

    /// Restores the kept part after a step, at the noise level of step `next`, or without noise after the last.
    pub(crate) fn keep_unmasked(
        &self,
        latents: Tensor,
        scheduler: &dyn Scheduler,
        next: Option<usize>,
    ) -> Result<Tensor> {
        let InpaintingMode::Blend { original, noise } = &self.mode else { return Ok(latents) };
        let original = original.broadcast_as(noise.shape())?.contiguous()?;
        let original = match next {
            Some(index) => scheduler.add_noise(&original, noise, index)?,
            None => original,
        };
        let kept = original.broadcast_mul(&self.mask.affine(-1.0, 1.0)?)?;
        Ok((kept + latents.broadcast_mul(&self.mask)?)?)
    }
}
