//! Implements the DPM-Solver single-step method.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::dpm_solver::{DpmSolver, Outputs};
use super::solver_run::SolverRun;
use super::{
    Algorithm, NoiseSchedule, Scheduler, SchedulerConfig, SchedulerKind, Steps, TimestepSpacing, at, divide,
    noise_like,
};
use crate::Result;
use crate::random::Noise;

/// DPM-Solver++ with intermediate outputs between two noise levels (Lu et al. 2022,
/// <https://arxiv.org/abs/2211.01095>, algorithm 1). Every model call counts as a step: in a method of order 2, every
/// other step goes from where the one before it started to the next noise level.
#[derive(Debug, Clone)]
pub struct DpmSolverSinglestep {
    solver: DpmSolver,
    run: SolverRun,
    order: usize,
    /// The order of each step: 1, or one more than that of the previous step.
    orders: Vec<usize>,
    /// The sample that the latest step of order 1 started from.
    start: Option<Tensor>,
    /// The latest outputs, newest first, up to the order.
    outputs: VecDeque<Tensor>,
}

impl DpmSolverSinglestep {
    /// A run of `steps`, spaced evenly from the last timestep to the first, which is the only spacing it has.
    ///
    /// # Errors
    /// If there are no steps or as many as training timesteps, timesteps are combined with a spacing of the sigmas,
    /// or the method has no formula for the configuration.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::DpmSolverSinglestep, config)?;
        if config.algorithm_type == Algorithm::SdeDpmSolver {
            return Err(config.error(
                "algorithm_type",
                "is sde-dpmsolver, which has no single-step method; expected dpmsolver++, sde-dpmsolver++ or dpmsolver",
            ));
        }
        let schedule = NoiseSchedule::new(config);
        let lambda_min = config.lambda_min_clipped;
        let run = SolverRun::new(config, &schedule, TimestepSpacing::Linspace, lambda_min, steps)?;
        let (order, count) = (config.solver_order, run.count());
        // Higher orders cannot end at a noise-free level, and need complete groups of steps.
        let lower_order_final =
            config.lower_order_final.unwrap_or(false) || run.ends_clean || !count.is_multiple_of(order);
        Ok(Self {
            solver: DpmSolver::new(config)?,
            orders: orders(order, count, lower_order_final, run.ends_clean),
            run,
            order,
            start: None,
            outputs: VecDeque::new(),
        })
    }
}

/// The orders of `count` steps, in groups rising from 1 to `order`. With `lower_order_final` the last group stays
/// below `order`, and the last step has order 1 if it ends noise-free.
fn orders(order: usize, count: usize, lower_order_final: bool, ends_clean: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..count).map(|step| step % order + 1).collect();
    if lower_order_final
        && (ends_clean || count.is_multiple_of(order))
        && let Some(last) = orders.last_mut()
    {
        *last = 1;
    }
    orders
}

impl Scheduler for DpmSolverSinglestep {
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
        let (now, to) = (self.run.level(index)?, self.run.level(index + 1)?);
        let output = self.solver.convert(model_output, sample, now)?;
        self.outputs.push_front(output.clone());
        self.outputs.truncate(self.order);
        let noise =
            if self.solver.algorithm.is_stochastic() { Some(noise_like(noise, sample)?) } else { None };

        // A run that starts within a group has fewer outputs than the order needs.
        let order = at(&self.orders, index)?.min(self.outputs.len());
        if order == 1 {
            self.start = Some(sample.clone());
        }
        let from = self.run.level((index + 1).saturating_sub(order))?;
        let h = to.lambda - from.lambda;
        let latest: Vec<&Tensor> = self.outputs.iter().take(order).collect();
        let ratio = (now.lambda - from.lambda) / h;
        let outputs = match latest.as_slice() {
            [latest, first] => {
                let derivative = ((*latest - *first)? * f64::from(1.0 / ratio))?;
                self.solver.second_order((*first).clone(), derivative)
            }
            [latest, middle, first, ..] => {
                let to_latest = ((*latest - *first)? * f64::from(1.0 / ratio))?;
                if self.solver.is_heun() {
                    let middle_level = self.run.level(index.saturating_sub(1))?;
                    let middle_ratio = (middle_level.lambda - from.lambda) / h;
                    let to_middle = ((*middle - *first)? * f64::from(1.0 / middle_ratio))?;
                    let distance = ratio - middle_ratio;
                    let weighted =
                        ((&to_middle * f64::from(ratio))? - (&to_latest * f64::from(middle_ratio))?)?;
                    let derivative = divide(&weighted, distance)?;
                    let bend = divide(&((to_latest - to_middle)? * 2.0)?, distance)?;
                    Outputs::Quadratic((*first).clone(), derivative, bend)
                } else {
                    Outputs::Linear((*first).clone(), to_latest)
                }
            }
            _ => Outputs::Constant(output),
        };
        self.solver.transfer(self.start.as_ref().unwrap_or(sample), &outputs, from, to, noise.as_ref())
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From diffusers' `get_order_list`, except for the last step of the third, which cannot end noise-free.
    #[test]
    fn orders_climb_in_groups() {
        assert_eq!(orders(2, 4, true, true), [1, 2, 1, 1]);
        assert_eq!(orders(3, 7, true, true), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(orders(3, 5, true, true), [1, 2, 3, 1, 1]);
        assert_eq!(orders(3, 5, true, false), [1, 2, 3, 1, 2]);
        assert_eq!(orders(3, 6, true, false), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(3, 6, false, false), [1, 2, 3, 1, 2, 3]);
        assert_eq!(orders(1, 2, true, true), [1, 1]);
    }
}
