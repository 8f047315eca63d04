//! How the steps from noise to picture are taken.

use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::random::Rng;
use altdiffusion_pipeline::schedulers::{SchedulerKind, SigmaSpacing, Steps, TimestepSpacing};
use clap::Args;

use crate::option_values;

/// The options that few need.
#[derive(Debug, Args)]
#[command(next_help_heading = "Way of drawing")]
pub struct Sampling {
    /// The way to step. By default, what the model names.
    ///
    /// One of ddpm, ddim, pndm, lms, heun, euler, euler-a, dpm++-2m, dpm++-2m-sde, dpm++-s, unipc and lcm. With ddpm,
    /// euler-a, dpm++-2m-sde and lcm each step adds noise; heun calls the model twice in a step; lcm is for models that
    /// were distilled to it.
    #[arg(long, value_name = "NAME", value_parser = option_values::scheduler)]
    pub scheduler: Option<SchedulerKind>,

    /// Spread the noise levels as Karras and others propose: the same as --sigma-spacing karras.
    #[arg(long, conflicts_with = "sigma_spacing")]
    karras: bool,

    /// How the noise levels are spread: timesteps, karras, exponential, beta or lu.
    ///
    /// For lms, heun, euler, dpm++-2m, dpm++-2m-sde, dpm++-s and unipc; lu for dpm++-2m and dpm++-2m-sde.
    #[arg(long, value_name = "NAME", value_parser = option_values::sigma_spacing)]
    sigma_spacing: Option<SigmaSpacing>,

    /// How the steps are spread over the timesteps of the training: leading, trailing or linspace.
    #[arg(long, value_name = "NAME", value_parser = option_values::timestep_spacing)]
    timestep_spacing: Option<TimestepSpacing>,

    /// Step from each of these timesteps to the next, such as 999,850,700,400, in place of a number of steps.
    ///
    /// For ddpm, heun, euler, dpm++-2m, dpm++-2m-sde, dpm++-s and lcm.
    #[arg(
        long,
        value_name = "N,N,…",
        value_parser = option_values::timestep,
        value_delimiter = ',',
        conflicts_with_all = ["steps", "sigma_spacing", "karras", "timestep_spacing"]
    )]
    timesteps: Option<Vec<usize>>,

    /// Step from each of these noise levels to the next, such as 14.6,5,1,0, in place of a number of steps. For euler.
    #[arg(
        long,
        value_name = "X,X,…",
        value_parser = option_values::sigma,
        value_delimiter = ',',
        conflicts_with_all = ["steps", "timesteps", "sigma_spacing", "karras"]
    )]
    sigmas: Option<Vec<f32>>,

    /// How much of the noise ddim replaces by new one in each step: from 0, nothing, to 1, as much as ddpm.
    #[arg(
        long,
        value_name = "X",
        value_parser = option_values::part,
        default_value = "0",
        allow_negative_numbers = true
    )]
    eta: f64,

    /// How much of the harsh contrast that guidance brings to take back: from 0, nothing, to 1.
    ///
    /// About 0.7 is right for models that predict velocities.
    #[arg(
        long,
        value_name = "X",
        value_parser = option_values::part,
        default_value = "0",
        allow_negative_numbers = true
    )]
    guidance_rescale: f64,

    /// Whose noise a seed stands for: that of PyTorch on the cpu, or on cuda devices.
    ///
    /// It is the same noise wherever it is drawn: with `cuda` a seed found on a GPU works without one.
    #[arg(long, value_name = "NAME", value_parser = option_values::rng, default_value = "cpu")]
    rng: Rng,
}

impl Sampling {
    /// `options` with these.
    pub fn apply(&self, mut options: GenerateOptions) -> GenerateOptions {
        options = options.rng(self.rng).eta(self.eta).guidance_rescale(self.guidance_rescale);
        if let Some(scheduler) = self.scheduler {
            options = options.scheduler(scheduler);
        }
        if let Some(spacing) = self.spacing() {
            options = options.sigma_spacing(spacing);
        }
        if let Some(spacing) = self.timestep_spacing {
            options = options.timestep_spacing(spacing);
        }
        if let Some(timesteps) = &self.timesteps {
            options = options.at_steps(Steps::Timesteps(timesteps.clone()));
        }
        if let Some(sigmas) = &self.sigmas {
            options = options.at_steps(Steps::Sigmas(sigmas.clone()));
        }
        options
    }

    /// How the noise levels are spread, if not as the model would have it.
    pub fn spacing(&self) -> Option<SigmaSpacing> {
        self.sigma_spacing.or(self.karras.then_some(SigmaSpacing::Karras))
    }

    /// How many steps a list of them has, if there is one.
    pub fn listed_steps(&self) -> Option<usize> {
        let sigmas = self.sigmas.as_ref().map(|sigmas| sigmas.len() - 1);
        self.timesteps.as_ref().map(Vec::len).or(sigmas)
    }
}
