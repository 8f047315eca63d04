//! The sampling loop: noise to latents of a picture.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};

use crate::latents::all_finite;
use crate::prompt::Prompt;
use crate::random::Noise;
use crate::schedulers::Scheduler;
use crate::unet::UNet2DConditionModel;
use crate::{Error, Result};

/// A step that has been done, as a callback sees it.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are: one for each call of the UNet, which are more than were asked for with some schedulers.
    pub total: usize,
    /// The timestep that the UNet was called with.
    pub timestep: f64,
    /// The latents after it, (pictures, channels, height, width), f32, at the noise level of the next step.
    pub latents: &'a Tensor,
}

/// Latents after the last step.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// (pictures, channels, height, width), f32, as the UNet knows them; the VAE's are smaller by its scaling factor.
    pub latents: Tensor,
    /// The time of each step.
    pub steps: Vec<Duration>,
}

/// Leads standard normal latents (pictures, channels, height, width) to those of pictures of the prompt.
///
/// Both halves of a guided prompt go through the UNet in one batch, and their predictions are combined to
/// `unconditioned + guidance_scale · (conditioned − unconditioned)`; without guidance the scale has no effect. The
/// latents are kept in f32 between the steps, whatever the dtype of the UNet: they are small, and their small changes
/// add up. A stochastic scheduler draws what it adds from `noise`.
///
/// # Errors
/// When shapes do not fit, the latents become NaN or infinite, or `on_step` breaks the loop.
pub fn denoise(
    unet: &UNet2DConditionModel,
    scheduler: &mut dyn Scheduler,
    prompt: &Prompt,
    guidance_scale: f64,
    initial_latents: &Tensor,
    noise: &mut dyn Noise,
    mut on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Denoised> {
    let timesteps = scheduler.timesteps().to_vec();
    let total = timesteps.len();
    let mut latents = (initial_latents.to_dtype(DType::F32)? * scheduler.init_noise_sigma())?;
    let mut steps = Vec::with_capacity(total);
    for (index, timestep) in timesteps.into_iter().enumerate() {
        let start = Instant::now();
        let sample = scheduler.scale_model_input(&latents, index)?;
        let sample = if prompt.is_guided() { Tensor::cat(&[&sample, &sample], 0)? } else { sample };
        let timestep_batch = Tensor::full(timestep as f32, sample.dim(0)?, sample.device())?;
        let prediction = unet.forward(&sample, &timestep_batch, prompt.context())?;
        let prediction = if prompt.is_guided() { guide(&prediction, guidance_scale)? } else { prediction };
        latents = scheduler.step(&prediction, index, &latents, noise)?;
        // This also waits for the device, so that the time is that of the step.
        if !all_finite(&latents)? {
            return Err(Error::NotFinite {
                place: format!("the latents after step {} of {total} are", index + 1),
                remedy: "f16 may have overflowed, use bf16 or f32; or the weights are damaged",
            });
        }
        steps.push(start.elapsed());
        if on_step(Step { index, total, timestep, latents: &latents }).is_break() {
            return Err(Error::Cancelled { completed: index + 1, total });
        }
    }
    Ok(Denoised { latents, steps })
}

/// Classifier-free guidance: predictions (2 · pictures, …), the unconditioned ones first, to (pictures, …).
fn guide(predictions: &Tensor, scale: f64) -> Result<Tensor> {
    let pictures = predictions.dim(0)? / 2;
    let unconditioned = predictions.narrow(0, 0, pictures)?;
    let conditioned = predictions.narrow(0, pictures, pictures)?;
    Ok((&unconditioned + ((conditioned - &unconditioned)? * scale)?)?)
}
