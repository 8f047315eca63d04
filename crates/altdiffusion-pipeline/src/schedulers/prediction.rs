//! Converts model predictions to clean samples and noise.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::divide;
use crate::Result;

/// What the model predicts: `prediction_type` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PredictionType {
    /// The noise ε in `x_t = √ᾱ x₀ + √(1 − ᾱ) ε`.
    #[serde(rename = "epsilon")]
    Epsilon,
    /// The velocity `v = √ᾱ ε − √(1 − ᾱ) x₀` (Salimans and Ho 2022, <https://arxiv.org/abs/2202.00512>).
    #[serde(rename = "v_prediction")]
    Velocity,
    /// The clean sample x₀.
    #[serde(rename = "sample", alias = "original_sample")]
    Sample,
}

impl PredictionType {
    /// The clean sample x₀ and the noise ε, from `output` for `sample` at the cumulative product ᾱ.
    pub(super) fn clean_and_noise(
        self,
        output: &Tensor,
        sample: &Tensor,
        alpha_bar: f32,
    ) -> Result<(Tensor, Tensor)> {
        let (signal_root, noise_root) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        let (signal, noise) = (f64::from(signal_root), f64::from(noise_root));
        Ok(match self {
            Self::Epsilon => (divide(&(sample - (output * noise)?)?, signal_root)?, output.clone()),
            Self::Velocity => {
                (((sample * signal)? - (output * noise)?)?, ((output * signal)? + (sample * noise)?)?)
            }
            Self::Sample => (output.clone(), divide(&(sample - (output * signal)?)?, noise_root)?),
        })
    }

    /// The clean sample x₀, from `output` for `sample` = x₀ + σ ε, which the model saw divided by √(σ² + 1).
    ///
    /// For σ in the thousands, the differences lose digits, and their rounding changes the fourth digit of the
    /// result. So this follows diffusers' order of operations, which is not the shortest.
    pub(super) fn clean_at_sigma(self, output: &Tensor, sample: &Tensor, sigma: f32) -> Result<Tensor> {
        Ok(match self {
            Self::Epsilon => (sample - (output * f64::from(sigma))?)?,
            Self::Sample => output.clone(),
            Self::Velocity => {
                let variance = sigma * sigma + 1.0;
                ((output * f64::from(-sigma / variance.sqrt()))? + divide(sample, variance)?)?
            }
        })
    }
}
