//! Says where a run begins: in noise, or in an image.

use candle_core::{DType, Tensor};

use crate::inpainting::Inpainting;
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
    pub fn from_noise(scheduler: &dyn Scheduler, noise: &Tensor) -> Result<Self> {
        let latents = (noise.to_dtype(DType::F32)? * scheduler.init_noise_sigma())?;
        Ok(Self { latents, first_index: 0, inpainting: None })
    }

    /// In `original`, scaled latents of images, with `noise` of the level that the last `strength` of the `steps` of the
    /// scheduler begins with, as in diffusers: of 1, all of them, and from 0 none. (A scheduler may call the model more
    /// often than it was asked for steps.)
    ///
    /// # Errors
    /// When the strength is not from 0 to 1, or so small that no step is left.
    pub fn from_image(
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
