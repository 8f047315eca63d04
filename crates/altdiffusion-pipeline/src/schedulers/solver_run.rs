//! Implements what DPM-Solver and UniPC share: a run's noise levels, by log signal-to-noise ratio.

use candle_core::Tensor;

use super::{FinalSigma, NoiseSchedule, SchedulerConfig, SigmaSpacing, Steps, TimestepSpacing, at, sigmas};
use crate::{Error, Result};

/// A noise level: the sample is `α x₀ + σ ε` with α² + σ² = 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoiseLevel {
    /// √ᾱ
    pub alpha: f32,
    /// √(1 − ᾱ)
    pub sigma: f32,
    /// ln(α / σ); infinite at a noise-free level.
    pub lambda: f32,
}

impl NoiseLevel {
    /// The level with this ratio σ / α.
    fn of_ratio(ratio: f32) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        let sigma = ratio * alpha;
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

/// The noise levels of a run.
#[derive(Debug, Clone)]
pub(super) struct SolverRun {
    /// Timesteps, descending, integers.
    pub timesteps: Vec<f64>,
    /// The level at each step and after the last.
    levels: Vec<NoiseLevel>,
    /// Whether the run ends noise-free.
    pub ends_clean: bool,
}

impl SolverRun {
    /// The run of `steps` through the noise levels of `schedule`, with timesteps spread by `spacing`. It starts from
    /// a λ of at least `lambda_min`.
    ///
    /// # Errors
    /// If there are no steps or as many as training timesteps, or timesteps are combined with a spacing of the
    /// sigmas.
    pub(super) fn new(
        config: &SchedulerConfig,
        schedule: &NoiseSchedule,
        spacing: TimestepSpacing,
        lambda_min: f64,
        steps: &Steps,
    ) -> Result<Self> {
        let training = schedule.sigmas();
        let ends = training.first().copied().zip(training.last().copied());
        let (smallest, largest) =
            ends.ok_or_else(|| config.error("num_train_timesteps", "is 0, expected at least 1"))?;
        let sigma_spacing = config.known_sigma_spacing();
        let spread = sigma_spacing.spread(largest.into(), smallest.into(), steps.count());
        let (timesteps, ratios): (Vec<f64>, Vec<f64>) = match (steps, spread) {
            (Steps::Timesteps(given), _) => {
                sigma_spacing.check_given_timesteps()?;
                given
                    .iter()
                    .map(|&timestep| (timestep as f64, sigmas::interpolate(&training, timestep as f64)))
                    .unzip()
            }
            (_, spread) => {
                let train = last_timestep(schedule, lambda_min);
                let timesteps = spacing.spread_for_solver(
                    steps.count(),
                    config.num_train_timesteps,
                    train,
                    config.steps_offset,
                )?;
                match spread {
                    Some(spread) => {
                        let logarithms: Vec<f32> = training.iter().map(|sigma| sigma.ln()).collect();
                        let timestep_of =
                            |&sigma: &f64| whole(sigma_spacing, sigmas::timestep_of(sigma, &logarithms));
                        (spread.iter().map(timestep_of).collect(), spread)
                    }
                    None => timesteps
                        .into_iter()
                        .map(|timestep| (timestep as f64, sigmas::interpolate(&training, timestep as f64)))
                        .unzip(),
                }
            }
        };
        let last = match config.final_sigmas_type {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => smallest,
        };
        let levels = ratios.into_iter().map(|ratio| ratio as f32).chain([last]).map(NoiseLevel::of_ratio);
        Ok(Self { timesteps, levels: levels.collect(), ends_clean: last == 0.0 })
    }

    /// The noise level at `index`.
    pub(super) fn level(&self, index: usize) -> Result<NoiseLevel> {
        at(&self.levels, index)
    }

    /// The number of steps.
    pub(super) fn count(&self) -> usize {
        self.timesteps.len()
    }

    /// Returns the sample unscaled, after checking `index`.
    pub(super) fn scale_model_input(&self, sample: &Tensor, index: usize) -> Result<Tensor> {
        at(&self.timesteps, index)?;
        Ok(sample.clone())
    }

    /// Adds noise to a clean sample, at the level of `index`.
    pub(super) fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        let level = self.level(index)?;
        Ok(((original * f64::from(level.alpha))? + (noise * f64::from(level.sigma))?)?)
    }
}

/// Makes a timestep an integer: rounded for Karras' and Lu's spacings, truncated for the others.
fn whole(spacing: SigmaSpacing, timestep: f64) -> f64 {
    match spacing {
        SigmaSpacing::Karras | SigmaSpacing::Lu => timestep.round_ties_even(),
        SigmaSpacing::Timesteps | SigmaSpacing::Exponential | SigmaSpacing::Beta => timestep.trunc(),
    }
}

/// How many training timesteps have at least this λ, counted from the first.
fn last_timestep(schedule: &NoiseSchedule, lambda_min: f64) -> usize {
    let lambda = |alpha_bar: f32| alpha_bar.sqrt().ln() - (1.0 - alpha_bar).sqrt().ln();
    let alpha_bars = schedule.alphas_cumprod();
    alpha_bars.iter().filter(|alpha_bar| f64::from(lambda(**alpha_bar)) >= lambda_min).count()
}

impl TimestepSpacing {
    /// `steps` integer timesteps, descending, below `last`, which is at most `train`, the number of training
    /// timesteps. Except with the trailing spacing, they stop one step short of timestep 0, where solvers end.
    ///
    /// # Errors
    /// If there are no steps, or too many for the timesteps.
    fn spread_for_solver(self, steps: usize, train: usize, last: usize, offset: usize) -> Result<Vec<usize>> {
        let most = if self == Self::Trailing { last } else { last.saturating_sub(1) };
        if steps == 0 || steps > most {
            let problem = format!("{steps} steps, but the run has {last} timesteps: expected 1 to {most}");
            return Err(Error::option("steps", problem));
        }
        let timesteps: Vec<usize> = match self {
            Self::Linspace => {
                let distance = (last - 1) as f64 / steps as f64;
                (1..=steps).rev().map(|step| (step as f64 * distance).round_ties_even() as usize).collect()
            }
            Self::Leading => {
                let distance = last / (steps + 1);
                (1..=steps).rev().map(|step| step * distance + offset).collect()
            }
            Self::Trailing => {
                let (last, ratio) = (last as f64, train as f64 / steps as f64);
                // NumPy's `arange` increments by the difference of its first two values, which are rounded.
                let distance = last - (last - ratio);
                let timesteps = (0..steps).map(|step| last - step as f64 * distance);
                timesteps
                    .map(|timestep| timestep.round_ties_even() - 1.0)
                    .take_while(|timestep| *timestep >= 0.0)
                    .map(|timestep| timestep as usize)
                    .collect()
            }
        };
        match timesteps.first() {
            Some(&first) if first >= train => Err(Error::option(
                "steps",
                format!(
                    "with {steps} steps and a steps_offset of {offset} the first timestep is {first}, but the model \
                     knows those below {train}: expected fewer steps"
                ),
            )),
            _ => Ok(timesteps),
        }
    }
}
