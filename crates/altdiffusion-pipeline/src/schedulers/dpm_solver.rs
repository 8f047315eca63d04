//! Implements a step of DPM-Solver of any order, for the multistep and the single-step solver.

use candle_core::Tensor;

use super::{
    Algorithm, FinalSigma, PredictionType, SchedulerConfig, SolverType, divide, limit::Limit,
    solver_run::NoiseLevel,
};
use crate::Result;

/// The method, with how it reads the model's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct DpmSolver {
    pub algorithm: Algorithm,
    is_heun: bool,
    prediction: PredictionType,
    limit: Limit,
}

/// How the model's output is approximated over a step: its value at the start, and up to two derivatives with respect
/// to the fraction of the step.
pub(super) enum Outputs {
    /// Order 1.
    Constant(Tensor),
    /// Order 2, with the derivative at the midpoint.
    Midpoint(Tensor, Tensor),
    /// Order 2, or order 3 without its last term.
    Linear(Tensor, Tensor),
    /// Order 3.
    Quadratic(Tensor, Tensor, Tensor),
}

impl DpmSolver {
    /// The method that `config` selects.
    ///
    /// # Errors
    /// If it has no formulas of that order, or solves for noise at a level that has none.
    pub(super) fn new(config: &SchedulerConfig) -> Result<Self> {
        let algorithm = config.algorithm_type;
        let most = if algorithm.is_stochastic() { 2 } else { 3 };
        if config.solver_order > most {
            return Err(config.error(
                "solver_order",
                format!("is {}, but this algorithm_type has formulas for 1 to {most}", config.solver_order),
            ));
        }
        if !algorithm.is_in_clean_samples() && config.final_sigmas_type == FinalSigma::Zero {
            return Err(config.error(
                "final_sigmas_type",
                "is zero, which dpmsolver and sde-dpmsolver cannot reach; expected sigma_min, or dpmsolver++ as \
                 algorithm_type",
            ));
        }
        Ok(Self {
            algorithm,
            is_heun: config.solver_type == Some(SolverType::Heun),
            prediction: config.prediction_type,
            limit: config.threshold(),
        })
    }

    /// Whether its steps are linear: no noise is drawn and nothing is clipped.
    pub(super) fn is_linear(&self) -> bool {
        !self.algorithm.is_stochastic() && self.limit == Limit::None
    }

    /// Approximates the output of a step of order 2.
    pub(super) fn second_order(&self, value: Tensor, derivative: Tensor) -> Outputs {
        if self.is_heun { Outputs::Linear(value, derivative) } else { Outputs::Midpoint(value, derivative) }
    }

    /// Whether a single step of order 3 uses a second derivative.
    pub(super) fn is_heun(&self) -> bool {
        self.is_heun
    }

    /// Converts the model's output for `sample` at a noise level to the clean sample or the noise.
    pub(super) fn convert(&self, output: &Tensor, sample: &Tensor, level: NoiseLevel) -> Result<Tensor> {
        let (alpha, sigma) = (f64::from(level.alpha), f64::from(level.sigma));
        let clean_of = |noise: &Tensor| divide(&(sample - (noise * sigma)?)?, level.alpha);
        if self.algorithm.is_in_clean_samples() {
            let clean = match self.prediction {
                PredictionType::Epsilon => clean_of(output)?,
                PredictionType::Sample => output.clone(),
                PredictionType::Velocity => ((sample * alpha)? - (output * sigma)?)?,
            };
            return self.limit.apply(&clean);
        }
        let noise_of = |clean: &Tensor| divide(&(sample - (clean * alpha)?)?, level.sigma);
        let noise = match self.prediction {
            PredictionType::Epsilon => output.clone(),
            PredictionType::Sample => noise_of(output)?,
            PredictionType::Velocity => ((output * alpha)? + (sample * sigma)?)?,
        };
        match self.limit {
            Limit::None => Ok(noise),
            limit => noise_of(&limit.apply(&clean_of(&noise)?)?),
        }
    }

    /// Moves `sample` from one noise level to another: exactly for the linear part of the equation, and term by term
    /// for the integral over the outputs (formula 3.8 of DPM-Solver, 4.1 of DPM-Solver++). `noise` is used by the
    /// stochastic equations.
    pub(super) fn transfer(
        &self,
        sample: &Tensor,
        outputs: &Outputs,
        from: NoiseLevel,
        to: NoiseLevel,
        noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let factors = Factors::new(self.algorithm, from, to);
        let mut next = (sample * f64::from(factors.sample))?;
        let (value, rest) = match outputs {
            Outputs::Constant(value) => (value, vec![]),
            Outputs::Midpoint(value, first) => (value, vec![(first, factors.midpoint)]),
            Outputs::Linear(value, first) => (value, vec![(first, factors.first)]),
            Outputs::Quadratic(value, first, second) => {
                (value, vec![(first, factors.first), (second, factors.second)])
            }
        };
        next = (next + (value * f64::from(factors.value))?)?;
        for (derivative, factor) in rest {
            next = (next + (derivative * f64::from(factor))?)?;
        }
        match noise {
            Some(noise) => Ok((next + (noise * f64::from(factors.noise))?)?),
            None => Ok(next),
        }
    }
}

/// The factors of a step's terms.
struct Factors {
    sample: f32,
    value: f32,
    midpoint: f32,
    first: f32,
    second: f32,
    noise: f32,
}

impl Factors {
    fn new(algorithm: Algorithm, from: NoiseLevel, to: NoiseLevel) -> Self {
        let (alpha, sigma) = (to.alpha, to.sigma);
        let h = to.lambda - from.lambda;
        match algorithm {
            Algorithm::DpmSolverPlusPlus => {
                let decay = (-h).exp() - 1.0;
                Self {
                    sample: sigma / from.sigma,
                    value: -(alpha * decay),
                    midpoint: -0.5 * (alpha * decay),
                    first: alpha * (decay / h + 1.0),
                    second: -(alpha * ((decay + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Algorithm::DpmSolver => {
                let growth = h.exp() - 1.0;
                Self {
                    sample: alpha / from.alpha,
                    value: -(sigma * growth),
                    midpoint: -0.5 * (sigma * growth),
                    first: -(sigma * (growth / h - 1.0)),
                    second: -(sigma * ((growth - h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            // The stochastic equations have no formulas of order 3.
            Algorithm::SdeDpmSolverPlusPlus => {
                let loss = 1.0 - (-2.0 * h).exp();
                Self {
                    sample: sigma / from.sigma * (-h).exp(),
                    value: alpha * loss,
                    midpoint: 0.5 * (alpha * loss),
                    first: alpha * (loss / (-2.0 * h) + 1.0),
                    second: 0.0,
                    noise: sigma * loss.sqrt(),
                }
            }
            Algorithm::SdeDpmSolver => {
                let growth = h.exp() - 1.0;
                Self {
                    sample: alpha / from.alpha,
                    value: -2.0 * (sigma * growth),
                    midpoint: -(sigma * growth),
                    first: -2.0 * (sigma * (growth / h - 1.0)),
                    second: 0.0,
                    noise: sigma * ((2.0 * h).exp() - 1.0).sqrt(),
                }
            }
        }
    }
}
