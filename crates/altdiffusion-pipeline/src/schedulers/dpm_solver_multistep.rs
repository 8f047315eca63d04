//! Implements the DPM-Solver multistep method.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::dpm_solver::{DpmSolver, Outputs};
use super::solver_run::SolverRun;
use super::{NoiseSchedule, Scheduler, SchedulerConfig, SchedulerKind, Steps, TimestepSpacing, noise_like};
use crate::Result;
use crate::random::Noise;

/// Unless the configuration says otherwise, runs of fewer steps end in lower orders.
const FEW_STEPS: usize = 15;

/// DPM-Solver++ and its variants, using outputs of earlier steps (Lu et al. 2022, <https://arxiv.org/abs/2211.01095>,
/// algorithm 2): 2M by default, 2M SDE with the stochastic equation.
#[derive(Debug, Clone)]
pub struct DpmSolverMultistep {
    solver: DpmSolver,
    run: SolverRun,
    order: usize,
    /// Whether the last two steps of a short run have lower orders.
    lower_order_final: bool,
    euler_at_final: bool,
    /// The latest outputs, newest first, up to the order.
    outputs: VecDeque<Tensor>,
}

impl DpmSolverMultistep {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or as many as training timesteps, timesteps are combined with a spacing of the sigmas,
    /// or the method has no formula for the configuration.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(config.kind().unwrap_or(SchedulerKind::DpmSolverMultistep), config)?;
        let schedule = NoiseSchedule::for_sigmas(config);
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        Ok(Self {
            solver: DpmSolver::new(config)?,
            run: SolverRun::new(config, &schedule, spacing, config.lambda_min_clipped, steps)?,
            order: config.solver_order,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            euler_at_final: config.euler_at_final,
            outputs: VecDeque::new(),
        })
    }

    /// The order of step `index`.
    fn order_at(&self, index: usize) -> usize {
        let left = self.run.count().saturating_sub(index);
        let is_short = self.lower_order_final && self.run.count() < FEW_STEPS;
        let most = match left {
            1 if self.euler_at_final || is_short || self.run.ends_clean => 1,
            2 if is_short => 2,
            _ => self.order,
        };
        most.min(self.outputs.len())
    }
}

impl Scheduler for DpmSolverMultistep {
    fn timesteps(&self) -> &[f64] {
        &self.run.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        self.run.scale_model_input(sample, index)
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        noise: &mut dyn Noise,
    ) -> Result<Tensor> {
        let (from, to) = (self.run.level(index)?, self.run.level(index + 1)?);
        let output = self.solver.convert(model_output, sample, from)?;
        self.outputs.push_front(output.clone());
        self.outputs.truncate(self.order);
        let noise =
            if self.solver.algorithm.is_stochastic() { Some(noise_like(noise, sample)?) } else { None };

        let h = to.lambda - from.lambda;
        // λ of the earlier outputs, and their distances in units of this step.
        let lambda = |back: usize| self.run.level(index.saturating_sub(back)).map(|level| level.lambda);
        let latest: Vec<&Tensor> = self.outputs.iter().take(self.order_at(index)).collect();
        let outputs = match latest.as_slice() {
            [latest, before] => {
                let ratio = (from.lambda - lambda(1)?) / h;
                let derivative = ((*latest - *before)? * f64::from(1.0 / ratio))?;
                self.solver.second_order((*latest).clone(), derivative)
            }
            [latest, before, oldest, ..] => {
                let ratio = (from.lambda - lambda(1)?) / h;
                let older_ratio = (lambda(1)? - lambda(2)?) / h;
                let newer = ((*latest - *before)? * f64::from(1.0 / ratio))?;
                let older = ((*before - *oldest)? * f64::from(1.0 / older_ratio))?;
                let bend = (&newer - older)?;
                let first = (&newer + (&bend * f64::from(ratio / (ratio + older_ratio)))?)?;
                let second = (bend * f64::from(1.0 / (ratio + older_ratio)))?;
                Outputs::Quadratic((*latest).clone(), first, second)
            }
            _ => Outputs::Constant(output),
        };
        self.solver.transfer(sample, &outputs, from, to, noise.as_ref())
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }

    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        (self.solver.is_linear()).then(|| Box::new(self.clone()) as Box<dyn Scheduler>)
    }
}
