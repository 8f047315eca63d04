//! Defines where a run starts: from noise, or from an image.

use candle_core::{DType, Tensor};

use crate::inpainting::Inpainting;
use crate::schedulers::Scheduler;
use crate::{Error, Result};

/// The start of a run.
#[derive(Debug, Clone)]
pub struct Start {
    /// (images, channels, height, width), f32, at the noise level of the first step.
    pub latents: Tensor,
    /// The index of the scheduler's first step.
    pub first_index: usize,
    /// The part of an image to keep, when inpainting.
    pub inpainting: Option<Inpainting>,
}

impl Start {
    /// Starts from standard normal `noise`, (images, channels, height, width), at the first step.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn from_noise(scheduler: &dyn Scheduler, noise: &Tensor) -> Result<Self> {
        let latents = (noise.to_dtype(DType::F32)? * scheduler.init_noise_sigma())?;
        Ok(Self { latents, first_index: 0, inpainting: None })
    }

    /// Starts from `original`, scaled latents of images, with `noise` at the level where the last `strength` (a
    /// fraction) of the scheduler's `steps` begins, as in diffusers: all of them for 1, none for 0. (A scheduler may
    /// call the model more often than it has steps.)
    ///
    /// # Errors
    /// If the strength is not in 0 to 1, or too small to leave a step.
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

/// The index where the last `strength` of the steps begins.
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
