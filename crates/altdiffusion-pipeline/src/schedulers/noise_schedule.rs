//! Computes how much signal is left at each training timestep.

use candle_core::Tensor;

use super::{PredictionType, SchedulerConfig};
use crate::{Error, Result};

/// The noise levels of the training: at timestep t, a clean sample x₀ becomes `√ᾱ x₀ + √(1 − ᾱ) ε`, where ᾱ is the
/// product of `1 − β` up to t.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// The schedule that `config` describes, not rescaled to zero terminal SNR.
    pub fn new(config: &SchedulerConfig) -> Self {
        Self { alphas_cumprod: cumulative_product(&betas(config)) }
    }

    /// The schedule, rescaled if `config` says so (`rescale_betas_zero_snr`): algorithm 1 of Lin et al. 2023,
    /// <https://arxiv.org/abs/2305.08891>.
    pub(super) fn rescaled(config: &SchedulerConfig) -> Self {
        if config.rescale_betas_zero_snr {
            Self { alphas_cumprod: cumulative_product(&rescale_to_zero_snr(&betas(config))) }
        } else {
            Self::new(config)
        }
    }

    /// Like [`NoiseSchedule::rescaled`], with a finite σ everywhere, for schedulers that work in σ.
    pub(super) fn for_sigmas(config: &SchedulerConfig) -> Self {
        let schedule = Self::rescaled(config);
        if config.rescale_betas_zero_snr { schedule.with_finite_sigmas() } else { schedule }
    }

    /// ᾱ of every training timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The noise levels σ = √((1 − ᾱ) / ᾱ) of every training timestep, where the sample is `x₀ + σ ε`.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|alpha_bar| ((1.0 - alpha_bar) / alpha_bar).sqrt()).collect()
    }

    /// ᾱ of one timestep.
    ///
    /// # Errors
    /// If the training has no such timestep.
    pub(super) fn alpha_bar(&self, timestep: usize) -> Result<f32> {
        self.alphas_cumprod.get(timestep).copied().ok_or_else(|| {
            let length = self.alphas_cumprod.len();
            Error::option(
                "steps",
                format!(
                    "the schedule asks for timestep {timestep}, but the model knows those below {length}"
                ),
            )
        })
    }

    /// Checks that a noise-predicting model has some signal at each of these timesteps.
    ///
    /// # Errors
    /// If one of them has none.
    pub(super) fn check_signal(&self, config: &SchedulerConfig, timesteps: &[usize]) -> Result<()> {
        for &timestep in timesteps {
            if self.alpha_bar(timestep)? == 0.0 && config.prediction_type == PredictionType::Epsilon {
                return Err(config.error(
                    "prediction_type",
                    format!(
                        "is epsilon, but no signal is left at timestep {timestep} to predict from; expected \
                         v_prediction or sample, or rescale_betas_zero_snr false"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Leaves a little signal at the end, so that no σ is infinite: the smallest that f16 can hold, as in diffusers.
    fn with_finite_sigmas(mut self) -> Self {
        if let Some(last) = self.alphas_cumprod.last_mut() {
            *last = (-24f32).exp2();
        }
        self
    }

    /// Adds standard normal `noise` to `original`, at the level of `timestep`.
    ///
    /// # Errors
    /// If the training has no such timestep, or the shapes differ.
    pub fn add_noise(&self, original: &Tensor, noise: &Tensor, timestep: usize) -> Result<Tensor> {
        let alpha_bar = self.alpha_bar(timestep)?;
        let signal = (original * f64::from(alpha_bar.sqrt()))?;
        let noise = (noise * f64::from((1.0 - alpha_bar).sqrt()))?;
        Ok((signal + noise)?)
    }
}

fn betas(config: &SchedulerConfig) -> Vec<f32> {
    match &config.trained_betas {
        Some(betas) => betas.clone(),
        None => {
            let (start, end, schedule) = config.betas();
            schedule.betas(config.num_train_timesteps, start, end)
        }
    }
}

/// The running products of `1 − β`, kept in f64 as PyTorch does for an f32 tensor.
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    betas
        .iter()
        .scan(1f64, |product, beta| {
            *product *= f64::from(1.0 - beta);
            Some(*product as f32)
        })
        .collect()
}

/// Shifts and scales √ᾱ to end at zero and start where it did, and returns the betas.
fn rescale_to_zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let alphas_cumprod: Vec<f32> = roots
        .into_iter()
        .map(|root| {
            let root = (root - last) * scale;
            root * root
        })
        .collect();
    alphas_cumprod
        .iter()
        .take(1)
        .copied()
        .chain(alphas_cumprod.windows(2).map(|pair| pair[1] / pair[0]))
        .map(|alpha| 1.0 - alpha)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::BetaSchedule;
    use super::*;

    /// Values of `torch.linspace` and of Stable Diffusion's published schedule, printed by PyTorch.
    #[test]
    fn the_published_schedule() -> Result<()> {
        let config = SchedulerConfig::from_json(
            r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
                "beta_end": 0.012}"#,
            "scheduler_config.json",
        )?;
        let alphas = NoiseSchedule::new(&config);
        assert_eq!(alphas.alphas_cumprod().len(), 1000);
        assert_eq!(alphas.alpha_bar(0)?, 0.999_15);
        assert_eq!(alphas.alpha_bar(500)?, 0.276_332_47);
        assert_eq!(alphas.alpha_bar(999)?, 0.004_660_095);
        assert!(alphas.alpha_bar(1000).is_err());
        Ok(())
    }

    #[test]
    fn a_rescaled_schedule_ends_without_signal_and_starts_as_before() {
        let betas = BetaSchedule::ScaledLinear.betas(1000, 0.00085, 0.012);
        let before = cumulative_product(&betas);
        let after = cumulative_product(&rescale_to_zero_snr(&betas));
        assert_eq!(after.last(), Some(&0.0));
        assert!((after[0] - before[0]).abs() < 1e-6);
    }
}
