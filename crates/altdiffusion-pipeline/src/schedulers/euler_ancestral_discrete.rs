//! Implements the ancestral Euler method.

use candle_core::Tensor;

use super::sigma_run::{SigmaRun, SigmaSettings, derivative};
use super::{NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, noise_like};
use crate::Result;
use crate::random::Noise;

/// Euler steps that go below the next σ, and back up to it with new noise (the ancestral sampler of k-diffusion,
/// <https://github.com/crowsonkb/k-diffusion>).
#[derive(Debug, Clone)]
pub struct EulerAncestralDiscrete {
    prediction: PredictionType,
    run: SigmaRun,
}

impl EulerAncestralDiscrete {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, they are not given as a number, or the model predicts
    /// samples.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::EulerAncestralDiscrete, config)?;
        if config.prediction_type == PredictionType::Sample {
            return Err(config.error(
                "prediction_type",
                "is sample, but ancestral Euler runs only with epsilon or v_prediction",
            ));
        }
        let schedule = NoiseSchedule::for_sigmas(config);
        let settings = SigmaSettings { spacing: config.known_sigma_spacing(), ..SigmaSettings::default() };
        let run = SigmaRun::new(config, &schedule, settings, steps)?;
        Ok(Self { prediction: config.prediction_type, run })
    }
}

impl Scheduler for EulerAncestralDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.run.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.run.init_noise_sigma.into()
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        self.run.scale_model_input(sample, index)
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor> {
        let (sigma, next_sigma) = (self.run.sigma(index)?, self.run.sigma(index + 1)?);
        let (variance, next_variance) = (sigma * sigma, next_sigma * next_sigma);
        // The variance at the next σ is the sum of what remains and what is new.
        let new_sigma = (next_variance * (variance - next_variance) / variance).sqrt();
        // For a large σ, rounding makes the rest negative, and the reference returns NaN.
        let left_sigma = (next_variance - new_sigma * new_sigma).max(0.0).sqrt();
        let derivative = derivative(self.prediction, model_output, sample, sigma)?;
        let left = (sample + (derivative * f64::from(left_sigma - sigma))?)?;
        // The last step needs no noise, but diffusers draws it, and the generator must end in the same state.
        Ok((left + (noise_like(noise, sample)? * f64::from(new_sigma))?)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }
}
