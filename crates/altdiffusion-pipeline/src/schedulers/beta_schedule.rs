//! Computes the betas of the training timesteps.

use serde::{Deserialize, Serialize};

use super::linspace::linspace;

/// The curve of the betas over the training timesteps: `beta_schedule` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BetaSchedule {
    /// Linear from `beta_start` to `beta_end`.
    #[serde(rename = "linear")]
    Linear,
    /// Linear in the square root, as in latent diffusion.
    #[serde(rename = "scaled_linear")]
    ScaledLinear,
    /// The squared cosine of Nichol and Dhariwal 2021, <https://arxiv.org/abs/2102.09672>, with betas up to 0.999.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
    /// A sigmoid over −6 to 6, from `beta_start` to `beta_end`, as in GeoDiff.
    #[serde(rename = "sigmoid")]
    Sigmoid,
    /// ᾱ = e^(−12 t) for t from 0 to 1, with betas up to 0.999.
    #[serde(rename = "exp")]
    Exponential,
}

impl BetaSchedule {
    /// The betas of `timesteps` timesteps from `start` to `end`, as PyTorch computes them.
    pub(super) fn betas(self, timesteps: usize, start: f64, end: f64) -> Vec<f32> {
        match self {
            Self::Linear => linspace(start, end, timesteps),
            Self::ScaledLinear => {
                linspace(start.sqrt(), end.sqrt(), timesteps).into_iter().map(|root| root * root).collect()
            }
            Self::Sigmoid => {
                let (start, distance) = (start as f32, (end - start) as f32);
                linspace(-6.0, 6.0, timesteps)
                    .into_iter()
                    .map(|position| 1.0 / (1.0 + (-position).exp()) * distance + start)
                    .collect()
            }
            Self::SquaredCosine => betas_of(timesteps, |time| {
                let cosine = ((time + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos();
                cosine * cosine
            }),
            Self::Exponential => betas_of(timesteps, |time| (-12.0 * time).exp()),
        }
    }

    /// Whether it ignores the first and last beta.
    pub(super) fn is_fixed(self) -> bool {
        matches!(self, Self::SquaredCosine | Self::Exponential)
    }
}

/// The betas for a given ᾱ, as a function of time from 0 to 1, capped at 0.999.
fn betas_of(timesteps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |timestep: usize| alpha_bar(timestep as f64 / timesteps as f64);
    (0..timesteps).map(|timestep| (1.0 - at(timestep + 1) / at(timestep)).min(0.999) as f32).collect()
}
