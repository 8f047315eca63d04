//! Spaces the noise levels σ.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{beta_quantile::beta_quantile, linspace::linspace};
use crate::{Error, Result};

/// How a run's sigmas are spread between the largest and the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigmaSpacing {
    /// The sigmas of the timesteps.
    Timesteps,
    /// Evenly in the seventh root (`use_karras_sigmas`; Karras et al. 2022, formula 5,
    /// <https://arxiv.org/abs/2206.00364>).
    Karras,
    /// Evenly in the logarithm (`use_exponential_sigmas`).
    Exponential,
    /// At the quantiles of a beta distribution, most of them near the ends (`use_beta_sigmas`; Lee et al. 2024,
    /// <https://arxiv.org/abs/2407.12173>).
    Beta,
    /// Evenly in the log signal-to-noise ratio (`use_lu_lambdas`; Lu et al. 2022,
    /// <https://arxiv.org/abs/2206.00927>): like `Exponential`, but with timesteps rounded to integers.
    Lu,
}

impl SigmaSpacing {
    /// Every spacing.
    pub const ALL: [Self; 5] = [Self::Timesteps, Self::Karras, Self::Exponential, Self::Beta, Self::Lu];

    /// The option value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timesteps => "timesteps",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Beta => "beta",
            Self::Lu => "lu",
        }
    }

    /// The name in the records of web interfaces, their "Schedule type".
    pub fn recorded_name(self) -> &'static str {
        match self {
            Self::Timesteps => "Timesteps",
            Self::Karras => "Karras",
            Self::Exponential => "Exponential",
            Self::Beta => "Beta",
            Self::Lu => "Lu",
        }
    }

    /// Checks that explicit timesteps can be used with this spacing.
    ///
    /// # Errors
    /// If the sigmas are not those of the timesteps.
    pub(super) fn check_given_timesteps(self) -> Result<()> {
        match self {
            Self::Timesteps => Ok(()),
            _ => {
                let problem = format!("contradict sigmas spread as {self}; expected only one of them");
                Err(Error::option("timesteps", problem))
            }
        }
    }

    /// `steps` sigmas from `max` down to `min`, or `None` if they are those of the timesteps.
    pub(super) fn spread(self, max: f64, min: f64, steps: usize) -> Option<Vec<f64>> {
        match self {
            Self::Timesteps => None,
            Self::Karras => Some(karras(max, min, steps)),
            Self::Exponential | Self::Lu => Some(exponential(max, min, steps)),
            Self::Beta => Some(beta(max, min, steps)),
        }
    }
}

impl fmt::Display for SigmaSpacing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SigmaSpacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|spacing| spacing.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::option("sigma spacing", format!("{name:?} is not known; expected one of {known}"))
        })
    }
}

/// How to interpolate between the training sigmas: `interpolation_type` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigmaInterpolation {
    /// Linearly between the two nearest training timesteps.
    Linear,
    /// Evenly in the logarithm over the whole range, with one interval more than there are steps.
    LogLinear,
}

/// The sigma after the last step: `final_sigmas_type` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// No noise at all.
    Zero,
    /// The smallest sigma of the training.
    SigmaMin,
}

/// The exponent that Karras et al. recommend.
const KARRAS_RHO: f64 = 7.0;

/// `steps` sigmas from `max` down to `min`, evenly in the root of order ρ.
fn karras(max: f64, min: f64, steps: usize) -> Vec<f64> {
    let (max_root, min_root) = (max.powf(1.0 / KARRAS_RHO), min.powf(1.0 / KARRAS_RHO));
    (0..steps)
        .map(|step| {
            let ramp = step as f64 / steps.saturating_sub(1).max(1) as f64;
            (max_root + ramp * (min_root - max_root)).powf(KARRAS_RHO)
        })
        .collect()
}

/// `steps` sigmas from `max` down to `min`, evenly in the logarithm.
fn exponential(max: f64, min: f64, steps: usize) -> Vec<f64> {
    linspace(max.ln(), min.ln(), steps).into_iter().map(|logarithm| f64::from(logarithm.exp())).collect()
}

/// `steps` sigmas from `max` down to `min` at the quantiles of a beta distribution.
fn beta(max: f64, min: f64, steps: usize) -> Vec<f64> {
    (0..steps)
        .map(|step| {
            let probability = 1.0 - step as f64 / steps.saturating_sub(1).max(1) as f64;
            f64::from((min + beta_quantile(probability) * (max - min)) as f32)
        })
        .collect()
}

/// Interpolates `table` linearly at `position`, clamped to its ends.
pub(super) fn interpolate(table: &[f32], position: f64) -> f64 {
    let low = (position.max(0.0) as usize).min(table.len().saturating_sub(1));
    let start = table.get(low).copied().map_or(0.0, f64::from);
    let end = table.get(low + 1).copied().map_or(start, f64::from);
    (end - start) * (position - low as f64) + start
}

/// The fractional timestep of `sigma`, from the ascending logarithms of the training sigmas.
pub(super) fn timestep_of(sigma: f64, log_sigmas: &[f32]) -> f64 {
    // An f32 sigma needs an f32 logarithm, so that a training sigma maps to its own timestep.
    let single = sigma as f32;
    let log_sigma =
        if f64::from(single) == sigma { f64::from(single.max(1e-10).ln()) } else { sigma.max(1e-10).ln() };
    let low = log_sigmas
        .iter()
        .rposition(|&training| f64::from(training) <= log_sigma)
        .unwrap_or(0)
        .min(log_sigmas.len().saturating_sub(2));
    let (Some(&start), Some(&end)) = (log_sigmas.get(low), log_sigmas.get(low + 1)) else {
        return low as f64;
    };
    let weight = ((f64::from(start) - log_sigma) / f64::from(start - end)).clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_run_from_the_largest_to_the_smallest() {
        for sigmas in [karras(14.0, 0.03, 9), exponential(14.0, 0.03, 9), beta(14.0, 0.03, 9)] {
            assert_eq!(sigmas.len(), 9);
            assert!((sigmas[0] - 14.0).abs() < 1e-5 && (sigmas[8] - 0.03).abs() < 1e-7);
            assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]));
        }
        assert_eq!(karras(14.0, 0.03, 1).len(), 1);
    }

    #[test]
    fn a_sigma_of_the_training_has_its_own_timestep() {
        let sigmas = [0.1f32, 0.5, 1.0, 4.0];
        let logarithms = sigmas.map(f32::ln);
        for (timestep, sigma) in sigmas.iter().enumerate() {
            assert!((timestep_of(f64::from(*sigma), &logarithms) - timestep as f64).abs() < 1e-6);
            assert_eq!(interpolate(&sigmas, timestep as f64), f64::from(*sigma));
        }
        assert_eq!(timestep_of(0.0, &logarithms), 0.0);
        assert_eq!(timestep_of(1e9, &logarithms), 3.0);
        assert_eq!(interpolate(&sigmas, 1.5), 0.75);
        assert_eq!(interpolate(&sigmas, 7.0), 4.0);
    }
}
