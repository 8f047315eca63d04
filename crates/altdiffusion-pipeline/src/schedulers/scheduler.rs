//! Steps from one noise level to the next: what every scheduler does.

use candle_core::Tensor;

use crate::Result;
use crate::random::Noise;

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
