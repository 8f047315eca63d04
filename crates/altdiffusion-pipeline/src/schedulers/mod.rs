//! Schedulers: which noise levels an image passes on its way out of the noise, and how it steps between them.
//!
//! A [`SchedulerConfig`] is read once from the `scheduler_config.json` of a checkpoint and holds what every scheduler
//! shares: the betas of the training and the way to pick timesteps. [`SchedulerConfig::build`] makes of it a fresh
//! [`Scheduler`] for one run of a given number of steps.
//!
//! The schedules are those of diffusers 0.31, computed in the same precision (tables in f32 with a running product in
//! f64, as PyTorch computes them), so that trajectories agree and not only their ends.

mod beta_quantile;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver;
mod dpm_solver_multistep;
mod dpm_solver_singlestep;
mod euler_ancestral_discrete;
mod euler_discrete;
mod fields;
mod heun_discrete;
mod kind;
mod lcm;
mod limit;
mod linear;
mod lms_discrete;
mod noise_schedule;
mod pndm;
mod prediction;
mod sigma_run;
mod sigmas;
mod solver_run;
mod steps;
mod timesteps;
mod uni_pc_multistep;

use candle_core::Tensor;

pub use config::SchedulerConfig;
pub use ddim::Ddim;
pub use ddpm::{Ddpm, VarianceType};
pub use dpm_solver::{Algorithm, SolverType};
pub use dpm_solver_multistep::DpmSolverMultistep;
pub use dpm_solver_singlestep::DpmSolverSinglestep;
pub use euler_ancestral_discrete::EulerAncestralDiscrete;
pub use euler_discrete::EulerDiscrete;
pub use heun_discrete::HeunDiscrete;
pub use kind::SchedulerKind;
pub use lcm::Lcm;
pub(crate) use linear::{LinearUpdate, Term, linear_updates};
pub use lms_discrete::LmsDiscrete;
pub use noise_schedule::{BetaSchedule, NoiseSchedule};
pub use pndm::Pndm;
pub use prediction::PredictionType;
pub use sigmas::{FinalSigma, SigmaInterpolation, SigmaSpacing};
pub use steps::Steps;
pub use timesteps::TimestepSpacing;
pub use uni_pc_multistep::UniPcMultistep;

use crate::random::Noise;
use crate::{Error, Result};

/// One run through the noise levels, from the noisiest to the image.
///
/// ```text
/// sample = noise · init_noise_sigma
/// for (index, t) in timesteps:
///     output = model(scale_model_input(sample, index), t)
///     sample = step(output, index, sample, noise)
/// ```
///
/// A run may start at a later index (an image as the starting point, noised by [`Scheduler::add_noise`]), but must
/// then call `step` once for each index, in order: multistep schedulers remember the outputs before.
pub trait Scheduler: Send {
    /// The timestep that the model is called with at each index. A scheduler that calls the model more than once for
    /// a step has more of them than steps were asked for.
    fn timesteps(&self) -> &[f64];

    /// How often the model is called in most steps: a run that starts later does so at a multiple of this.
    fn calls_per_step(&self) -> usize {
        1
    }

    /// The standard deviation of the sample that the run starts from.
    fn init_noise_sigma(&self) -> f64;

    /// The sample as the model wants to see it at `index`, of the same shape.
    ///
    /// # Errors
    /// When the run has no such index.
    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor>;

    /// The sample one step nearer to the image. `model_output` and `sample` have one shape, any; `sample` is the
    /// unscaled one. What a stochastic scheduler adds is drawn from `noise`, when and as often as diffusers draws it;
    /// the others leave it alone.
    ///
    /// # Errors
    /// When the run has no such index, or the shapes differ.
    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor>;

    /// A clean sample brought to the noise level that the run has at `index`; `noise` is standard normal.
    ///
    /// # Errors
    /// When the run has no such index, or the shapes differ.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor>;

    /// A copy of this run, if each of its steps is a sum of the samples and the outputs that it is given, with weights that
    /// do not depend on them: it adds no noise and cuts nothing off.
    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        None
    }
}

/// The entry of `table` at `index` of a run.
fn at<T: Copy>(table: &[T], index: usize) -> Result<T> {
    table.get(index).copied().ok_or_else(|| {
        let length = table.len();
        Error::option("step index", format!("{index} is past the end of the schedule of {length} entries"))
    })
}

/// `tensor / divisor`, rounded once; candle's division by a number multiplies by its rounded reciprocal. Where a
/// schedule starts with hardly any signal, such a difference grows to one that shows.
fn divide(tensor: &Tensor, divisor: f32) -> Result<Tensor> {
    let divisor = Tensor::new(divisor, tensor.device())?.to_dtype(tensor.dtype())?;
    Ok(tensor.broadcast_div(&divisor)?)
}

/// The next noise for `sample`, in its shape and type and where it is.
fn noise_like(noise: &mut dyn Noise, sample: &Tensor) -> Result<Tensor> {
    Ok(noise.normal(sample.dims())?.to_dtype(sample.dtype())?.to_device(sample.device())?)
}
