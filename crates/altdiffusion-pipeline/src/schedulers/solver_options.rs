//! Lists the variants of DPM-Solver, UniPC and DDPM.

use serde::{Deserialize, Serialize};

/// The equation solved: `algorithm_type` in the configuration.
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

    /// Whether it predicts clean samples instead of noise.
    pub(super) fn is_in_clean_samples(self) -> bool {
        matches!(self, Self::DpmSolverPlusPlus | Self::SdeDpmSolverPlusPlus)
    }
}

/// The variant of a method of order 2 or 3: `solver_type` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SolverType {
    /// DPM-Solver with the slope at the middle of the step, its default.
    Midpoint,
    /// DPM-Solver with the mean of the slopes at both ends.
    Heun,
    /// Another solver's variant, treated as the default.
    LogRho,
    /// UniPC with the factor h.
    Bh1,
    /// UniPC with the factor e^h − 1, its default.
    Bh2,
}

/// The variance of the noise added in a step: `variance_type` in the configuration. Learned variances are not
/// supported: no latent diffusion model predicts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// That of the posterior given the clean sample, the lower bound (formula 7 of the paper).
    FixedSmall,
    /// The same, computed from its logarithm.
    FixedSmallLog,
    /// That of the noise which the step removes, the upper bound.
    FixedLarge,
}
