//! Implements UniPC.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::solver_run::{NoiseLevel, SolverRun};
use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, SolverType, Steps,
    TimestepSpacing, divide, limit::Limit,
};
use crate::Result;
use crate::random::Noise;

/// UniPC (Zhao et al. 2023, <https://arxiv.org/abs/2302.04867>): a multistep predictor of any order, and a corrector
/// that repeats the step to a noise level once the model's output there is known, without an additional call.
#[derive(Debug, Clone)]
pub struct UniPcMultistep {
    prediction: PredictionType,
    limit: Limit,
    run: SolverRun,
    order: usize,
    is_bh1: bool,
    predicts_clean: bool,
    lower_order_final: bool,
    /// The steps that are not corrected.
    uncorrected: Vec<usize>,
    /// The latest outputs, newest first, up to the order.
    outputs: VecDeque<Tensor>,
    /// The sample at the start of the latest step, and its order.
    latest: Option<(Tensor, usize)>,
}

impl UniPcMultistep {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or as many as training timesteps, they are not given as a number, or a method of higher
    /// order, or one that predicts noise, would end noise-free.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::UniPcMultistep, config)?;
        let schedule = NoiseSchedule::for_sigmas(config);
        let spacing = config.timestep_spacing.unwrap_or(TimestepSpacing::Linspace);
        let run = SolverRun::new(config, &schedule, spacing, f64::NEG_INFINITY, steps)?;
        let lower_order_final = config.lower_order_final.unwrap_or(true);
        if run.ends_clean && !(config.predict_x0 && (lower_order_final || config.solver_order == 1)) {
            return Err(config.error(
                "final_sigmas_type",
                "is zero, which UniPC reaches only with predict_x0 and lower_order_final; expected sigma_min, or both \
                 of them true",
            ));
        }
        Ok(Self {
            prediction: config.prediction_type,
            limit: config.threshold(),
            run,
            order: config.solver_order,
            is_bh1: config.solver_type == Some(SolverType::Bh1),
            predicts_clean: config.predict_x0,
            lower_order_final,
            uncorrected: config.disable_corrector.clone(),
            outputs: VecDeque::new(),
            latest: None,
        })
    }

    /// Converts the model's output for `sample` at a noise level to the clean sample or the noise.
    fn convert(&self, output: &Tensor, sample: &Tensor, level: NoiseLevel) -> Result<Tensor> {
        let (alpha, sigma) = (f64::from(level.alpha), f64::from(level.sigma));
        if self.predicts_clean {
            let clean = match self.prediction {
                PredictionType::Epsilon => divide(&(sample - (output * sigma)?)?, level.alpha)?,
                PredictionType::Sample => output.clone(),
                PredictionType::Velocity => ((sample * alpha)? - (output * sigma)?)?,
            };
            return self.limit.apply(&clean);
        }
        Ok(match self.prediction {
            PredictionType::Epsilon => output.clone(),
            PredictionType::Sample => divide(&(sample - (output * alpha)?)?, level.sigma)?,
            PredictionType::Velocity => ((output * alpha)? + (sample * sigma)?)?,
        })
    }

    /// Takes the sample from noise level `index` to `index + 1` by a method of `order`: the corrector if `target`,
    /// the output at the next level, is given, and else the predictor.
    fn update(&self, sample: &Tensor, index: usize, order: usize, target: Option<&Tensor>) -> Result<Tensor> {
        let (from, to) = (self.run.level(index)?, self.run.level(index + 1)?);
        let h = to.lambda - from.lambda;
        let h = if self.predicts_clean { -h } else { h };
        let growth = h.exp_m1();
        let (sample_factor, scale) = if self.predicts_clean {
            (to.sigma / from.sigma, to.alpha)
        } else {
            (to.alpha / from.alpha, to.sigma)
        };
        let Some(latest) = self.outputs.front() else {
            return Ok(sample.clone());
        };
        let linear = ((sample * f64::from(sample_factor))? - (latest * f64::from(scale * growth))?)?;

        // The slopes to earlier outputs, and their distances in units of this step.
        let mut ratios = Vec::with_capacity(order);
        let mut slopes = Vec::with_capacity(order);
        for (back, output) in self.outputs.iter().enumerate().take(order).skip(1) {
            let lambda = self.run.level(index.saturating_sub(back))?.lambda;
            let ratio = (lambda - from.lambda) / (to.lambda - from.lambda);
            slopes.push(divide(&(output - latest)?, ratio)?);
            ratios.push(ratio);
        }
        if let Some(target) = target {
            ratios.push(1.0);
            slopes.push((target - latest)?);
        }
        let base = if self.is_bh1 { h } else { growth };
        // For a single slope the paper sets the weight instead of solving for it.
        let weights =
            if slopes.len() > 1 { solve_moments(&ratios, h, base) } else { vec![0.5; slopes.len()] };
        let mut sum: Option<Tensor> = None;
        for (slope, weight) in slopes.iter().zip(weights) {
            let term = (slope * f64::from(weight))?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        match sum {
            Some(sum) => Ok((linear - (sum * f64::from(scale * base))?)?),
            None => Ok(linear),
        }
    }
}

/// The weights of slopes at these distances that make the method exact for polynomials: formula 6 of the paper, with
/// B(h) = `base`.
fn solve_moments(ratios: &[f32], h: f32, base: f32) -> Vec<f32> {
    let count = ratios.len();
    let mut moments = Vec::with_capacity(count);
    let (mut phi, mut factorial) = (h.exp_m1() / h - 1.0, 1f32);
    for power in 1..=count {
        moments.push(f64::from(phi * factorial / base));
        factorial *= (power + 1) as f32;
        phi = phi / h - 1.0 / factorial;
    }
    let rows = moments.into_iter().enumerate().map(|(power, moment)| {
        let powers = ratios.iter().map(|ratio| f64::from(ratio.powi(power as i32)));
        powers.chain([moment]).collect()
    });
    solve(rows.collect()).into_iter().map(|weight| weight as f32).collect()
}

/// Solves a small linear system by Gauss–Jordan elimination with pivoting. Each row is an equation with its right
/// side last.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for column in 0..count {
        let pivot = (column..count).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(entry, pivot)| *entry -= factor * pivot);
        }
    }
    rows.iter().enumerate().map(|(index, row)| row[count] / row[index]).collect()
}

impl Scheduler for UniPcMultistep {
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
        _: &mut dyn Noise,
    ) -> Result<Tensor> {
        let output = self.convert(model_output, sample, self.run.level(index)?)?;
        // The next step starts from the corrected sample, with the model's output for the predicted one.
        let sample = match (self.latest.take(), index.checked_sub(1)) {
            (Some((start, order)), Some(before)) if !self.uncorrected.contains(&before) => {
                self.update(&start, before, order, Some(&output))?
            }
            _ => sample.clone(),
        };
        self.outputs.push_front(output);
        self.outputs.truncate(self.order);
        let left = self.run.count().saturating_sub(index);
        let most = if self.lower_order_final { self.order.min(left) } else { self.order };
        let order = most.min(self.outputs.len());
        let next = self.update(&sample, index, order, None)?;
        self.latest = Some((sample, order));
        Ok(next)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_system_is_solved() {
        let rows = [vec![0.0, 2.0, 1.0], vec![1.0, 1.0, 1.0], vec![4.0, -2.0, 3.0]];
        let solution = [3.0, -1.0, 2.0];
        let with_right = |row: &Vec<f64>| {
            let right = row.iter().zip(solution).map(|(a, b)| a * b).sum();
            row.iter().copied().chain([right]).collect()
        };
        let rows = rows.iter().map(with_right).collect();
        for (found, expected) in solve(rows).into_iter().zip(solution) {
            assert!((found - expected).abs() < 1e-12);
        }
    }
}
