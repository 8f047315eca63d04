//! Implements a linear multistep method.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::sigma_run::{SigmaRun, SigmaSettings, derivative};
use super::{NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, at};
use crate::Result;
use crate::random::Noise;

/// The number of derivatives that a step combines.
const ORDER: usize = 4;

/// A linear multistep method in σ (Adams–Bashforth with steps of unequal length, as in k-diffusion,
/// <https://github.com/crowsonkb/k-diffusion>): integrates the polynomial through the latest derivatives.
#[derive(Debug, Clone)]
pub struct LmsDiscrete {
    prediction: PredictionType,
    run: SigmaRun,
    /// The latest derivatives, newest first, up to [`ORDER`].
    derivatives: VecDeque<Tensor>,
}

impl LmsDiscrete {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, or they are not given as a number.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::LmsDiscrete, config)?;
        let settings = SigmaSettings { spacing: config.known_sigma_spacing(), ..SigmaSettings::default() };
        let run = SigmaRun::new(config, &NoiseSchedule::new(config), settings, steps)?;
        Ok(Self { prediction: config.prediction_type, run, derivatives: VecDeque::new() })
    }
}

impl Scheduler for LmsDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.run.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.run.init_noise_sigma.into()
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        self.run.scale_model_input(sample, index)
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        _: &mut dyn Noise,
    ) -> Result<Tensor> {
        let (sigma, next_sigma) = (self.run.sigma(index)?, self.run.sigma(index + 1)?);
        self.derivatives.push_front(derivative(self.prediction, model_output, sample, sigma)?);
        self.derivatives.truncate(ORDER);
        let nodes = (0..self.derivatives.len())
            .map(|back| at(&self.run.sigmas, index.saturating_sub(back)).map(f64::from))
            .collect::<Result<Vec<_>>>()?;
        let mut change = sample.zeros_like()?;
        for (derivative, weight) in
            self.derivatives.iter().zip(weights(&nodes, sigma.into(), next_sigma.into()))
        {
            change = (change + (derivative * weight)?)?;
        }
        Ok((sample + change)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }

    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }
}

/// The integrals of the Lagrange basis polynomials of `nodes`. There are at most four nodes, so two-point
/// Gauss–Legendre quadrature is exact.
fn weights(nodes: &[f64], from: f64, to: f64) -> Vec<f64> {
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let points = [middle - half / 3f64.sqrt(), middle + half / 3f64.sqrt()];
    let polynomial = |own: usize, point: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != own);
        others.map(|(_, other)| (point - other) / (nodes[own] - other)).product()
    };
    (0..nodes.len())
        .map(|own| half * points.map(|point| polynomial(own, point)).iter().sum::<f64>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps_have_the_weights_of_adams_and_bashforth() {
        let weights = weights(&[0.0, -1.0, -2.0, -3.0], 0.0, 1.0);
        for (found, expected) in weights.iter().zip([55.0, -59.0, 37.0, -9.0]) {
            assert!((found - expected / 24.0).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn unequal_steps_integrate_a_cubic_exactly() {
        let nodes = [2.0, 3.5, 7.0, 8.0];
        let cubic = |x: f64| 2.0 * x.powi(3) - x * x + 3.0 * x - 1.0;
        let integral = |x: f64| x.powi(4) / 2.0 - x.powi(3) / 3.0 + 1.5 * x * x - x;
        let found: f64 =
            weights(&nodes, 2.0, 0.5).iter().zip(nodes).map(|(weight, node)| weight * cubic(node)).sum();
        assert!((found - (integral(0.5) - integral(2.0))).abs() < 1e-10, "{found}");
    }
}
