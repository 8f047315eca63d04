//! Euler.

use candle_core::Tensor;

use super::{
    FinalSigma, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SigmaInterpolation, SigmaSpacing,
    TimestepSpacing, at, divide, noise_schedule::linspace, sigmas,
};
use crate::Result;

/// Euler steps of the probability flow (Karras et al. 2022, algorithm 2 without churn,
/// <https://arxiv.org/abs/2206.00364>), on samples `x₀ + σ ε` whose noise is not scaled down with the signal.
#[derive(Debug, Clone)]
pub struct EulerDiscrete {
    prediction: PredictionType,
    /// Timesteps, descending; not whole numbers in general.
    timesteps: Vec<f64>,
    /// σ at each step, and after the last.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
}

impl EulerDiscrete {
    /// A run of `steps` steps.
    ///
    /// # Errors
    /// When there are no steps or more than training timesteps.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let mut timesteps: Vec<f64> = spacing
            .spread(steps, config.num_train_timesteps, config.steps_offset)?
            .into_iter()
            .rev()
            .map(|timestep| f64::from(timestep as f32))
            .collect();

        let schedule = NoiseSchedule::rescaled(config);
        let schedule = if config.rescale_betas_zero_snr { schedule.with_finite_sigmas() } else { schedule };
        let training = schedule.sigmas();
        let (smallest, largest) = match (training.first(), training.last()) {
            (Some(&first), Some(&last)) => (first, last),
            _ => return Err(config.error("num_train_timesteps", "is 0, expected at least 1")),
        };

        let run: Vec<f64> = match config.interpolation_type {
            SigmaInterpolation::Linear => {
                timesteps.iter().map(|&timestep| sigmas::interpolate(&training, timestep)).collect()
            }
            SigmaInterpolation::LogLinear => linspace(largest.ln().into(), smallest.ln().into(), steps + 1)
                .into_iter()
                .map(|logarithm| logarithm.exp().into())
                .collect(),
        };
        let max = config.sigma_max.or(run.first().copied());
        let min = config.sigma_min.or(run.last().copied());
        let (max, min) = (max.unwrap_or(largest.into()), min.unwrap_or(smallest.into()));
        let spaced = match config.sigma_spacing {
            SigmaSpacing::Timesteps => None,
            SigmaSpacing::Karras => Some(sigmas::karras(max, min, steps)),
            SigmaSpacing::Exponential => Some(sigmas::exponential(max, min, steps)),
        };
        let run = match spaced {
            None => run,
            Some(spaced) => {
                let logarithms: Vec<f32> = training.iter().map(|sigma| sigma.ln()).collect();
                timesteps = spaced
                    .iter()
                    .map(|&sigma| f64::from(sigmas::timestep_of(sigma, &logarithms) as f32))
                    .collect();
                spaced
            }
        };

        let last = match config.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => smallest,
        };
        let sigmas: Vec<f32> = run.into_iter().map(|sigma| sigma as f32).chain([last]).collect();
        if config.continuous_timesteps && config.prediction_type == PredictionType::Velocity {
            timesteps = sigmas.iter().take(steps).map(|sigma| f64::from(0.25 * sigma.ln())).collect();
        }
        let largest = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = match spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
            TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
        };
        Ok(Self { prediction: config.prediction_type, timesteps, sigmas, init_noise_sigma })
    }

    /// σ at each step, and after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }
}

impl Scheduler for EulerDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma.into()
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        let sigma = at(&self.sigmas, index)?;
        divide(sample, (sigma * sigma + 1.0).sqrt())
    }

    fn step(&mut self, model_output: &Tensor, index: usize, sample: &Tensor) -> Result<Tensor> {
        let sigma = at(&self.sigmas, index)?;
        let next_sigma = at(&self.sigmas, index + 1)?;
        // Where σ is in the thousands, the differences below lose digits, and how they round decides the result in the
        // fourth. So this is diffusers' order of operations, not the shortest.
        let clean = match self.prediction {
            PredictionType::Epsilon => (sample - (model_output * f64::from(sigma))?)?,
            PredictionType::Sample => model_output.clone(),
            PredictionType::Velocity => {
                let variance = sigma * sigma + 1.0;
                let output_scale = -sigma / variance.sqrt();
                ((model_output * f64::from(output_scale))? + divide(sample, variance)?)?
            }
        };
        // dx/dσ
        let derivative = divide(&(sample - clean)?, sigma)?;
        Ok((sample + (derivative * f64::from(next_sigma - sigma))?)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        Ok((original + (noise * f64::from(at(&self.sigmas, index)?))?)?)
    }
}
