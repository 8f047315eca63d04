//! Compares whole trajectories with diffusers, with a closed-form function instead of a network.

use altdiffusion_pipeline::random::{Noise, Rng, TorchCpu};
use altdiffusion_pipeline::schedulers::{
    EulerDiscrete, Scheduler, SchedulerConfig, SchedulerKind, SigmaSpacing, Steps, TimestepSpacing,
};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;
use test_support::{TestResult, golden_json, golden_tensors, relative_error};

/// The largest relative error ‖a − b‖/‖b‖ of any sample of a trajectory.
const TOLERANCE: f64 = 1e-5;

/// The same, in multiples of the reference's own error, if that is larger. Where the first step goes from samples in
/// the thousands to samples of size 1, or the closed-form model amplifies differences, f32 rounding shows in the
/// fifth digit; two correct implementations then differ from each other as much as from the exact result.
const PARTS_OF_REFERENCE_ERROR: f64 = 2.0;

#[derive(Deserialize)]
struct Golden {
    /// The seed of the generator that stochastic schedulers draw from.
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    config: serde_json::Value,
    eta: Option<f64>,
    frequency: f64,
    runs: Vec<Run>,
}

impl Case {
    fn config(&self) -> altdiffusion_pipeline::Result<SchedulerConfig> {
        let config = SchedulerConfig::from_json(self.config.to_string(), self.name.as_str())?;
        match self.eta {
            Some(eta) => config.with_eta(eta),
            None => Ok(config),
        }
    }
}

#[derive(Deserialize)]
struct Run {
    steps: Option<usize>,
    sigmas: Option<Vec<f32>>,
    init_noise_sigma: f64,
    timesteps: Vec<f64>,
    /// The distance between the reference in f32 and in f64.
    f32_error: f64,
}

impl Run {
    fn tolerance(&self) -> f64 {
        TOLERANCE.max(PARTS_OF_REFERENCE_ERROR * self.f32_error)
    }

    fn steps(&self) -> Steps {
        match (self.steps, &self.sigmas) {
            (Some(steps), _) => Steps::Count(steps),
            (None, Some(sigmas)) => Steps::Sigmas(sigmas.clone()),
            (None, None) => {
                let mut timesteps: Vec<usize> =
                    self.timesteps.iter().map(|timestep| *timestep as usize).collect();
                timesteps.dedup();
                Steps::Timesteps(timesteps)
            }
        }
    }

    fn name(&self, case: &Case) -> String {
        let steps = self.steps.map_or_else(|| "given".to_owned(), |steps| steps.to_string());
        format!("{}.{steps}", case.name)
    }
}

/// The golden values' model: `0.7 sin(frequency · x + t / 100)`.
fn model(frequency: f64, sample: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
    sample.affine(frequency, timestep / 100.0)?.sin()?.affine(0.7, 0.0)
}

fn cases() -> (Golden, HashMap<String, Tensor>) {
    (golden_json("schedulers.json"), golden_tensors("schedulers.safetensors"))
}

/// Runs one case, and returns its largest error relative to the tolerance.
fn run_case(
    golden: &Golden,
    tensors: &HashMap<String, Tensor>,
    case: &Case,
    run: &Run,
) -> Result<f64, String> {
    let name = run.name(case);
    let expected = &tensors[&name];
    let tolerance = run.tolerance();
    let say = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let config = case.config().map_err(|error| say(&error))?;
    let mut scheduler = config.build_for(&run.steps()).map_err(|error| say(&error))?;
    let mut noise = TorchCpu::new(golden.seed);

    let found = scheduler.timesteps();
    let same = found.len() == run.timesteps.len()
        && found.iter().zip(&run.timesteps).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0) + 1e-4);
    if !same {
        return Err(format!("{name}: timesteps {found:?}, expected {:?}", run.timesteps));
    }
    let sigma = scheduler.init_noise_sigma();
    if (sigma / run.init_noise_sigma - 1.0).abs() > 1e-6 {
        return Err(format!("{name}: starts from {sigma}, expected {}", run.init_noise_sigma));
    }
    let mut sample = (&tensors["latents"] * sigma).map_err(|error| say(&error))?;
    let mut worst = 0f64;
    for index in 0..=run.timesteps.len() {
        let expected = expected.get(index).map_err(|error| say(&error))?;
        let error = relative_error(&sample, &expected);
        if error > tolerance || error.is_nan() {
            return Err(format!("{name}: relative error {error:e} after {index} steps"));
        }
        worst = worst.max(error / tolerance);
        if index < run.timesteps.len() {
            sample = step(case.frequency, scheduler.as_mut(), index, &sample, &mut noise)
                .map_err(|error| say(&error))?;
        }
    }
    Ok(worst)
}

fn step(
    frequency: f64,
    scheduler: &mut dyn Scheduler,
    index: usize,
    sample: &Tensor,
    noise: &mut dyn Noise,
) -> altdiffusion_pipeline::Result<Tensor> {
    let output =
        model(frequency, &scheduler.scale_model_input(sample, index)?, scheduler.timesteps()[index])?;
    scheduler.step(&output, index, sample, noise)
}

#[test]
fn trajectories_are_those_of_diffusers() -> TestResult {
    let (golden, tensors) = cases();
    let (mut worst, mut wrong) = (0f64, Vec::new());
    for case in &golden.cases {
        for run in &case.runs {
            match run_case(&golden, &tensors, case, run) {
                Ok(error) => worst = worst.max(error),
                Err(problem) => wrong.push(problem),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), golden.cases.len(), wrong.join("\n"));
    println!("{} cases, largest error {worst} of what is tolerated", golden.cases.len());
    Ok(())
}

/// diffusers' ancestral Euler has no such spacings.
#[test]
fn ancestral_steps_through_any_sigmas_are_those_of_k_diffusion() -> TestResult {
    const SEED: u64 = 7;
    const FREQUENCY: f64 = 3.0;
    let tensors = golden_tensors("k_diffusion.safetensors");
    for spacing in [SigmaSpacing::Karras, SigmaSpacing::Exponential] {
        for steps in [4, 20] {
            let name = format!("{spacing}.{steps}");
            let config = SchedulerConfig::default().with_kind(SchedulerKind::EulerAncestralDiscrete);
            let config = config.with_timestep_spacing(TimestepSpacing::Linspace)?;
            let mut scheduler = config.with_sigma_spacing(spacing)?.build(steps)?;
            let timesteps = tensors[&format!("{name}.timesteps")].to_vec1::<f32>()?;
            assert_eq!(scheduler.timesteps().len(), steps);
            for (found, expected) in scheduler.timesteps().iter().zip(timesteps) {
                assert!((found - f64::from(expected)).abs() < 1e-3, "{name}: {found}, expected {expected}");
            }
            let largest = tensors[&format!("{name}.sigmas")].to_vec1::<f32>()?[0];
            assert!((scheduler.init_noise_sigma() / f64::from(largest) - 1.0).abs() < 1e-6, "{name}");
            let mut noise = TorchCpu::new(SEED);
            let mut sample = (&tensors["latents"] * scheduler.init_noise_sigma())?;
            for index in 0..=steps {
                let error = relative_error(&sample, &tensors[&name].get(index)?);
                assert!(error < TOLERANCE, "{name}: relative error {error:e} after {index} steps");
                if index < steps {
                    sample = step(FREQUENCY, scheduler.as_mut(), index, &sample, &mut noise)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_scheduler_has_a_case() -> TestResult {
    let (golden, _) = cases();
    for kind in SchedulerKind::ALL {
        let is_there = golden
            .cases
            .iter()
            .any(|case| case.config().is_ok_and(|config| config.kind().ok() == Some(kind)));
        assert!(is_there, "{kind}");
    }
    Ok(())
}

#[test]
fn the_sigmas_of_euler_are_those_of_diffusers() -> TestResult {
    let (golden, tensors) = cases();
    for case in &golden.cases {
        for run in &case.runs {
            let name = run.name(case);
            let Some(expected) = tensors.get(&format!("{name}.sigmas")) else {
                continue;
            };
            let scheduler = EulerDiscrete::new(&case.config()?, &run.steps())?;
            let expected = expected.to_vec1::<f32>()?;
            assert_eq!(scheduler.sigmas().len(), expected.len(), "{name}");
            for (found, expected) in scheduler.sigmas().iter().zip(&expected) {
                let (found, expected) = (f64::from(*found), f64::from(*expected));
                assert!((found - expected).abs() <= TOLERANCE * expected.abs(), "{name}: {found} {expected}");
            }
        }
    }
    Ok(())
}

/// With a model that predicts the true noise, each scheduler returns to the clean sample in any number of steps.
#[test]
fn the_true_noise_leads_back_to_the_clean_sample() -> TestResult {
    let clean = Tensor::randn(0f32, 1.0, (1, 4, 6, 6), &Device::Cpu)?;
    let noise = Tensor::randn(0f32, 1.0, (1, 4, 6, 6), &Device::Cpu)?;
    let config = SchedulerConfig::from_json(
        r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "beta_end": 0.012, "set_alpha_to_one": true, "clip_sample": false, "steps_offset": 1}"#,
        "scheduler_config.json",
    )?;
    for kind in SchedulerKind::ALL.into_iter().filter(|kind| !is_stochastic(*kind)) {
        for steps in [4, 20, 50] {
            let config = config.clone().with_kind(kind);
            // Multistep and Runge–Kutta starts belong to the first step.
            let starts: &[usize] = if kind == SchedulerKind::Pndm { &[0] } else { &[0, 2] };
            for &start in starts {
                let mut scheduler = config.build(steps)?;
                let mut sample = scheduler.add_noise(&clean, &noise, start)?;
                for index in start..scheduler.timesteps().len() {
                    sample = scheduler.step(&noise, index, &sample, &mut Silence)?;
                }
                let error = relative_error(&sample, &clean);
                assert!(error < 1e-3, "{kind}, {steps} steps from {start}: {error}");
            }
        }
    }
    Ok(())
}

/// With a model that predicts the clean sample, every scheduler reaches it, including the stochastic ones.
#[test]
fn the_true_sample_is_where_each_scheduler_ends() -> TestResult {
    let clean = Tensor::randn(0f32, 1.0, (1, 4, 6, 6), &Device::Cpu)?;
    let config = SchedulerConfig::from_json(
        r#"{"_class_name": "DDIMScheduler", "prediction_type": "sample", "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": false}"#,
        "scheduler_config.json",
    )?;
    // These two do not support sample prediction.
    let unable = [SchedulerKind::Pndm, SchedulerKind::EulerAncestralDiscrete];
    for kind in SchedulerKind::ALL.into_iter().filter(|kind| !unable.contains(kind)) {
        for steps in [4, 20, 50] {
            let mut scheduler = config.clone().with_kind(kind).build(steps)?;
            let mut noise = Rng::Cpu.with_seed(steps as u64);
            let mut sample = (noise.normal(clean.dims())? * scheduler.init_noise_sigma())?;
            for index in 0..scheduler.timesteps().len() {
                sample = scheduler.step(&clean, index, &sample, noise.as_mut())?;
            }
            let error = relative_error(&sample, &clean);
            assert!(error < 1e-3, "{kind}, {steps} steps: {error}");
        }
    }
    Ok(())
}

fn is_stochastic(kind: SchedulerKind) -> bool {
    matches!(
        kind,
        SchedulerKind::Ddpm
            | SchedulerKind::EulerAncestralDiscrete
            | SchedulerKind::DpmSolverMultistepSde
            | SchedulerKind::Lcm
    )
}

/// A noise source for schedulers that draw none.
struct Silence;

impl Noise for Silence {
    fn normal(&mut self, shape: &[usize]) -> altdiffusion_pipeline::Result<Tensor> {
        panic!("noise of shape {shape:?} was drawn");
    }
}

/// A run can pass its own noise instead of a generator.
#[test]
fn noise_is_drawn_by_those_that_add_it_alone() -> TestResult {
    struct Counted(usize);
    impl Noise for Counted {
        fn normal(&mut self, shape: &[usize]) -> altdiffusion_pipeline::Result<Tensor> {
            self.0 += 1;
            Ok(Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu)?)
        }
    }
    let config =
        SchedulerConfig::from_json(r#"{"_class_name": "DDIMScheduler", "steps_offset": 1}"#, "a.json")?;
    for kind in SchedulerKind::ALL {
        let mut scheduler = config.clone().with_kind(kind).build(5)?;
        let (mut sample, mut noise) =
            (Tensor::ones((1, 2), candle_core::DType::F32, &Device::Cpu)?, Counted(0));
        for index in 0..scheduler.timesteps().len() {
            sample = step(3.0, scheduler.as_mut(), index, &sample, &mut noise)?;
        }
        let expected = match kind {
            SchedulerKind::Lcm => 4,
            kind if is_stochastic(kind) => 5,
            _ => 0,
        };
        assert_eq!(noise.0, expected, "{kind}");
    }
    Ok(())
}

#[test]
fn errors_name_what_is_wrong() -> TestResult {
    let error = "ddmi".parse::<SchedulerKind>().err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "scheduler: \"ddmi\" is not known; expected one of ddpm, ddim, pndm, lms, heun, euler, \
             euler-a, dpm++-2m, dpm++-2m-sde, dpm++-s, unipc, lcm"
        )
    );
    let config = SchedulerConfig::from_json(r#"{"_class_name": "DDIMScheduler"}"#, "a.json")?;
    for kind in SchedulerKind::ALL {
        let config = config.clone().with_kind(kind);
        for steps in [0, 1001] {
            let error = config.build(steps).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with(&format!("steps: {steps} steps"))));
        }
        let mut scheduler = config.build(4)?;
        let sample = Tensor::zeros((1, 1), candle_core::DType::F32, &Device::Cpu)?;
        assert!(scheduler.step(&sample, 99, &sample, &mut TorchCpu::new(0)).is_err());
    }
    let contradiction = SchedulerConfig::from_json(
        r#"{"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#,
        "a.json",
    )?;
    let error = contradiction.build(4).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("prediction_type")));
    Ok(())
}
