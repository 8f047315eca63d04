//! Defines the interface of a scheduler.

use candle_core::Tensor;

use crate::Result;
use crate::random::Noise;

/// One run through the noise levels, from pure noise to the image.
///
/// ```text
/// sample = noise · init_noise_sigma
/// for (index, t) in timesteps:
///     output = model(scale_model_input(sample, index), t)
///     sample = step(output, index, sample, noise)
/// ```
///
/// A run may start at a later index, with an image noised by [`Scheduler::add_noise`], but must then call `step` for
/// each index in order: multistep schedulers remember earlier outputs.
pub trait Scheduler: Send {
    /// The timestep to call the model with at each index. Schedulers that call the model more than once per step have
    /// more of them than requested steps.
    fn timesteps(&self) -> &[f64];

    /// The model calls of most steps. A run can start at a multiple of this.
    fn calls_per_step(&self) -> usize {
        1
    }

    /// The standard deviation of the initial sample.
    fn init_noise_sigma(&self) -> f64;

    /// Scales a sample for the model at `index`, keeping its shape.
    ///
    /// # Errors
    /// If the run has no such index.
    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor>;

    /// Takes the sample one step further. `model_output` and the unscaled `sample` have the same shape. A stochastic
    /// scheduler draws from `noise` exactly when diffusers does; others leave it alone.
    ///
    /// # Errors
    /// If the run has no such index, or the shapes differ.
    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor>;

    /// Adds standard normal `noise` to a clean sample, at the noise level of `index`.
    ///
    /// # Errors
    /// If the run has no such index, or the shapes differ.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor>;

    /// A copy of this run, if every step is a weighted sum of its samples and outputs with fixed weights: no noise,
    /// no clipping.
    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        None
    }
}
