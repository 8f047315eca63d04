//! Parses the options of the sampling steps.

use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::image_metadata::ParameterFields;
use altdiffusion_pipeline::random::Rng;
use altdiffusion_pipeline::schedulers::{Sampler, SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use clap::Args;

use crate::option_values;

/// Sampling options for experts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// The scheduler. By default the one that the model names.
    ///
    /// One of ddpm, ddim, pndm, lms, heun, euler, euler-a, dpm++-2m, dpm++-2m-sde, dpm++-s, unipc and lcm. With ddpm,
    /// euler-a, dpm++-2m-sde and lcm each step adds noise; heun calls the model twice in a step; lcm is for models that
    /// were distilled to it.
    // Other programs call this a sampler, and the spacing of noise levels a scheduler.
    #[arg(long, aliases = ["sampler", "sampler-name", "sampling-method"], value_name = "NAME", value_parser = option_values::samplers(), hide_possible_values = true)]
    scheduler: Vec<Sampler>,

    /// Use the noise levels of Karras et al.: the same as --sigma-spacing karras.
    #[arg(long, conflicts_with = "sigma_spacing", hide_short_help = true)]
    karras: bool,

    /// How noise levels are spaced: timesteps, karras, exponential, beta or lu.
    ///
    /// For lms, heun, euler, euler-a, dpm++-2m, dpm++-2m-sde, dpm++-s and unipc; lu for dpm++-2m and dpm++-2m-sde.
    #[arg(long, aliases = ["schedule", "schedule-type"], value_name = "NAME", value_parser = option_values::sigma_spacings(), hide_possible_values = true, hide_short_help = true)]
    sigma_spacing: Option<SigmaSpacing>,

    /// How steps are spaced over the training timesteps: leading, trailing or linspace.
    #[arg(long, value_name = "NAME", value_parser = option_values::timestep_spacings(), hide_possible_values = true, hide_short_help = true)]
    timestep_spacing: Option<TimestepSpacing>,

    /// Timesteps to visit, such as 999,850,700,400, instead of a number of steps.
    ///
    /// For ddpm, heun, euler, dpm++-2m, dpm++-2m-sde, dpm++-s and lcm.
    #[arg(
        long,
        value_name = "N,N,…",
        value_parser = option_values::timestep,
        value_delimiter = ',',
        conflicts_with_all = ["steps", "sigma_spacing", "karras", "timestep_spacing"], hide_short_help = true)]
    timesteps: Option<Vec<usize>>,

    /// Noise levels to visit, such as 14.6,5,1,0, instead of a number of steps. For euler.
    #[arg(
        long,
        value_name = "X,X,…",
        value_parser = option_values::sigma,
        value_delimiter = ',',
        conflicts_with_all = ["steps", "timesteps", "sigma_spacing", "karras"], hide_short_help = true)]
    sigmas: Option<Vec<f32>>,

    /// How much noise ddim adds in each step, from 0 (none) to 1 (as much as ddpm). By default 0.
    #[arg(long, value_name = "X", value_parser = option_values::part, allow_negative_numbers = true, hide_short_help = true)]
    eta: Option<f64>,

    /// How much to soften the contrast that guidance causes, from 0 (not at all) to 1. By default 0.
    ///
    /// About 0.7 suits models that predict velocities.
    #[arg(long, value_name = "X", value_parser = option_values::part, allow_negative_numbers = true, hide_short_help = true)]
    guidance_rescale: Option<f64>,

    /// Generate noise like PyTorch on this kind of device: cpu or cuda. By default cpu.
    ///
    /// The noise is the same wherever it is drawn: with cuda, a seed found on a GPU works without one.
    #[arg(long, value_name = "NAME", value_parser = option_values::rngs(), hide_possible_values = true, hide_short_help = true)]
    rng: Option<Rng>,
}

impl Sampling {
    /// Adds these options to `options`.
    pub fn apply(&self, mut options: GenerateOptions) -> GenerateOptions {
        options = options.rng(self.rng.unwrap_or_default()).eta(self.eta.unwrap_or_default());
        options = options.guidance_rescale(self.guidance_rescale.unwrap_or_default());
        if let Some(scheduler) = self.scheduler() {
            options = options.scheduler(scheduler);
        }
        if let Some(spacing) = self.spacing() {
            options = options.sigma_spacing(spacing);
        }
        if let Some(spacing) = self.timestep_spacing {
            options = options.timestep_spacing(spacing);
        }
        if let Some(timesteps) = &self.timesteps {
            options = options.steps(Steps::Timesteps(timesteps.clone()));
        }
        if let Some(sigmas) = &self.sigmas {
            options = options.steps(Steps::Sigmas(sigmas.clone()));
        }
        options
    }

    /// The spacing of noise levels, if not the model's.
    pub fn spacing(&self) -> Option<SigmaSpacing> {
        let named = || self.scheduler.iter().rev().find_map(|sampler| sampler.spacing);
        self.sigma_spacing.or(self.karras.then_some(SigmaSpacing::Karras)).or_else(named)
    }

    /// The scheduler, if not the model's; the last one wins.
    pub fn scheduler(&self) -> Option<SchedulerKind> {
        self.scheduler.iter().rev().find_map(|sampler| sampler.kind)
    }

    /// Records the sampler with web interfaces' names; `kind` is the one that runs.
    pub fn record_sampler(&self, kind: SchedulerKind, fields: &mut ParameterFields) {
        fields.add("Sampler", kind.sampler_name());
        fields.add_some("Schedule type", self.spacing().map(SigmaSpacing::recorded_name));
        // The model's own scheduler may have settings that its name does not include.
        fields.add_some("Scheduler", self.scheduler().is_none().then_some("of the model"));
    }

    /// Records the other options.
    pub fn record(&self, fields: &mut ParameterFields) {
        let Self {
            // Recorded by `record_sampler`.
            scheduler: _,
            karras: _,
            sigma_spacing: _,
            timestep_spacing,
            timesteps,
            sigmas,
            eta,
            guidance_rescale,
            rng,
        } = self;
        fields.add("RNG", rng.unwrap_or_default().recorded_name());
        fields.add_some("Timestep spacing", timestep_spacing.map(TimestepSpacing::name));
        fields.add_some("Timesteps", timesteps.as_deref().map(list));
        fields.add_some("Sigmas", sigmas.as_deref().map(list));
        fields.add_some("Eta", eta.filter(|eta| *eta != 0.0));
        fields.add_some("Guidance rescale", guidance_rescale.filter(|rescale| *rescale != 0.0));
    }

    /// These options, with those of an image as the default; all of them except noise and guidance belong to the
    /// scheduler. `steps` says whether a number of steps is given.
    pub fn or(self, image: Self, steps: bool) -> Self {
        let is_other = self.scheduler().is_some();
        let is_spread = self.spacing().is_some();
        let has_list = self.timesteps.is_some() || self.sigmas.is_some();
        let image_lists = !(is_other || steps || has_list || is_spread);
        Self {
            karras: self.karras || (image.karras && !is_other && !is_spread),
            sigma_spacing: self
                .sigma_spacing
                .or(image.spacing().filter(|_| !is_other && !is_spread && !has_list)),
            scheduler: if is_other { self.scheduler } else { [image.scheduler, self.scheduler].concat() },
            timestep_spacing: self
                .timestep_spacing
                .or(image.timestep_spacing.filter(|_| !is_other && !has_list)),
            timesteps: self.timesteps.or(image.timesteps.filter(|_| image_lists)),
            sigmas: self.sigmas.or(image.sigmas.filter(|_| image_lists)),
            eta: self.eta.or(image.eta.filter(|_| !is_other)),
            guidance_rescale: self.guidance_rescale.or(image.guidance_rescale),
            rng: self.rng.or(image.rng),
        }
    }

    /// The number of explicit timesteps or sigmas, if given.
    pub fn listed_steps(&self) -> Option<usize> {
        let sigmas = self.sigmas.as_ref().map(|sigmas| sigmas.len() - 1);
        self.timesteps.as_ref().map(Vec::len).or(sigmas)
    }
}

fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
