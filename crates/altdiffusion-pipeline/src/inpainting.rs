//! Keeps the part of an image that a mask does not cover.

use candle_core::Tensor;

use crate::Result;
use crate::schedulers::Scheduler;

/// An image of which only what a mask covers is drawn anew. All tensors are f32 and of the latents' size.
#[derive(Debug, Clone)]
pub struct Inpainting {
    /// (1, 1, height, width): 1 where the image is drawn anew, 0 where it stays.
    pub mask: Tensor,
    /// How the rest of the image reaches the UNet.
    pub mode: InpaintingMode,
}

/// How the part of an image that stays reaches the UNet.
#[derive(Debug, Clone)]
pub enum InpaintingMode {
    /// For any UNet: after each step it is put back, with noise of the next step's level.
    Blend {
        /// Scaled latents of the image, (1 or images, channels, height, width).
        original: Tensor,
        /// Standard normal, (images, channels, height, width).
        noise: Tensor,
    },
    /// For a UNet that was trained to inpaint: it sees the mask and the latents of the image without what is masked, as
    /// additional channels.
    Channels {
        /// Scaled, (1 or images, channels, height, width).
        masked: Tensor,
    },
}

impl Inpainting {
    /// The UNet's input of `sample`, with the additional channels that it may have.
    pub(crate) fn extend(&self, sample: Tensor) -> Result<Tensor> {
        let InpaintingMode::Channels { masked } = &self.mode else { return Ok(sample) };
        let (images, channels, height, width) = sample.dims4()?;
        let mask = self.mask.broadcast_as((images, 1, height, width))?;
        let masked = masked.broadcast_as((images, channels, height, width))?;
        Ok(Tensor::cat(&[&sample, &mask, &masked], 1)?)
    }

    /// The latents after a step, with what stays of the image at the noise level of the step at `next`, or free of noise
    /// after the last.
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
