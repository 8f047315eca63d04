//! Implements the Euler method.

use candle_core::Tensor;

use super::sigma_run::{SigmaRun, SigmaSettings, derivative};
use super::{NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps};
use crate::random::Noise;
use crate::{Error, Result};

/// Euler steps along the probability flow (Karras et al. 2022, algorithm 2 without churn,
/// <https://arxiv.org/abs/2206.00364>).
#[derive(Debug, Clone)]
pub struct EulerDiscrete {
    prediction: PredictionType,
    run: SigmaRun,
}

impl EulerDiscrete {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, or timesteps are given for a model that takes σ
    /// instead, or with a spacing of the sigmas.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::EulerDiscrete, config)?;
        let continuous = config.continuous_timesteps && config.prediction_type == PredictionType::Velocity;
        if continuous && matches!(steps, Steps::Timesteps(_)) {
            let problem =
                "the model knows noise levels by their sigmas; expected a number of steps, or sigmas";
            return Err(Error::option("timesteps", problem));
        }
        let settings = SigmaSettings {
            spacing: config.known_sigma_spacing(),
            interpolation: config.interpolation_type,
            min: config.sigma_min,
            max: config.sigma_max,
            last: config.final_sigmas_type,
        };
        let mut run = SigmaRun::new(config, &NoiseSchedule::for_sigmas(config), settings, steps)?;
        if continuous {
            run.timesteps = run
                .sigmas
                .iter()
                .take(run.timesteps.len())
                .map(|sigma| f64::from(0.25 * sigma.ln()))
                .collect();
        }
        Ok(Self { prediction: config.prediction_type, run })
    }

    /// σ at each step and after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.run.sigmas
    }
}

impl Scheduler for EulerDiscrete {
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
        _: &mut dyn Noise,
    ) -> Result<Tensor> {
        let (sigma, next_sigma) = (self.run.sigma(index)?, self.run.sigma(index + 1)?);
        let derivative = derivative(self.prediction, model_output, sample, sigma)?;
        Ok((sample + (derivative * f64::from(next_sigma - sigma))?)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }

    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }
}
