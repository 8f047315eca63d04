//! Schedulers: which noise levels a picture passes on its way out of the noise, and how it steps between them.
//!
//! A [`SchedulerConfig`] is read once from the `scheduler_config.json` of a checkpoint and holds what every scheduler
//! shares: the betas of the training and the way to pick timesteps. [`SchedulerConfig::build`] makes of it a fresh
//! [`Scheduler`] for one run of a given number of steps.
//!
//! The schedules are those of diffusers 0.31, computed in the same precision (tables in f32 with a running product in
//! f64, as PyTorch computes them), so that trajectories agree and not only their ends.

mod config;
mod ddim;
mod euler_discrete;
mod limit;
mod noise_schedule;
mod pndm;
mod prediction;
mod sigmas;
mod timesteps;

use std::{fmt, str::FromStr};

use candle_core::Tensor;

pub use config::SchedulerConfig;
pub use ddim::Ddim;
pub use euler_discrete::EulerDiscrete;
pub use noise_schedule::{BetaSchedule, NoiseSchedule};
pub use pndm::Pndm;
pub use prediction::PredictionType;
pub use sigmas::{FinalSigma, SigmaInterpolation, SigmaSpacing};
pub use timesteps::TimestepSpacing;

use crate::{Error, Result};

/// One run through the noise levels, from the noisiest to the picture.
///
/// ```text
/// sample = noise · init_noise_sigma
/// for (index, t) in timesteps:
///     output = model(scale_model_input(sample, index), t)
///     sample = step(output, index, sample)
/// ```
///
/// A run may start at a later index (a picture as the starting point, noised by [`Scheduler::add_noise`]), but must
/// then call `step` once for each index, in order: multistep schedulers remember the outputs before.
pub trait Scheduler: Send {
    /// The timestep that the model is called with at each index. A scheduler that calls the model more than once for
    /// a step has more of them than steps were asked for.
    fn timesteps(&self) -> &[f64];

    /// The standard deviation of the sample that the run starts from.
    fn init_noise_sigma(&self) -> f64;

    /// The sample as the model wants to see it at `index`, of the same shape.
    ///
    /// # Errors
    /// When the run has no such index.
    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor>;

    /// The sample one step nearer to the picture. `model_output` and `sample` have one shape, any; `sample` is the
    /// unscaled one.
    ///
    /// # Errors
    /// When the run has no such index, or the shapes differ.
    fn step(&mut self, model_output: &Tensor, index: usize, sample: &Tensor) -> Result<Tensor>;

    /// A clean sample brought to the noise level that the run has at `index`; `noise` is standard normal.
    ///
    /// # Errors
    /// When the run has no such index, or the shapes differ.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor>;
}

/// The schedulers that this crate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// [`Ddim`]: denoising diffusion implicit models, without added noise.
    Ddim,
    /// [`Pndm`]: pseudo numerical methods, with or without Runge-Kutta steps at the start.
    Pndm,
    /// [`EulerDiscrete`]: Euler steps of the probability flow in terms of sigma.
    EulerDiscrete,
}

impl SchedulerKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Ddim, Self::Pndm, Self::EulerDiscrete];

    /// The short name, as a user gives it: `ddim`, `pndm`, `euler`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::EulerDiscrete => "euler",
        }
    }

    /// The name in the `_class_name` of a `scheduler_config.json`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::EulerDiscrete => "EulerDiscreteScheduler",
        }
    }

    /// The kind with this `_class_name`, if it is a known one.
    pub fn from_class_name(class_name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.class_name() == class_name)
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::option("scheduler", format!("{name:?} is not known; expected one of {known}"))
        })
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
