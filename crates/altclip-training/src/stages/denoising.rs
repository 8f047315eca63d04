//! Computes the loss of every diffusion stage: the error of the UNet's prediction for noised latents (Ho et al.,
//! arXiv 2006.11239; Salimans & Ho, arXiv 2202.00512 for velocities).

use crate::error::Result;
use altdiffusion_pipeline::schedulers::{NoiseSchedule, PredictionType, SchedulerConfig};
use altdiffusion_pipeline::unet::{CrossAttentionContext, UNet2DConditionModel};
use candle_core::Tensor;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

/// How latents are noised, and how errors are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseSettings {
    /// The largest weight of a timestep in units of its signal-to-noise ratio (Hang et al., arXiv 2303.09556);
    /// without it all timesteps have the same weight.
    pub min_snr_gamma: Option<f64>,
    /// Above 1, noisy timesteps are drawn more often: a uniform `u` becomes `shift · u / (1 + (shift − 1) · u)`
    /// (Esser et al., arXiv 2403.03206, section 5.3.2).
    pub timestep_shift: f64,
    /// The standard deviation of noise that is constant over each channel, which lets a model learn images darker or
    /// brighter than average (Guttenberg, "Diffusion with Offset Noise", 2023).
    pub offset_noise: f64,
}

impl Default for NoiseSettings {
    fn default() -> Self {
        Self { min_snr_gamma: None, timestep_shift: 1., offset_noise: 0. }
    }
}

/// The noise levels that a UNet is trained for, and what it predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct DenoisingLoss {
    /// ᾱ of every timestep.
    alphas_cumprod: Vec<f32>,
    prediction: PredictionType,
    settings: NoiseSettings,
}

/// Noised latents, with the target of a prediction for them.
pub struct NoisedLatents {
    /// (n, channels, height, width)
    noisy: Tensor,
    /// The UNet's target, of the same shape.
    target: Tensor,
    /// (n)
    timesteps: Tensor,
    /// (n, 1, 1, 1); each image's weight.
    weights: Tensor,
}

impl DenoisingLoss {
    /// For a scheduler's noise levels and prediction type.
    pub fn new(scheduler: &SchedulerConfig, settings: NoiseSettings) -> Self {
        Self {
            alphas_cumprod: NoiseSchedule::new(scheduler).alphas_cumprod().to_vec(),
            prediction: scheduler.prediction_type,
            settings,
        }
    }

    /// Draws noise and a timestep for each of the scaled latents (n, channels, height, width).
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn draw(&self, rng: &mut ChaCha8Rng, latents: &Tensor) -> Result<(Tensor, Vec<usize>)> {
        let (n, channels, _, _) = latents.dims4()?;
        // One timestep from each of n ranges of equal weight: every batch covers all noise levels, which reduces the
        // variance of the gradient (Kingma et al., arXiv 2107.00630, appendix I).
        let offset = rng.random::<f64>();
        let count = self.alphas_cumprod.len();
        let timestep = |i: usize| {
            let even = (i as f64 + offset) / n as f64;
            let shifted =
                self.settings.timestep_shift * even / (1. + (self.settings.timestep_shift - 1.) * even);
            ((shifted * count as f64) as usize).min(count.saturating_sub(1))
        };
        let timesteps: Vec<usize> = (0..n).map(timestep).collect();
        let mut normal = |shape: &[usize]| -> candle_core::Result<Tensor> {
            let values: Vec<f32> = rng.sample_iter(StandardNormal).take(shape.iter().product()).collect();
            Tensor::from_vec(values, shape, latents.device())
        };
        let mut noise = normal(latents.dims())?;
        if self.settings.offset_noise > 0. {
            noise = noise.broadcast_add(&(normal(&[n, channels, 1, 1])? * self.settings.offset_noise)?)?;
        }
        Ok((noise, timesteps))
    }

    /// Adds noise to latents of the same shape (n, channels, height, width), each at its timestep.
    ///
    /// # Errors
    /// If a tensor operation fails, or there is no such timestep.
    pub fn noised(&self, latents: &Tensor, noise: &Tensor, timesteps: &[usize]) -> Result<NoisedLatents> {
        let device = latents.device();
        let alphas = timesteps
            .iter()
            .map(|&t| self.alphas_cumprod.get(t).map(|&alpha| f64::from(alpha)))
            .collect::<Option<Vec<f64>>>()
            .ok_or_else(|| {
                let count = self.alphas_cumprod.len();
                candle_core::Error::Msg(format!("expected timesteps below {count}, found {timesteps:?}"))
            })?;
        let per_image = |f: &dyn Fn(f64) -> f64| -> candle_core::Result<Tensor> {
            let values: Vec<f32> = alphas.iter().map(|&alpha| f(alpha) as f32).collect();
            Tensor::from_vec(values, (alphas.len(), 1, 1, 1), device)
        };
        let (signal, sigma) = (per_image(&f64::sqrt)?, per_image(&|alpha| (1. - alpha).sqrt())?);
        let noisy = (latents.broadcast_mul(&signal)? + noise.broadcast_mul(&sigma)?)?;
        let target = match self.prediction {
            PredictionType::Epsilon => noise.clone(),
            PredictionType::Sample => latents.clone(),
            PredictionType::Velocity => (noise.broadcast_mul(&signal)? - latents.broadcast_mul(&sigma)?)?,
        };
        let steps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        Ok(NoisedLatents {
            noisy,
            target,
            timesteps: Tensor::new(steps, device)?,
            weights: per_image(&|alpha| self.weight(alpha))?,
        })
    }

    /// The weight of a timestep's squared error: min(snr, γ) for a clean sample, divided by snr for noise and by snr
    /// + 1 for velocities.
    fn weight(&self, alpha: f64) -> f64 {
        let Some(gamma) = self.settings.min_snr_gamma else { return 1. };
        let snr = alpha / (1. - alpha);
        match self.prediction {
            PredictionType::Epsilon => snr.min(gamma) / snr,
            PredictionType::Sample => snr.min(gamma),
            PredictionType::Velocity => snr.min(gamma) * (1. - alpha),
        }
    }

    /// The mean weighted squared error of the UNet's prediction, a scalar.
    ///
    /// # Errors
    /// If the latents or the context do not fit the UNet.
    pub fn loss(
        &self,
        unet: &UNet2DConditionModel,
        noised: &NoisedLatents,
        context: &CrossAttentionContext,
    ) -> Result<Tensor> {
        let prediction = unet.forward(&noised.noisy, &noised.timesteps, context)?;
        let error = (prediction - &noised.target)?.sqr()?.broadcast_mul(&noised.weights)?;
        Ok(error.mean_all()?)
    }
}
