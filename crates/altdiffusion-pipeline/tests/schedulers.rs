//! Whole trajectories against diffusers, under a closed-form model in place of a network.

use std::{collections::HashMap, path::PathBuf};

use altdiffusion_pipeline::schedulers::{EulerDiscrete, SchedulerConfig, SchedulerKind};
use candle_core::{Device, Tensor, safetensors};
use serde::Deserialize;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The largest relative error ‖a − b‖/‖b‖ of any sample of a trajectory.
const TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    config: serde_json::Value,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    steps: usize,
    init_noise_sigma: f64,
    timesteps: Vec<f64>,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn relative_error(found: &Tensor, expected: &Tensor) -> candle_core::Result<f32> {
    let norm = |tensor: &Tensor| tensor.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
    Ok(norm(&(found - expected)?)? / norm(expected)?)
}

/// The tolerance of a run that starts from samples of size `sigma`. Its first step leads to samples of size 1 by way of
/// differences between large ones, which f32 cannot hold more exactly: with a signal of (nearly) zero at the start the
/// reference itself is as far from the exact result.
fn tolerance(sigma: f64) -> f32 {
    TOLERANCE.max(f32::EPSILON * sigma as f32)
}

/// The model of the golden values: `0.7 sin(3 x + t / 100)`.
fn model(sample: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
    sample.affine(3.0, timestep / 100.0)?.sin()?.affine(0.7, 0.0)
}

fn cases() -> Result<(Golden, HashMap<String, Tensor>), Box<dyn std::error::Error>> {
    Ok((
        serde_json::from_str(&std::fs::read_to_string(golden("schedulers.json"))?)?,
        safetensors::load(golden("schedulers.safetensors"), &Device::Cpu)?,
    ))
}

#[test]
fn trajectories_are_those_of_diffusers() -> TestResult {
    let (golden, tensors) = cases()?;
    let mut worst = 0f32;
    for case in &golden.cases {
        let config = SchedulerConfig::from_json(case.config.to_string(), case.name.as_str())?;
        for run in &case.runs {
            let name = format!("{}.{}", case.name, run.steps);
            let expected = &tensors[&name];
            let mut scheduler = config.build(run.steps).map_err(|error| format!("{name}: {error}"))?;
            assert_eq!(scheduler.timesteps().len(), run.timesteps.len(), "{name}");
            for (found, expected) in scheduler.timesteps().iter().zip(&run.timesteps) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs().max(1.0) + 1e-4,
                    "{name}: {found} {expected}"
                );
            }
            let difference = (scheduler.init_noise_sigma() / run.init_noise_sigma - 1.0).abs();
            assert!(difference < 1e-6, "{name}: {}", scheduler.init_noise_sigma());

            let mut sample = (&tensors["latents"] * scheduler.init_noise_sigma())?;
            for index in 0..run.timesteps.len() {
                let error = relative_error(&sample, &expected.get(index)?)?;
                assert!(
                    error <= tolerance(run.init_noise_sigma),
                    "{name}: relative error {error} before step {index}"
                );
                worst = worst.max(error / tolerance(run.init_noise_sigma));
                let timestep = scheduler.timesteps()[index];
                let output = model(&scheduler.scale_model_input(&sample, index)?, timestep)?;
                sample = scheduler.step(&output, index, &sample)?;
            }
            let error = relative_error(&sample, &expected.get(run.timesteps.len())?)?;
            assert!(error <= tolerance(run.init_noise_sigma), "{name}: relative error {error} at the end");
            worst = worst.max(error / tolerance(run.init_noise_sigma));
        }
    }
    println!("{} cases, largest error {worst} of what is tolerated", golden.cases.len());
    Ok(())
}

#[test]
fn the_sigmas_of_euler_are_those_of_diffusers() -> TestResult {
    let (golden, tensors) = cases()?;
    for case in &golden.cases {
        for run in &case.runs {
            let name = format!("{}.{}.sigmas", case.name, run.steps);
            let Some(expected) = tensors.get(&name) else {
                continue;
            };
            let config = SchedulerConfig::from_json(case.config.to_string(), case.name.as_str())?;
            let scheduler = EulerDiscrete::new(&config, run.steps)?;
            let expected = expected.to_vec1::<f32>()?;
            assert_eq!(scheduler.sigmas().len(), expected.len(), "{name}");
            for (found, expected) in scheduler.sigmas().iter().zip(&expected) {
                assert!((found - expected).abs() <= TOLERANCE * expected.abs(), "{name}: {found} {expected}");
            }
        }
    }
    Ok(())
}

/// A model that names the true noise leads each scheduler back to the clean sample, whatever the number of steps.
#[test]
fn the_true_noise_leads_back_to_the_clean_sample() -> TestResult {
    let clean = Tensor::randn(0f32, 1.0, (1, 4, 6, 6), &Device::Cpu)?;
    let noise = Tensor::randn(0f32, 1.0, (1, 4, 6, 6), &Device::Cpu)?;
    let config = SchedulerConfig::from_json(
        r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "beta_end": 0.012, "set_alpha_to_one": true, "clip_sample": false, "steps_offset": 1}"#,
        "scheduler_config.json",
    )?;
    for kind in SchedulerKind::ALL {
        for steps in [4, 20, 50] {
            let config = config.clone().with_kind(kind);
            // Multistep and Runge-Kutta starts belong to the first step.
            let starts: &[usize] = if kind == SchedulerKind::Pndm { &[0] } else { &[0, 2] };
            for &start in starts {
                let mut scheduler = config.build(steps)?;
                let mut sample = scheduler.add_noise(&clean, &noise, start)?;
                for index in start..scheduler.timesteps().len() {
                    sample = scheduler.step(&noise, index, &sample)?;
                }
                let error = relative_error(&sample, &clean)?;
                assert!(error < 1e-3, "{kind}, {steps} steps from {start}: {error}");
            }
        }
    }
    Ok(())
}

#[test]
fn errors_name_what_is_wrong() -> TestResult {
    let error = "ddmi".parse::<SchedulerKind>().err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("scheduler: \"ddmi\" is not known; expected one of ddim, pndm, euler"));
    let config = SchedulerConfig::from_json(r#"{"_class_name": "DDIMScheduler"}"#, "a.json")?;
    for kind in SchedulerKind::ALL {
        let config = config.clone().with_kind(kind);
        for steps in [0, 1001] {
            let error = config.build(steps).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with(&format!("steps: {steps} steps"))));
        }
        let mut scheduler = config.build(4)?;
        let sample = Tensor::zeros((1, 1), candle_core::DType::F32, &Device::Cpu)?;
        assert!(scheduler.step(&sample, 99, &sample).is_err());
    }
    let contradiction = SchedulerConfig::from_json(
        r#"{"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#,
        "a.json",
    )?;
    let error = contradiction.build(4).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("prediction_type")));
    Ok(())
}
