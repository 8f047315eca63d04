//! Implements DDIM.

use candle_core::Tensor;

use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, TimestepSpacing, at,
    limit::Limit, noise_like,
};
use crate::Result;
use crate::random::Noise;

/// Denoising diffusion implicit models (Song et al. 2020, <https://arxiv.org/abs/2010.02502>): formula 12, with noise
/// by formula 16, scaled by η.
#[derive(Debug, Clone)]
pub struct Ddim {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    limit: Limit,
    /// Timesteps, descending.
    timesteps: Vec<usize>,
    /// The same, as passed to the model.
    model_timesteps: Vec<f64>,
    /// Training timesteps per step.
    stride: usize,
    /// ᾱ after the last step.
    final_alpha_bar: f32,
    /// The share of the noise that each step replaces.
    eta: f32,
}

impl Ddim {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, they are not given as a number, or the run would have
    /// to predict an image from pure noise (no signal at its first timestep, with epsilon prediction).
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::Ddim, config)?;
        let steps = steps.count();
        let schedule = NoiseSchedule::rescaled(config);
        let mut timesteps = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading).spread_whole(
            steps,
            config.num_train_timesteps,
            config.steps_offset,
        )?;
        timesteps.reverse();
        schedule.check_signal(config, &timesteps)?;
        let final_alpha_bar =
            if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { schedule.alpha_bar(0)? };
        Ok(Self {
            schedule,
            prediction: config.prediction_type,
            limit: config.limit(true),
            model_timesteps: timesteps.iter().map(|&timestep| timestep as f64).collect(),
            timesteps,
            stride: config.num_train_timesteps / steps,
            final_alpha_bar,
            eta: config.eta as f32,
        })
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.model_timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        at(&self.timesteps, index)?;
        Ok(sample.clone())
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor> {
        let timestep = at(&self.timesteps, index)?;
        let alpha_bar = self.schedule.alpha_bar(timestep)?;
        let next_alpha_bar = match timestep.checked_sub(self.stride) {
            Some(next) => self.schedule.alpha_bar(next)?,
            None => self.final_alpha_bar,
        };
        let variance = (1.0 - next_alpha_bar) / (1.0 - alpha_bar) * (1.0 - alpha_bar / next_alpha_bar);
        let deviation = self.eta * variance.sqrt();

        let (clean, epsilon) = self.prediction.clean_and_noise(model_output, sample, alpha_bar)?;
        let clean = self.limit.apply(&clean)?;
        let signal = (clean * f64::from(next_alpha_bar.sqrt()))?;
        let direction = (epsilon * f64::from((1.0 - next_alpha_bar - deviation * deviation).sqrt()))?;
        let next = (signal + direction)?;
        if self.eta > 0.0 {
            return Ok((next + (noise_like(noise, sample)? * f64::from(deviation))?)?);
        }
        Ok(next)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.schedule.add_noise(original, noise, at(&self.timesteps, index)?)
    }

    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        (self.limit == Limit::None && self.eta == 0.0).then(|| Box::new(self.clone()) as Box<dyn Scheduler>)
    }
}
