//! Runs all stages of a generation, from options to images.

use std::ops::ControlFlow;
use std::time::Duration;

use candle_core::Tensor;
use image::RgbImage;
use web_time::Instant;

use super::enlarge::check_scale;
use super::limits::MOST_IMAGES;
use super::model::AltDiffusion;
use crate::conditioning::Conditioning;
use crate::denoise::{DenoiseOptions, Denoised, denoise};
use crate::denoising_windows::DenoisingWindows;
use crate::options::GenerateOptions;
use crate::progress::{Progress, Step};
use crate::random::{BatchPosition, Noise};
use crate::schedulers::Scheduler;
use crate::{Error, Result};

/// The result of a generation.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The images, enlarged if asked for. Those flagged by the safety checker are black.
    pub images: Vec<RgbImage>,
    /// Whether each image was flagged, if the model has a safety checker.
    pub flagged: Option<Vec<bool>>,
    /// The latents before decoding, (images, channels, height, width), f32.
    pub latents: Tensor,
    /// How long each stage took.
    pub timings: Timings,
}

/// How long each stage took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timings {
    /// Encoding the prompts and projecting them for the UNet.
    pub text: Duration,
    /// Each call of the UNet, with the scheduler's step.
    pub steps: Vec<Duration>,
    /// Decoding the latents, and enlarging the images.
    pub decode: Duration,
    /// Everything, except loading the model.
    pub total: Duration,
}

impl AltDiffusion {
    /// Generates images.
    ///
    /// # Errors
    /// If an option cannot be honoured, or values become NaN or infinite on the way.
    pub fn generate(&self, options: &GenerateOptions) -> Result<Generated> {
        self.generate_with(options, |_| ControlFlow::Continue(()))
    }

    /// Like [`generate`](Self::generate), with a callback after each step, which may end the run.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`], if `on_step` breaks.
    pub fn generate_with(
        &self,
        options: &GenerateOptions,
        mut on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        self.generate_observed(options, |progress| match progress {
            Progress::Step(step) => on_step(step),
            Progress::Denoising { .. } | Progress::Decoding { .. } => ControlFlow::Continue(()),
        })
    }

    /// Like [`generate`](Self::generate), with a callback at every stage, which may end the run.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`], with the latents so far, if `on_progress` breaks or
    /// [`GenerateOptions::cancellation`] asks for the end.
    pub fn generate_observed(
        &self,
        options: &GenerateOptions,
        mut on_progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let start = Instant::now();
        // Options are checked before the work begins.
        let mut scheduler = self.build_scheduler(options)?;
        let denoise_options = checked_denoise_options(options)?;
        self.check_controls(options)?;
        self.check_image_prompts(options)?;
        check_scale(options.scale)?;
        let mut noise = self.noise(options)?;
        let run_start = self.start(options, scheduler.as_ref(), noise.as_mut())?;
        let total = scheduler.timesteps().len().saturating_sub(run_start.first_index);
        let cancelled = |error: Error| error.in_run(0, total, None);

        let texts = self.read_texts(options).map_err(cancelled)?;
        let denoiser = self.denoiser.model.get()?;
        let images_per_prompt = run_start.latents.dim(0)? / options.prompt_count();
        let conditioning = Conditioning::new(
            denoiser.as_ref().as_ref(),
            &texts,
            images_per_prompt,
            options.is_guided(),
            &options.image_prompts,
        )?;
        let mut conditioning =
            conditioning.with_controls(self.controls(options, &texts, images_per_prompt)?);
        self.device.synchronize()?;
        let text = start.elapsed();

        let mut go_on = |progress: Progress<'_>| match on_progress(progress) {
            ControlFlow::Continue(()) if options.cancellation.is_cancelled() => ControlFlow::Break(()),
            flow => flow,
        };
        if go_on(Progress::Denoising { steps: total }).is_break() {
            return Err(Error::Cancelled { completed: 0, total, latents: None });
        }
        let on_step = |step: Step<'_>| go_on(Progress::Step(step));
        let scheduler = scheduler.as_mut();
        let Denoised { latents, steps } =
            denoise(&mut conditioning, scheduler, denoise_options, run_start, noise.as_mut(), on_step)?;
        // Free its memory before the autoencoder is loaded.
        drop(conditioning);
        drop(denoiser);

        let decoding = Instant::now();
        let before_each = |image, images| match go_on(Progress::Decoding { image, images }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled { completed: total, total, latents: None }),
        };
        let images = self
            .decode_with(&latents, options.tiling, &options.cancellation, before_each)
            .map_err(|error| error.in_run(total, total, Some(&latents)))?;
        let (images, flagged) = self.enlarge_checked(images, options.scale)?;
        let timings = Timings { text, steps, decode: decoding.elapsed(), total: start.elapsed() };
        Ok(Generated { images, flagged, latents, timings })
    }

    /// The noise source of the run.
    fn noise(&self, options: &GenerateOptions) -> Result<Box<dyn Noise>> {
        let [count, ..] = self.latent_shape(options)?;
        let GenerateOptions { rng, seed, seeds, .. } = *options;
        if let Some(factory) = &options.noise_factory {
            return match options.batch_position {
                None => factory.build(count),
                Some(_) => Err(Error::option(
                    "batch position",
                    "cannot be chosen, because the noise of the run is the caller's own: expected none",
                )),
            };
        }
        let Some(position) = options.batch_position else { return Ok(seeds.noise(rng, seed, count)) };
        let BatchPosition { index, images } = position;
        if count != 1 || index >= images || images > MOST_IMAGES {
            let problem = format!(
                "{index} of {images} for {count} images; expected one image, and a position below the number in the \
                 batch, which is at most {MOST_IMAGES}"
            );
            return Err(Error::option("batch position", problem));
        }
        Ok(seeds.noise_at(rng, seed, position))
    }

    /// The scheduler of the run: the caller's, or the model's as changed by the options.
    fn build_scheduler(&self, options: &GenerateOptions) -> Result<Box<dyn Scheduler>> {
        let of_model = self.scheduler_factory.as_ref().filter(|_| options.scheduler.is_none());
        if let Some(factory) = options.scheduler_factory.as_ref().or(of_model) {
            for (option, is_set) in [
                ("scheduler", options.scheduler.is_some()),
                ("sigma spacing", options.sigma_spacing.is_some()),
                ("timestep spacing", options.timestep_spacing.is_some()),
                ("eta", options.eta != 0.0),
            ] {
                if is_set {
                    let problem = "cannot be set here, because the scheduler of the run is the caller's own: \
                                   expected it to be set there";
                    return Err(Error::option(option, problem));
                }
            }
            let scheduler = factory.build(&options.steps)?;
            return match scheduler.timesteps() {
                [] => Err(Error::option("scheduler", "has no timesteps, expected at least one")),
                _ => Ok(scheduler),
            };
        }
        let mut config = self.scheduler.clone();
        if let Some(kind) = options.scheduler {
            config = config.with_kind(kind);
        }
        if let Some(spacing) = options.sigma_spacing {
            config = config.with_sigma_spacing(spacing)?;
        }
        if let Some(spacing) = options.timestep_spacing {
            config = config.with_timestep_spacing(spacing)?;
        }
        config.with_eta(options.eta)?.build_for(&options.steps)
    }
}

/// Guidance and windows, after checking them.
fn checked_denoise_options(options: &GenerateOptions) -> Result<DenoiseOptions> {
    let guidance = options.guidance;
    if !guidance.scale.is_finite() {
        let problem = format!("{}, expected a number", guidance.scale);
        return Err(Error::option("guidance scale", problem));
    }
    if !(0.0..=1.0).contains(&guidance.rescale) {
        let problem = format!("{}, expected a number from 0 to 1", guidance.rescale);
        return Err(Error::option("guidance rescale", problem));
    }
    let windows = options.windows;
    windows.iter().try_for_each(DenoisingWindows::check)?;
    if windows.is_some() && !options.controls.is_empty() {
        let problem =
            "cannot be used with a control image, which is followed as a whole; leave one of them out";
        return Err(Error::option("denoising windows", problem));
    }
    Ok(DenoiseOptions { guidance, windows })
}
