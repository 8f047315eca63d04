//! Runs the sampling loop, from noise to an image's latents.

use std::ops::ControlFlow;
use std::time::Duration;

use candle_core::{DType, Tensor};

use crate::Result;
use crate::conditioning::Conditioning;
use crate::denoising_windows::DenoisingWindows;
use crate::fused_steps::FusedSteps;
use crate::guidance::Guidance;
use crate::inpainting::Inpainting;
use crate::progress::{Step, StepReports};
use crate::random::Noise;
use crate::schedulers::Scheduler;
use crate::start::Start;
use crate::unet::PreparedUNet;

/// Latents after the last step.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// (images, channels, height, width), f32, in the denoiser's scale; the VAE's are smaller by its scaling factor.
    pub latents: Tensor,
    /// The duration of each step.
    pub steps: Vec<Duration>,
}

/// How the prediction of a step is made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DenoiseOptions {
    /// How the two halves of a guided batch are combined; no effect without guidance.
    pub guidance: Guidance,
    /// The windows for an image larger than the denoiser was trained on; `None` to predict it as a whole.
    pub windows: Option<DenoisingWindows>,
}

/// Denoises latents through all of a scheduler's noise levels or, when starting from an image, its last ones.
///
/// Both halves of a guided batch go through the denoiser at once. The latents stay in f32 between the steps, whatever
/// its dtype: they are small, and their rounding errors add up. A stochastic scheduler draws from `noise`.
///
/// A GPU is never left idle to report progress: `on_step` is called while the next step runs.
///
/// # Errors
/// If shapes do not fit, the latents become NaN or infinite, or `on_step` breaks the loop.
pub fn denoise(
    conditioning: &mut Conditioning,
    scheduler: &mut dyn Scheduler,
    options: DenoiseOptions,
    start: Start,
    noise: &mut dyn Noise,
    on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Denoised> {
    let fused = match can_be_fused(conditioning, &options, &start) {
        true => {
            let scale = conditioning.is_guided().then_some(options.guidance.scale);
            FusedSteps::new(scheduler, start.first_index, scale, start.latents.device())?
        }
        false => None,
    };
    run(conditioning, scheduler, options, start, noise, fused, on_step)
}

/// Whether guidance and the scheduler's update are all that follows the UNet, on a device with a kernel for both.
fn can_be_fused(conditioning: &mut Conditioning, options: &DenoiseOptions, start: &Start) -> bool {
    // In f32 each operation rounds where diffusers rounds, so steps are not fused.
    let is_short = |unet: &mut PreparedUNet| matches!(unet.unet().dtype(), DType::F16 | DType::BF16);
    let is_plain = options.windows.is_none()
        && options.guidance.rescale == 0.0
        && start.inpainting.is_none()
        && !conditioning.has_controls();
    is_plain && start.latents.device().is_cuda() && conditioning.unet().is_some_and(is_short)
}

/// Runs the loop. With `fused` steps, one kernel computes all that follows the UNet.
fn run(
    conditioning: &mut Conditioning,
    scheduler: &mut dyn Scheduler,
    options: DenoiseOptions,
    start: Start,
    noise: &mut dyn Noise,
    mut fused: Option<FusedSteps>,
    on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<Denoised> {
    let timesteps = scheduler.timesteps().get(start.first_index..).unwrap_or_default().to_vec();
    let Start { mut latents, first_index, inpainting } = start;
    let mut reports = StepReports::new(timesteps.len(), latents.device(), on_step);
    for (step, &timestep) in timesteps.iter().enumerate() {
        latents = match (&mut fused, conditioning.unet()) {
            (Some(fused), Some(unet)) => fused.step(unet, scheduler, step, timestep, &latents)?,
            _ => {
                let mut unfused =
                    UnfusedStep { conditioning, scheduler, options, noise, inpainting: inpainting.as_ref() };
                unfused.run(&latents, timestep, first_index, (step, timesteps.len()))?
            }
        };
        reports.add(step, timestep, &latents)?;
    }
    Ok(Denoised { latents, steps: reports.finish()? })
}

/// A step that the device computes one operation at a time.
struct UnfusedStep<'a, 'b> {
    conditioning: &'a mut Conditioning<'b>,
    scheduler: &'a mut dyn Scheduler,
    options: DenoiseOptions,
    noise: &'a mut dyn Noise,
    inpainting: Option<&'a Inpainting>,
}

impl UnfusedStep<'_, '_> {
    /// The latents after step `step` of `steps`.
    fn run(
        &mut self,
        latents: &Tensor,
        timestep: f64,
        first_index: usize,
        (step, total): (usize, usize),
    ) -> Result<Tensor> {
        let index = first_index + step;
        let mut sample = self.scheduler.scale_model_input(latents, index)?;
        let residuals = self.conditioning.residuals(&sample, timestep, (step, total))?;
        if let Some(inpainting) = self.inpainting {
            sample = inpainting.extend(sample)?;
        }
        let sample = self.conditioning.for_both_halves(sample)?;
        let mut predict = |sample: &Tensor| self.conditioning.predict(sample, timestep, residuals.as_ref());
        let mut prediction = match &self.options.windows {
            Some(windows) => windows.predict(&sample, predict)?,
            None => predict(&sample)?,
        };
        if self.conditioning.is_guided() {
            prediction = self.options.guidance.combine(&prediction)?;
        }
        let latents = self.scheduler.step(&prediction, index, latents, self.noise)?;
        match self.inpainting {
            Some(inpainting) => {
                let next = (step + 1 < total).then_some(index + 1);
                inpainting.keep_unmasked(latents, self.scheduler, next)
            }
            None => Ok(latents),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::random::TorchCpu;
    use crate::schedulers::{SchedulerConfig, SchedulerKind, Steps};
    use crate::text_states::TextStates;
    use crate::unet::{WIDTH, tiny_unet};
    use test_support::TestResult;

    const STEPS: usize = 7;

    /// With and without guidance, from noise and from a later step.
    #[test]
    fn fused_steps_lead_to_the_same_latents() -> TestResult {
        let unet = tiny_unet()?;
        let config = r#"{"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "beta_end": 0.012, "steps_offset": 1, "skip_prk_steps": true, "clip_sample": false}"#;
        let config = SchedulerConfig::from_json(config, "scheduler_config.json")?;
        let states = TorchCpu::new(1).normal(&[2, 5, WIDTH])?;
        let latents = TorchCpu::new(2).normal(&[1, 4, 8, 8])?;
        for kind in [SchedulerKind::Pndm, SchedulerKind::Ddim, SchedulerKind::DpmSolverMultistep] {
            for (guided, first_index) in [(true, 0), (false, 0), (true, 2)] {
                let texts = if guided { 2 } else { 1 };
                let states = TextStates::from_hidden_states(states.narrow(0, 0, texts)?)?;
                let options = DenoiseOptions { guidance: Guidance::new(4.0), windows: None };
                let denoised = |fused: bool| -> Result<Denoised> {
                    let mut scheduler = config.clone().with_kind(kind).build_for(&Steps::Count(STEPS))?;
                    let start = Start { latents: latents.clone(), first_index, inpainting: None };
                    let scale = guided.then_some(options.guidance.scale);
                    let fused = match fused {
                        true => FusedSteps::new(scheduler.as_ref(), first_index, scale, &Device::Cpu)?,
                        false => None,
                    };
                    let noise = &mut TorchCpu::new(3);
                    let go_on = |_: Step<'_>| ControlFlow::Continue(());
                    let mut conditioning = match guided {
                        true => Conditioning::guided(&unet, &states, 1)?,
                        false => Conditioning::unguided(&unet, &states, 1)?,
                    };
                    run(&mut conditioning, scheduler.as_mut(), options, start, noise, fused, go_on)
                };
                let (found, expected) = (denoised(true)?, denoised(false)?);
                assert_eq!(found.steps.len(), expected.steps.len());
                let norm = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
                let difference = norm(&(&found.latents - &expected.latents)?)? / norm(&expected.latents)?;
                // f32 rounding, amplified by the UNet.
                assert!(difference < 1e-4, "{kind}, guided {guided}, from {first_index}: {difference}");
            }
        }
        Ok(())
    }
}
