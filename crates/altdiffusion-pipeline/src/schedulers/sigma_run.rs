//! Implements what σ-based schedulers share: samples are `x₀ + σ ε`, with noise that is not scaled down with the
//! signal (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>).

use candle_core::Tensor;

use super::{
    FinalSigma, NoiseSchedule, PredictionType, SchedulerConfig, SigmaInterpolation, SigmaSpacing, Steps,
    TimestepSpacing, at, divide, linspace::linspace, sigmas,
};
use crate::Result;

/// How a run's sigmas are computed. Each class takes some of it from its configuration and keeps these defaults for
/// the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct SigmaSettings {
    pub spacing: SigmaSpacing,
    pub interpolation: SigmaInterpolation,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub last: FinalSigma,
}

impl Default for SigmaSettings {
    fn default() -> Self {
        Self {
            spacing: SigmaSpacing::Timesteps,
            interpolation: SigmaInterpolation::Linear,
            min: None,
            max: None,
            last: FinalSigma::Zero,
        }
    }
}

/// The noise levels of a run.
#[derive(Debug, Clone)]
pub(super) struct SigmaRun {
    /// Timesteps, descending; in general not integers.
    pub timesteps: Vec<f64>,
    /// σ at each step and after the last.
    pub sigmas: Vec<f32>,
    /// The standard deviation of the initial sample.
    pub init_noise_sigma: f32,
}

impl SigmaRun {
    /// The run of `steps` through the noise levels of `schedule`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, or explicit timesteps are combined with a spacing of
    /// the sigmas.
    pub(super) fn new(
        config: &SchedulerConfig,
        schedule: &NoiseSchedule,
        settings: SigmaSettings,
        steps: &Steps,
    ) -> Result<Self> {
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let training = schedule.sigmas();
        let logarithms: Vec<f32> = training.iter().map(|sigma| sigma.ln()).collect();
        let timesteps_of = |sigmas: &[f64]| -> Vec<f64> {
            sigmas.iter().map(|&sigma| f64::from(sigmas::timestep_of(sigma, &logarithms) as f32)).collect()
        };
        let (timesteps, sigmas) = match steps {
            Steps::Sigmas(given) => {
                let sigmas: Vec<f64> = given.iter().take(steps.count()).map(|&sigma| sigma.into()).collect();
                (timesteps_of(&sigmas), given.clone())
            }
            Steps::Timesteps(_) | Steps::Count(_) => {
                let timesteps = timesteps(config, spacing, settings.spacing, steps)?;
                let count = timesteps.len();
                let ends = training.first().copied().zip(training.last().copied());
                let (smallest, largest) =
                    ends.ok_or_else(|| config.error("num_train_timesteps", "is 0, expected at least 1"))?;
                let run: Vec<f64> = match settings.interpolation {
                    SigmaInterpolation::Linear => {
                        timesteps.iter().map(|&timestep| sigmas::interpolate(&training, timestep)).collect()
                    }
                    SigmaInterpolation::LogLinear => {
                        linspace(largest.ln().into(), smallest.ln().into(), count + 1)
                            .into_iter()
                            .map(|logarithm| logarithm.exp().into())
                            .collect()
                    }
                };
                let max = settings.max.or(run.first().copied()).unwrap_or(largest.into());
                let min = settings.min.or(run.last().copied()).unwrap_or(smallest.into());
                let (timesteps, run) = match settings.spacing.spread(max, min, count) {
                    Some(spread) => (timesteps_of(&spread), spread),
                    None => (timesteps, run),
                };
                let last = match settings.last {
                    FinalSigma::Zero => 0.0,
                    FinalSigma::SigmaMin => smallest,
                };
                (timesteps, run.into_iter().map(|sigma| sigma as f32).chain([last]).collect())
            }
        };
        let largest = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = match spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        };
        Ok(Self { timesteps, sigmas, init_noise_sigma })
    }

    /// σ at `index`.
    pub(super) fn sigma(&self, index: usize) -> Result<f32> {
        at(&self.sigmas, index)
    }

    /// Scales a sample for the model at `index`.
    pub(super) fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        at(&self.timesteps, index)?;
        let sigma = self.sigma(index)?;
        divide(sample, (sigma * sigma + 1.0).sqrt())
    }

    /// Adds noise to a clean sample, at the level of `index`.
    pub(super) fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        Ok((original + (noise * f64::from(self.sigma(index)?))?)?)
    }
}

/// dx/dσ of the probability flow at σ, for a sample and its predicted clean sample.
pub(super) fn derivative(
    prediction: PredictionType,
    output: &Tensor,
    sample: &Tensor,
    sigma: f32,
) -> Result<Tensor> {
    divide(&(sample - prediction.clean_at_sigma(output, sample, sigma)?)?, sigma)
}

/// The timesteps of a run, descending.
fn timesteps(
    config: &SchedulerConfig,
    spacing: TimestepSpacing,
    sigma_spacing: SigmaSpacing,
    steps: &Steps,
) -> Result<Vec<f64>> {
    if let Steps::Timesteps(given) = steps {
        sigma_spacing.check_given_timesteps()?;
        return Ok(given.iter().map(|&timestep| timestep as f64).collect());
    }
    let spread = spacing.spread(steps.count(), config.num_train_timesteps, config.steps_offset)?;
    Ok(spread.into_iter().rev().map(|timestep| f64::from(timestep as f32)).collect())
}
