//! Implements DDPM.

use candle_core::Tensor;

use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, TimestepSpacing,
    VarianceType, at, limit::Limit, noise_like,
};
use crate::Result;
use crate::random::Noise;

/// Denoising diffusion probabilistic models (Ho et al. 2020, <https://arxiv.org/abs/2006.11239>): algorithm 2, with
/// several timesteps per step.
#[derive(Debug, Clone)]
pub struct Ddpm {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    limit: Limit,
    variance: VarianceType,
    /// Timesteps, descending.
    timesteps: Vec<usize>,
    /// The same, as passed to the model.
    model_timesteps: Vec<f64>,
    /// The timestep after each step; `None` after the last.
    next: Vec<Option<usize>>,
}

impl Ddpm {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, or the run would have to predict an image from pure
    /// noise (no signal at its first timestep, with epsilon prediction).
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::Ddpm, config)?;
        let schedule = NoiseSchedule::rescaled(config);
        let (timesteps, next): (Vec<usize>, Vec<Option<usize>>) = match steps {
            Steps::Timesteps(given) => {
                let next = given.iter().skip(1).copied().map(Some).chain([None]);
                (given.clone(), next.collect())
            }
            _ => {
                let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading);
                let train = config.num_train_timesteps;
                let mut spread = spacing.spread_whole(steps.count(), train, config.steps_offset)?;
                spread.reverse();
                let stride = train / steps.count();
                let next = spread.iter().map(|timestep| timestep.checked_sub(stride)).collect();
                (spread, next)
            }
        };
        schedule.check_signal(config, &timesteps)?;
        Ok(Self {
            schedule,
            prediction: config.prediction_type,
            limit: config.limit(true),
            variance: config.variance_type,
            model_timesteps: timesteps.iter().map(|&timestep| timestep as f64).collect(),
            timesteps,
            next,
        })
    }
}

impl Scheduler for Ddpm {
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
        let next_alpha_bar = match at(&self.next, index)? {
            Some(next) => self.schedule.alpha_bar(next)?,
            None => 1.0,
        };
        let (beta_bar, next_beta_bar) = (1.0 - alpha_bar, 1.0 - next_alpha_bar);
        let alpha = alpha_bar / next_alpha_bar;
        let beta = 1.0 - alpha;

        let (clean, _) = self.prediction.clean_and_noise(model_output, sample, alpha_bar)?;
        let clean = self.limit.apply(&clean)?;
        let mean = ((clean * f64::from(next_alpha_bar.sqrt() * beta / beta_bar))?
            + (sample * f64::from(alpha.sqrt() * next_beta_bar / beta_bar))?)?;
        if timestep == 0 {
            return Ok(mean);
        }
        let posterior = (next_beta_bar / beta_bar * beta).max(SMALLEST_VARIANCE);
        let deviation = match self.variance {
            VarianceType::FixedSmall => posterior.sqrt(),
            VarianceType::FixedSmallLog => (0.5 * posterior.ln()).exp(),
            VarianceType::FixedLarge => beta.sqrt(),
        };
        Ok((mean + (noise_like(noise, sample)? * f64::from(deviation))?)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.schedule.add_noise(original, noise, at(&self.timesteps, index)?)
    }
}

/// diffusers' lower bound, so that the logarithm is finite.
const SMALLEST_VARIANCE: f32 = 1e-20;
