//! The sampling loop: noise to latents of a picture.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use candle_core::Tensor;

use crate::denoising_windows::DenoisingWindows;
use crate::guidance::Guidance;
use crate::latents::all_finite;
use crate::prompt::Prompt;
use crate::random::Noise;
use crate::schedulers::Scheduler;
use crate::start::Start;
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

/// How the predictions for a step are made.
#[derive(Debug, Clone, Copy)]
pub struct Denoising {
    /// How both halves of a guided prompt are combined; without guidance it has no effect.
    pub guidance: Guidance,
    /// The windows in which the UNet sees a picture that is larger than what it was trained on; all at once if none.
    pub windows: Option<DenoisingWindows>,
}

/// Leads latents to those of pictures of the prompt, through all of a scheduler's noise levels or, from a picture, its last
/// ones.
///
/// Both halves of a guided prompt go through the UNet in one batch. The latents are kept in f32 between the steps, whatever the dtype of the UNet: they
/// are small, and their small changes add up. A stochastic scheduler draws what it adds from `noise`.
///
/// # Errors
/// When shapes do not fit, the latents become NaN or infinite, or `on_step` breaks the loop.
pub fn denoise(
    unet: &UNet2DConditionModel,
    scheduler: &mut dyn Scheduler,
    prompt: &Prompt,
    how: Denoising,
    start: Start,
    noise: &mut dyn Noise,
    mut on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Denoised> {
    let timesteps = scheduler.timesteps().get(start.first_index..).unwrap_or_default().to_vec();
    let total = timesteps.len();
    let Start { mut latents, first_index, inpainting } = start;
    let mut steps = Vec::with_capacity(total);
    for (step, timestep) in timesteps.into_iter().enumerate() {
        let begin = Instant::now();
        let index = first_index + step;
        let mut sample = scheduler.scale_model_input(&latents, index)?;
        let residuals = prompt.residuals(&sample, timestep, (step, total))?;
        if let Some(inpainting) = &inpainting {
            sample = inpainting.extend(sample)?;
        }
        if prompt.is_guided() {
            sample = Tensor::cat(&[&sample, &sample], 0)?;
        }
        let timestep_batch = Tensor::full(timestep as f32, sample.dim(0)?, sample.device())?;
        let predict = |sample: &Tensor| {
            unet.forward_with_residuals(sample, &timestep_batch, prompt.context(), residuals.as_ref())
        };
        let mut prediction = match &how.windows {
            Some(windows) => windows.predict(&sample, predict)?,
            None => predict(&sample)?,
        };
        if prompt.is_guided() {
            prediction = how.guidance.combine(&prediction)?;
        }
        latents = scheduler.step(&prediction, index, &latents, noise)?;
        if let Some(inpainting) = &inpainting {
            let next = (step + 1 < total).then_some(index + 1);
            latents = inpainting.keep_unmasked(latents, scheduler, next)?;
        }
        // This also waits for the device, so that the time is that of the step.
        if !all_finite(&latents)? {
            return Err(Error::NotFinite {
                place: format!("the latents after step {} of {total} are", step + 1),
                remedy: "f16 may have overflowed, use bf16 or f32; or the weights are damaged",
            });
        }
        steps.push(begin.elapsed());
        if on_step(Step { index: step, total, timestep, latents: &latents }).is_break() {
            return Err(Error::Cancelled { completed: step + 1, total });
        }
    }
    Ok(Denoised { latents, steps })
}
