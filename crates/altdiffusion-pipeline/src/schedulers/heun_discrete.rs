//! Implements Heun's method.

use candle_core::Tensor;

use super::sigma_run::{SigmaRun, SigmaSettings};
use super::{
    NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind, Steps, divide, limit::Limit,
};
use crate::Result;
use crate::random::Noise;

/// Heun steps along the probability flow (Karras et al. 2022, algorithm 1, <https://arxiv.org/abs/2206.00364>): an
/// Euler step, a model call at its end, and the step again with the mean of both slopes. The last step, which ends
/// noise-free, is an Euler step, so a run of n steps has 2 n − 1 model calls. It may start at any even index.
#[derive(Debug, Clone)]
pub struct HeunDiscrete {
    prediction: PredictionType,
    limit: Limit,
    /// Every σ but the first and the last occurs twice: as the end of a step, and as the start of the next.
    run: SigmaRun,
    /// Where the current step started, if its second call comes next.
    start: Option<FirstStage>,
}

#[derive(Debug, Clone)]
struct FirstStage {
    sample: Tensor,
    derivative: Tensor,
    /// The change of σ.
    distance: f32,
}

impl HeunDiscrete {
    /// A run of `steps`.
    ///
    /// # Errors
    /// If there are no steps or more than training timesteps, or timesteps are combined with a spacing of the sigmas.
    pub fn new(config: &SchedulerConfig, steps: &Steps) -> Result<Self> {
        steps.check(SchedulerKind::HeunDiscrete, config)?;
        let settings = SigmaSettings { spacing: config.known_sigma_spacing(), ..SigmaSettings::default() };
        let mut run = SigmaRun::new(config, &NoiseSchedule::new(config), settings, steps)?;
        let count = run.timesteps.len();
        let repeats = |index: usize| if index == 0 || index >= count { 1 } else { 2 };
        run.timesteps = repeated(&run.timesteps, repeats);
        run.sigmas = repeated(&run.sigmas, repeats);
        Ok(Self { prediction: config.prediction_type, limit: config.clip(false), run, start: None })
    }
}

impl Scheduler for HeunDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.run.timesteps
    }

    fn calls_per_step(&self) -> usize {
        2
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
        let clean = self.limit.apply(&self.prediction.clean_at_sigma(model_output, sample, sigma)?)?;
        let derivative = divide(&(sample - clean)?, sigma)?;
        match self.start.take() {
            None => {
                let distance = next_sigma - sigma;
                let next = (sample + (&derivative * f64::from(distance))?)?;
                self.start = Some(FirstStage { sample: sample.clone(), derivative, distance });
                Ok(next)
            }
            Some(start) => {
                let mean = ((start.derivative + derivative)? / 2.0)?;
                Ok((start.sample + (mean * f64::from(start.distance))?)?)
            }
        }
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, index: usize) -> Result<Tensor> {
        self.run.add_noise(original, noise, index)
    }
}

/// Repeats each value `repeats` times.
fn repeated<T: Copy>(values: &[T], repeats: impl Fn(usize) -> usize) -> Vec<T> {
    values.iter().enumerate().flat_map(|(index, &value)| std::iter::repeat_n(value, repeats(index))).collect()
}
