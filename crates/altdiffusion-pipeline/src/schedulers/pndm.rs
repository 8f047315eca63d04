//! Implements PNDM.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, TimestepSpacing, at,
    divide,
};
use crate::random::Noise;
use crate::{Error, Result};

/// The number of Runge–Kutta steps at the start.
const RUNGE_KUTTA_STEPS: usize = 4;
/// Their model calls; the last one belongs to the multistep method.
const RUNGE_KUTTA_CALLS: usize = 12;

/// Pseudo numerical methods for diffusion models (Liu et al. 2022, <https://arxiv.org/abs/2202.09778>): a linear
/// multistep method of order 4, started by Runge–Kutta steps or, with `skip_prk_steps`, by lower orders (latent
/// diffusion's PLMS sampler, which calls the model twice in its second step).
#[derive(Debug, Clone)]
pub struct Pndm {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    /// Timesteps of the model calls.
    timesteps: Vec<usize>,
    /// The same, as passed to the model.
    model_timesteps: Vec<f64>,
    /// How many of the timesteps belong to the Runge–Kutta start.
    runge_kutta_calls: usize,
    /// Training timesteps per step.
    stride: usize,
    /// ᾱ after the last step.
    final_alpha_bar: f32,
    state: State,
}

/// A run's state between steps.
#[derive(Debug, Clone, Default)]
struct State {
    /// Model calls so far.
    calls: usize,
    /// The latest model outputs, newest first, up to 4.
    outputs: VecDeque<Tensor>,
    /// The sample at the start of the current step, if it takes several calls.
    start: Option<Tensor>,
    /// The weighted sum of the Runge–Kutta step's outputs.
    sum: Option<Tensor>,
}

impl State {
    fn remember(&mut self, output: &Tensor) {
        self.outputs.push_front(output.clone());
        self.outputs.truncate(4);
    }
}

impl Pndm {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, or fewer than 4 with Runge–Kutta steps, if they are not
    /// given as a number, or the model predicts samples.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::Pndm, config)?;
        let steps = steps.count();
        if config.prediction_type == PredictionType::Sample {
            return Err(
                config.error("prediction_type", "is sample, but PNDM runs only with epsilon or v_prediction")
            );
        }
        let schedule = NoiseSchedule::new(config);
        let ascending = config.timestep_spacing.unwrap_or(TimestepSpacing::Leading).spread_whole(
            steps,
            config.num_train_timesteps,
            config.steps_offset,
        )?;
        let stride = config.num_train_timesteps / steps;
        let (timesteps, runge_kutta_calls) = if config.skip_prk_steps {
            (multistep_timesteps(&ascending), 0)
        } else if steps < RUNGE_KUTTA_STEPS {
            return Err(Error::option(
                "steps",
                format!(
                    "{steps} steps, but PNDM with Runge-Kutta steps (skip_prk_steps false) needs at least {RUNGE_KUTTA_STEPS}"
                ),
            ));
        } else {
            (runge_kutta_timesteps(&ascending, stride / 2), RUNGE_KUTTA_CALLS)
        };
        let final_alpha_bar =
            if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { schedule.alpha_bar(0)? };
        Ok(Self {
            schedule,
            prediction: config.prediction_type,
            model_timesteps: timesteps.iter().map(|&timestep| timestep as f64).collect(),
            timesteps,
            runge_kutta_calls,
            stride,
            final_alpha_bar,
            state: State::default(),
        })
    }

    /// One of the four calls of a Runge–Kutta step: at its start, twice in the middle, and at its end. The first
    /// three return the sample for the next call; the last combines all four.
    fn runge_kutta(&mut self, output: &Tensor, timestep: usize, sample: &Tensor) -> Result<Tensor> {
        let call = self.state.calls;
        let half = if call.is_multiple_of(2) { self.stride / 2 } else { 0 };
        let target = timestep.checked_sub(half);
        let start_timestep = at(&self.timesteps, call / 4 * 4)?;
        let weight = if matches!(call % 4, 1 | 2) { 1.0 / 3.0 } else { 1.0 / 6.0 };
        let weighted = (output * weight)?;
        let sum = match self.state.sum.take() {
            Some(sum) => (sum + weighted)?,
            None => weighted,
        };
        let slope = match call % 4 {
            0 => {
                self.state.remember(output);
                self.state.start = Some(sample.clone());
                output
            }
            3 => &sum,
            _ => output,
        };
        let start = self.state.start.as_ref().unwrap_or(sample);
        let next = self.transfer(start, start_timestep, target, slope)?;
        if call % 4 != 3 {
            self.state.sum = Some(sum);
        }
        Ok(next)
    }

    /// A step of the linear multistep method, of the order that the outputs so far allow.
    fn multistep(&mut self, output: &Tensor, timestep: usize, sample: &Tensor) -> Result<Tensor> {
        // The second call repeats the first step with the mean slope of its ends.
        if self.state.calls == 1 {
            let first = self.state.outputs.front();
            let slope = match first {
                Some(first) => ((output + first)? / 2.0)?,
                None => output.clone(),
            };
            let start = self.state.start.take();
            return self.transfer(
                start.as_ref().unwrap_or(sample),
                timestep + self.stride,
                Some(timestep),
                &slope,
            );
        }
        self.state.remember(output);
        if self.state.calls == 0 {
            self.state.start = Some(sample.clone());
        }
        let (weights, divisor): (&[f64], f32) = match self.state.outputs.len() {
            0 | 1 => (&[1.0], 1.0),
            2 => (&[3.0, -1.0], 2.0),
            3 => (&[23.0, -16.0, 5.0], 12.0),
            _ => (&[55.0, -59.0, 37.0, -9.0], 24.0),
        };
        let mut slope = output.zeros_like()?;
        for (output, weight) in self.state.outputs.iter().zip(weights) {
            slope = (slope + (output * *weight)?)?;
        }
        let slope = divide(&slope, divisor)?;
        self.transfer(sample, timestep, timestep.checked_sub(self.stride), &slope)
    }

    /// Formula 9 of the paper: moves `sample` from `timestep` to `target` (`None`: past the first) along the model's
    /// output `slope`.
    fn transfer(
        &self,
        sample: &Tensor,
        timestep: usize,
        target: Option<usize>,
        slope: &Tensor,
    ) -> Result<Tensor> {
        let alpha = self.schedule.alpha_bar(timestep)?;
        let target_alpha = match target {
            Some(target) => self.schedule.alpha_bar(target)?,
            None => self.final_alpha_bar,
        };
        let (beta, target_beta) = (1.0 - alpha, 1.0 - target_alpha);
        let noise = match self.prediction {
            PredictionType::Velocity => {
                ((slope * f64::from(alpha.sqrt()))? + (sample * f64::from(beta.sqrt()))?)?
            }
            PredictionType::Epsilon | PredictionType::Sample => slope.clone(),
        };
        let sample_scale = (target_alpha / alpha).sqrt();
        let denominator = alpha * target_beta.sqrt() + (alpha * beta * target_alpha).sqrt();
        let change = divide(&(noise * f64::from(target_alpha - alpha))?, denominator)?;
        Ok(((sample * f64::from(sample_scale))? - change)?)
    }
}

/// The timesteps of a run without Runge–Kutta steps: descending, the second one twice.
fn multistep_timesteps(ascending: &[usize]) -> Vec<usize> {
    let mut timesteps: Vec<usize> = ascending.iter().rev().copied().collect();
    if let Some(&second) = timesteps.get(1) {
        timesteps.insert(1, second);
    }
    timesteps
}

/// The timesteps of a run with Runge–Kutta steps over its first four timesteps a > b > c > d, where `half` is half a
/// step h: `a, b + h, b + h, b, b, c + h, c + h, c, c, d + h, d + h, d`, and from d on the rest, descending.
fn runge_kutta_timesteps(ascending: &[usize], half: usize) -> Vec<usize> {
    let mut descending = ascending.iter().rev().copied();
    let mut timesteps: Vec<usize> = descending.next().into_iter().collect();
    for timestep in descending.by_ref().take(RUNGE_KUTTA_STEPS - 1) {
        let middle = timestep + half;
        timesteps.extend([middle, middle, timestep, timestep]);
    }
    // The last Runge–Kutta step ends at the second d, where the multistep method begins.
    timesteps.extend(descending);
    timesteps
}

impl Scheduler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.model_timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        at(&self.timesteps, index)?;
        Ok(sample.clone())
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        index: usize,
        sample: &Tensor,
        _: &mut dyn Noise,
    ) -> Result<Tensor> {
        let timestep = at(&self.timesteps, index)?;
        let next = if self.state.calls < self.runge_kutta_calls {
            self.runge_kutta(model_output, timestep, sample)?
        } else {
            self.multistep(model_output, timestep, sample)?
        };
        self.state.calls += 1;
        Ok(next)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.schedule.add_noise(original, noise, at(&self.timesteps, index)?)
    }

    fn linear_copy(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timesteps_of_the_paper() {
        let ascending = [100, 200, 300, 400, 500];
        assert_eq!(multistep_timesteps(&ascending), [500, 400, 400, 300, 200, 100]);
        assert_eq!(multistep_timesteps(&[1]), [1]);
        assert_eq!(
            runge_kutta_timesteps(&ascending, 50),
            [500, 450, 450, 400, 400, 350, 350, 300, 300, 250, 250, 200, 200, 100]
        );
    }
}
