//! Expresses scheduler steps as linear combinations, which a device computes in one kernel.

use candle_core::{DType, Device, Tensor};

use super::Scheduler;
use crate::random::Noise;
use crate::{Error, Result};

/// A term of the next sample, besides this step's sample and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// The sample of this many steps before.
    Sample(usize),
    /// The output of this many steps before.
    Output(usize),
}

/// A scheduler step as a weighted sum of tensors.
#[derive(Debug, Clone)]
pub(crate) struct LinearUpdate {
    pub sample: f32,
    pub output: f32,
    pub history: Vec<(Term, f32)>,
    /// The factor of the next sample as the model's input.
    pub input: f32,
}

/// The steps of a run from `first_index` on, if they are linear in samples and outputs.
///
/// The weights are measured: a copy of the run steps through unit vectors, one for each sample and output that a step
/// sees, and the results are the weights.
///
/// # Errors
/// If the scheduler fails.
pub(crate) fn linear_updates(
    scheduler: &dyn Scheduler,
    first_index: usize,
) -> Result<Option<Vec<LinearUpdate>>> {
    let Some(mut run) = scheduler.linear_copy() else { return Ok(None) };
    let count = run.timesteps().len().saturating_sub(first_index);
    let one = Tensor::ones(1, DType::F64, &Device::Cpu)?;
    let mut updates = Vec::with_capacity(count);
    for step in 0..count {
        let index = first_index + step;
        let (sample, output) = (unit(2 * step, 2 * count)?, unit(2 * step + 1, 2 * count)?);
        let weights = run.step(&output, index, &sample, &mut NoNoise)?.to_vec1::<f64>()?;
        let mut update = LinearUpdate { sample: 0.0, output: 0.0, history: Vec::new(), input: 1.0 };
        for (place, weight) in weights.into_iter().enumerate().filter(|(_, weight)| *weight != 0.0) {
            let (age, weight) = (step - (place / 2).min(step), weight as f32);
            match (place % 2, age) {
                (0, 0) => update.sample = weight,
                (_, 0) => update.output = weight,
                (0, age) => update.history.push((Term::Sample(age), weight)),
                (_, age) => update.history.push((Term::Output(age), weight)),
            }
        }
        if step + 1 < count {
            update.input =
                run.scale_model_input(&one, index + 1)?.to_vec1::<f64>()?.iter().sum::<f64>() as f32;
        }
        updates.push(update);
    }
    Ok(Some(updates))
}

/// A zero vector with a one at `place`.
fn unit(place: usize, length: usize) -> Result<Tensor> {
    Ok(Tensor::from_iter((0..length).map(|i| f64::from(i == place)), &Device::Cpu)?)
}

/// Linear runs draw no noise.
struct NoNoise;

impl Noise for NoNoise {
    fn normal(&mut self, _: &[usize]) -> Result<Tensor> {
        Err(Error::option("scheduler", "draws noise in a step that was said to be a sum"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PredictionType, SchedulerConfig, SchedulerKind, Steps};
    use super::*;
    use crate::random::TorchCpu;
    use test_support::TestResult;

    const STEPS: usize = 9;

    fn config(kind: SchedulerKind, prediction: PredictionType) -> Result<SchedulerConfig> {
        let json = r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "beta_end": 0.012, "steps_offset": 1, "skip_prk_steps": true, "clip_sample": false}"#;
        let mut config = SchedulerConfig::from_json(json, "scheduler_config.json")?;
        config.prediction_type = prediction;
        Ok(config.with_kind(kind))
    }

    /// Compared in f64, where both orders of summation agree up to the rounding of the weights.
    #[test]
    fn sums_are_what_the_schedulers_step_to() -> TestResult {
        let kinds = [
            SchedulerKind::Ddim,
            SchedulerKind::EulerDiscrete,
            SchedulerKind::Pndm,
            SchedulerKind::DpmSolverMultistep,
            SchedulerKind::LmsDiscrete,
        ];
        let mut noise = TorchCpu::new(7);
        let mut random = || noise.normal(&[6])?.to_dtype(DType::F64).map_err(Error::from);
        for kind in kinds {
            for prediction in [PredictionType::Epsilon, PredictionType::Velocity] {
                for first in [0, 3] {
                    let mut scheduler = config(kind, prediction)?.build_for(&Steps::Count(STEPS))?;
                    let updates = linear_updates(scheduler.as_ref(), first)?.ok_or("no sums")?;
                    assert_eq!(updates.len(), scheduler.timesteps().len() - first);
                    let (mut samples, mut outputs) = (vec![random()?], Vec::new());
                    for (step, update) in updates.iter().enumerate() {
                        outputs.push(random()?);
                        let (sample, output) = (&samples[step], &outputs[step]);
                        let mut sum =
                            ((sample * f64::from(update.sample))? + (output * f64::from(update.output))?)?;
                        for &(term, weight) in &update.history {
                            let earlier = match term {
                                Term::Sample(age) => &samples[step - age],
                                Term::Output(age) => &outputs[step - age],
                            };
                            sum = (sum + (earlier * f64::from(weight))?)?;
                        }
                        let next = scheduler.step(output, first + step, sample, &mut NoNoise)?;
                        let largest = next.abs()?.max(0)?.to_scalar::<f64>()?;
                        let difference = (&next - sum)?.abs()?.max(0)?.to_scalar::<f64>()?;
                        // A handful of weights, each rounded to f32.
                        assert!(
                            difference <= 1e-5 * largest.max(1.0),
                            "{kind} {prediction:?} {step}: {difference}"
                        );
                        if step + 1 < updates.len() {
                            let input = scheduler.scale_model_input(&next, first + step + 1)?;
                            let difference = (input - (&next * f64::from(update.input))?)?.abs()?.max(0)?;
                            assert!(difference.to_scalar::<f64>()? <= 1e-6 * largest);
                        }
                        samples.push(next);
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_sum_has_none() -> TestResult {
        let updates = |config: SchedulerConfig| -> Result<bool> {
            Ok(linear_updates(config.build_for(&Steps::Count(STEPS))?.as_ref(), 0)?.is_some())
        };
        let ddim = || config(SchedulerKind::Ddim, PredictionType::Epsilon);
        assert!(updates(ddim()?)?);
        let mut clipped = ddim()?;
        clipped.clip_sample = Some(true);
        assert!(!updates(clipped)?);
        assert!(!updates(ddim()?.with_eta(0.5)?)?);
        for kind in [SchedulerKind::EulerAncestralDiscrete, SchedulerKind::Ddpm, SchedulerKind::Lcm] {
            assert!(!updates(config(kind, PredictionType::Epsilon)?)?, "{kind}");
        }
        Ok(())
    }
}
