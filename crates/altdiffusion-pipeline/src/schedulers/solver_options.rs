//! Names the variants of DPM-Solver, UniPC and DDPM.

use serde::{Deserialize, Serialize};

/// The equation that is solved, `algorithm_type` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// The probability flow in terms of the clean sample: DPM-Solver++ (Lu et al. 2022,
    /// <https://arxiv.org/abs/2211.01095>).
    #[serde(rename = "dpmsolver++", alias = "deis")]
    DpmSolverPlusPlus,
    /// The stochastic equation in terms of the clean sample.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
    /// The probability flow in terms of the noise: DPM-Solver (Lu et al. 2022, <https://arxiv.org/abs/2206.00927>).
    #[serde(rename = "dpmsolver")]
    DpmSolver,
    /// The stochastic equation in terms of the noise.
    #[serde(rename = "sde-dpmsolver")]
    SdeDpmSolver,
}

impl Algorithm {
    /// Whether each step adds noise.
    pub fn is_stochastic(self) -> bool {
        matches!(self, Self::SdeDpmSolverPlusPlus | Self::SdeDpmSolver)
    }

    /// Whether it works with clean samples, and not with noise.
    pub(super) fn is_in_clean_samples(self) -> bool {
        matches!(self, Self::DpmSolverPlusPlus | Self::SdeDpmSolverPlusPlus)
    }
}

/// The variant of a method of order 2 or 3, `solver_type` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SolverType {
    /// DPM-Solver with the slope at the middle of the step, its default.
    Midpoint,
    /// DPM-Solver with the mean of the slopes at both ends.
    Heun,
    /// That of another solver; each takes it for its own default.
    LogRho,
    /// UniPC with the factor h.
    Bh1,
    /// UniPC with the factor e^h − 1, its default.
    Bh2,
}

/// The variance of the noise that a step adds, `variance_type` of the configuration. Those that a model learns need
/// one that predicts them, and no latent diffusion model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// That of the posterior given the clean sample, the lower bound (formula 7 of the paper).
    FixedSmall,
    /// The same by way of its logarithm.
    FixedSmallLog,
    /// That of the noise which the step takes away, the upper bound.
    FixedLarge,
}
