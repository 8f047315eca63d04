//! Where a run begins: in noise, or in an image.

use candle_core::{DType, Tensor};

use crate::schedulers::Scheduler;
use crate::{Error, Result};

/// What a run begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// (images, channels, height, width), f32, at the noise level of the first step.
    pub latents: Tensor,
    /// The index of the scheduler's first step.
    pub first_index: usize,
    /// What stays of an image, if only a part of it is drawn anew.
    pub inpainting: Option<Inpainting>,
}

impl Start {
    /// In `noise`, standard normal, (images, channels, height, width), from the first step on.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn in_noise(scheduler: &dyn Scheduler, noise: &Tensor) -> Result<Self> {
        let latents = (noise.to_dtype(DType::F32)? * scheduler.init_noise_sigma())?;
        Ok(Self { latents, first_index: 0, inpainting: None })
    }

    /// In `original`, scaled latents of images, with `noise` of the level that the last `strength` of the `steps` of the
    /// scheduler begins with, as in diffusers: of 1, all of them, and from 0 none. (A scheduler may call the model more
    /// often than it was asked for steps.)
    ///
    /// # Errors
    /// When the strength is not from 0 to 1, or so small that no step is left.
    pub fn in_image(
        scheduler: &dyn Scheduler,
        original: &Tensor,
        noise: &Tensor,
        strength: f64,
        steps: usize,
    ) -> Result<Self> {
        let first_index = first_index(scheduler, strength, steps)?;
        let latents = scheduler.add_noise(original, noise, first_index)?;
        Ok(Self { latents, first_index, inpainting: None })
    }
}

/// The index from which the last `strength` of the steps are.
pub(crate) fn first_index(scheduler: &dyn Scheduler, strength: f64, steps: usize) -> Result<usize> {
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::option("strength", format!("{strength}, expected a number from 0 to 1")));
    }
    let left = (steps as f64 * strength) as usize;
    if left == 0 {
        let problem =
            format!("{strength} of {steps} steps leaves none; expected a larger strength or more steps");
        return Err(Error::option("strength", problem));
    }
    Ok((steps - left) * scheduler.calls_per_step())
}

/// An image of which only what a mask covers is drawn anew. All tensors are f32 and of the latents' size.
#[derive(Debug, Clone)]
pub struct Inpainting {
    /// (1, 1, height, width): 1 where the image is drawn anew, 0 where it stays.
    pub mask: Tensor,
    /// How the rest of the image reaches the UNet.
    pub rest: Rest,
}

/// How the part of an image that stays reaches the UNet.
#[derive(Debug, Clone)]
pub enum Rest {
    /// For any UNet: after each step it is put back, with noise of the next step's level.
    Blended {
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
        let Rest::Channels { masked } = &self.rest else { return Ok(sample) };
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
        let Rest::Blended { original, noise } = &self.rest else { return Ok(latents) };
        let original = original.broadcast_as(noise.shape())?.contiguous()?;
        let original = match next {
            Some(index) => scheduler.add_noise(&original, noise, index)?,
            None => original,
        };
        let kept = original.broadcast_mul(&self.mask.affine(-1.0, 1.0)?)?;
        Ok((kept + latents.broadcast_mul(&self.mask)?)?)
    }
}
