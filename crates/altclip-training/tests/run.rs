//! Tests runs, optimizers and parameters through the public interface.

mod common;

use altclip_training::{
    Batch, Error, Gradients, Objective, Optimizer, OptimizerConfig, Parameters, Result, Schedule, TrainingRun,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use common::{State, Watch, line_gradients, state};
use fused_ops::Linear;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn config(steps: usize) -> OptimizerConfig {
    common::config(steps, 1)
}

/// Fits a linear layer to a noisy line, and fails at a batch, as if the process were killed there.
struct Line {
    layer: Linear,
    killed_at: usize,
}

impl Objective for Line {
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients> {
        if batch.number >= self.killed_at {
            return Err(Error::Setting("killed".to_owned()));
        }
        line_gradients(&self.layer, batch)
    }
}

/// Runs until the batch `killed_at`, with a checkpoint after every step.
fn train(folder: &Path, config: OptimizerConfig, killed_at: usize) -> Result<(Watch, State)> {
    let mut watch = Watch::default();
    let state = train_watched(folder, config, killed_at, &mut watch)?;
    Ok((watch, state))
}

fn train_watched(
    folder: &Path,
    config: OptimizerConfig,
    killed_at: usize,
    watch: &mut Watch,
) -> Result<State> {
    let parameters = Parameters::new(5);
    let layer = Linear::new(4, 3, true, parameters.var_builder(&Device::Cpu))?;
    let mut optimizer = Optimizer::new(config, &parameters)?;
    let run = TrainingRun::open(folder, 7)?.save_every(Duration::ZERO);
    match run.train(&mut optimizer, watch, &Line { layer, killed_at }) {
        Err(Error::Setting(text)) if text == "killed" => {}
        other => drop(other?),
    }
    state(&optimizer)
}

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    found.sort();
    found
}

#[test]
fn a_resumed_run_is_bit_equal_to_an_unbroken_one() -> Result<()> {
    for accumulate in [1, 3] {
        let config = || OptimizerConfig { accumulate, ..config(12) };
        let (unbroken, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (expected_watch, expected) = train(unbroken.path(), config(), usize::MAX)?;
        assert_eq!(expected_watch.losses.len(), 12);
        let mut losses = Vec::new();
        for until in [4, 5, 9, usize::MAX] {
            let (watch, state) = train(broken.path(), config(), until)?;
            losses.extend(watch.losses);
            if until == usize::MAX {
                assert_eq!(state, expected);
            }
        }
        assert_eq!(losses, expected_watch.losses);
        let metrics = |folder: &Path| fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        assert_eq!(metrics(broken.path()), metrics(unbroken.path()));
        assert!(unbroken.path().join("loss.png").exists());
    }
    Ok(())
}

#[test]
fn the_two_newest_checkpoints_are_kept_and_rubbish_is_removed() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".altdiffusion-abcdefghijkl.part"), "half a checkpoint").unwrap();
    train(folder.path(), config(12), 6)?;
    assert!(!folder.path().join(".altdiffusion-abcdefghijkl.part").exists());
    let names: Vec<String> = checkpoints(folder.path())
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["checkpoint-00000005.safetensors", "checkpoint-00000006.safetensors"]);
    Ok(())
}

#[test]
fn a_damaged_checkpoint_is_passed_over() -> Result<()> {
    let (unbroken, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, expected) = train(unbroken.path(), config(12), usize::MAX)?;
    train(damaged.path(), config(12), 6)?;
    let newest = checkpoints(damaged.path()).pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let (watch, state) = train(damaged.path(), config(12), usize::MAX)?;
    assert_eq!(state, expected);
    assert!(watch.notes[0].starts_with("passed over") && watch.notes[0].contains("checkpoint-00000006"));
    assert_eq!(watch.notes[1], "goes on after step 5");

    // With nothing left to resume from, nothing is deleted.
    for path in checkpoints(damaged.path()) {
        fs::write(path, "no checkpoint").unwrap();
    }
    let error = train(damaged.path(), config(12), usize::MAX).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("checkpoint-00000012")));
    assert_eq!(checkpoints(damaged.path()).len(), 2);
    Ok(())
}

#[test]
fn a_run_that_is_asked_to_end_goes_on_from_there() -> Result<()> {
    let (unbroken, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, expected) = train(unbroken.path(), config(12), usize::MAX)?;
    let mut watch = Watch { ends_after: Some(5), ..Watch::default() };
    let error = train_watched(folder.path(), config(12), usize::MAX, &mut watch).unwrap_err();
    assert!(matches!(error, Error::Interrupted { step: 5, steps: 12, .. }), "{error}");
    assert_eq!(train(folder.path(), config(12), usize::MAX)?.1, expected);
    Ok(())
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let run = TrainingRun::open(folder.path(), 1).unwrap();
    let error = TrainingRun::open(folder.path(), 1).unwrap_err().to_string();
    assert!(error.ends_with("another process is training in this folder"), "{error}");
    drop(run);
    assert!(TrainingRun::open(folder.path(), 1).is_ok());
}

#[test]
fn a_checkpoint_of_another_model_or_seed_is_one_clear_error() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), config(12), 4)?;
    let before: Vec<Vec<u8>> =
        checkpoints(folder.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let resume = |width: usize, seed: u64| -> Result<String> {
        let parameters = Parameters::new(5);
        let layer = Linear::new(width, 3, true, parameters.var_builder(&Device::Cpu))?;
        let mut optimizer = Optimizer::new(config(12), &parameters)?;
        let objective = Line { layer, killed_at: 0 };
        let result =
            TrainingRun::open(folder.path(), seed)?.train(&mut optimizer, &mut Watch::default(), &objective);
        Ok(result.unwrap_err().to_string())
    };
    let error = resume(6, 7)?;
    assert!(error.contains("checkpoint-00000004.safetensors") && error.contains("[3, 6]"), "{error}");
    let error = resume(4, 8)?;
    assert!(error.ends_with("was made with seed 7, expected 8"), "{error}");
    let after: Vec<Vec<u8>> = checkpoints(folder.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn initial_weights_depend_on_seed_and_name_alone() -> Result<()> {
    let weights = |seed: u64, names: [&str; 2]| -> Result<State> {
        let parameters = Parameters::new(seed);
        let vb = parameters.var_builder(&Device::Cpu);
        for name in names {
            Linear::new(3, 2, true, vb.pp(name))?;
        }
        let flat = |(name, var): (String, candle_core::Var)| Ok((name, var.flatten_all()?.to_vec1()?));
        Ok(parameters.iter().map(flat).collect::<candle_core::Result<_>>()?)
    };
    assert_eq!(weights(1, ["a", "b"])?, weights(1, ["b", "a"])?);
    assert_ne!(weights(1, ["a", "b"])?, weights(2, ["a", "b"])?);
    let weights = weights(1, ["a", "b"])?;
    assert_ne!(weights["a.weight"], weights["b.weight"]);
    Ok(())
}

#[test]
fn only_chosen_weights_are_trained_and_a_checkpoint_is_where_they_begin() -> Result<()> {
    let device = &Device::Cpu;
    let tensor = |value: f32, dims: &[usize]| Tensor::full(value, dims, device);
    let initial = HashMap::from([
        ("a.weight".to_owned(), tensor(1., &[2, 2])?),
        ("b.weight".to_owned(), tensor(2., &[2, 2])?),
    ]);
    let parameters = Parameters::new(1)
        .starting_from(VarBuilder::from_tensors(initial, DType::F32, device))
        .training(|name| name.starts_with("b."));
    let vb = parameters.var_builder(device);
    let layers = ["a", "b"].map(|name| Linear::new(2, 2, true, vb.pp(name)).unwrap());
    assert_eq!(parameters.fresh(), ["a.bias", "b.bias"]);
    let names: Vec<String> = parameters.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b.bias", "b.weight"]);
    let before = parameters.snapshot()?;
    assert_eq!(before["b.weight"].to_vec2::<f32>()?, [[2., 2.], [2., 2.]]);

    let mut optimizer = Optimizer::new(config(12), &parameters)?;
    let x = Tensor::new(&[[1f32, -2.]], device)?;
    let y = layers[1].forward(&layers[0].forward(&x)?)?;
    optimizer.step(&Gradients::of(&y.sum_all()?)?)?;
    let after = parameters.snapshot()?;
    for (name, is_trained) in [("a.weight", false), ("a.bias", false), ("b.weight", true), ("b.bias", true)] {
        let moved = (&after[name] - &before[name])?.abs()?.sum_all()?.to_scalar::<f32>()?;
        assert_eq!(moved > 0., is_trained, "{name}");
    }
    Ok(())
}

/// The first AdamW step moves every weight by the learning rate against the sign of its gradient, apart from decay.
#[test]
fn the_first_step_is_the_learning_rate() -> Result<()> {
    let parameters = Parameters::new(3);
    let layer = Linear::new(2, 2, true, parameters.var_builder(&Device::Cpu))?;
    let before = parameters.snapshot()?;
    let config = OptimizerConfig { warmup_steps: 1, weight_decay: 0., max_grad_norm: 1e9, ..config(1000) };
    let mut optimizer = Optimizer::new(config, &parameters)?;
    let loss = layer.forward(&Tensor::new(&[[1f32, -2.]], &Device::Cpu)?)?.sum_all()?;
    optimizer.step(&Gradients::of(&loss)?)?;
    let after = parameters.snapshot()?;
    let moved = (&after["weight"] - &before["weight"])?.to_vec2::<f32>()?;
    for row in moved {
        assert!((row[0] + 0.01).abs() < 1e-6 && (row[1] - 0.01).abs() < 1e-6, "{row:?}");
    }
    Ok(())
}

/// A single step of 1e-4 is lost on a weight of 1 in bf16, whose neighbours are 2⁻⁸ below and 2⁻⁷ above. A hundred of
/// them are not.
#[test]
fn small_steps_add_up_beside_weights_in_half_precision() -> Result<()> {
    let parameters = Parameters::new(1).computing_in(DType::BF16);
    let weight =
        parameters.var_builder(&Device::Cpu).get_with_hints(4, "weight", candle_nn::Init::Const(1.))?;
    assert_eq!(weight.dtype(), DType::BF16);
    let config = OptimizerConfig {
        learning_rate: 1e-4,
        warmup_steps: 1,
        schedule: Schedule::Constant,
        weight_decay: 0.,
        ..config(1000)
    };
    let mut optimizer = Optimizer::new(config, &parameters)?;
    let values = || weight.to_dtype(DType::F32)?.to_vec1::<f32>();
    for _ in 0..10 {
        optimizer.step(&Gradients::of(&weight.sum_all()?)?)?;
    }
    assert_eq!(values()?, [1.; 4]);
    for _ in 10..100 {
        optimizer.step(&Gradients::of(&weight.sum_all()?)?)?;
    }
    // 0.99, rounded to eight significant bits
    assert_eq!(values()?, [0.98828125; 4]);
    let master = optimizer.state()["weight.weight"].to_vec1::<f32>()?;
    assert!(master.iter().all(|value| (value - 0.99).abs() < 1e-5), "{master:?}");
    Ok(())
}

#[test]
fn schedules_have_their_shapes() {
    let rate = |schedule, step| OptimizerConfig { schedule, ..config(103) }.learning_rate_at(step);
    for schedule in [Schedule::Cosine, Schedule::Constant] {
        let warming: Vec<f64> = (0..3).map(|step| rate(schedule, step)).collect();
        assert!((warming[0] - 1e-2 / 3.).abs() < 1e-12 && (warming[2] - 1e-2).abs() < 1e-12);
    }
    assert!((rate(Schedule::Cosine, 53) - 0.5e-2).abs() < 1e-12);
    assert!(rate(Schedule::Cosine, 103) < 1e-12);
    assert_eq!(rate(Schedule::Constant, 103), 1e-2);
}
