//! Runs, optimisers and parameters through the public interface.

use altclip_training::{Gradients, Metrics, Observer, Optimizer, OptimizerConfig, Parameters, Result, Run};
use candle_core::{Device, Tensor};
use fused_ops::Linear;
use rand::RngExt;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The values of an optimiser's tensors by name.
type State = BTreeMap<String, Vec<f32>>;

struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, _: &str, metrics: &Metrics, _: usize) {
        self.0.push(metrics.loss);
    }

    fn note(&mut self, _: &str, _: &str) {}
}

fn config(steps: usize) -> OptimizerConfig {
    OptimizerConfig {
        steps,
        learning_rate: 1e-2,
        warmup_steps: 3,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        max_grad_norm: 0.5,
        ema_decay: 0.9,
    }
}

/// Fits a linear layer to a noisy line; the loss function fails before step `until`, as if the process were killed.
fn train(folder: &Path, until: usize) -> Result<(Vec<f64>, State)> {
    let parameters = Parameters::new(5);
    let layer = Linear::new(4, 3, true, parameters.var_builder(&Device::Cpu))?;
    let mut optimizer = Optimizer::new(config(12), &parameters)?;
    let mut losses = Losses(Vec::new());
    let mut step = None;
    let run = Run::open(folder, 7)?.save_every(Duration::ZERO);
    let first = optimizer.step_count();
    let result = run.train(
        &mut optimizer,
        &mut losses,
        |rng| {
            let now = step.map_or(first, |s: usize| s + 1);
            step = Some(now);
            if losses_so_far(folder) >= until {
                return Err(altclip_training::Error::Setting("killed".to_owned()));
            }
            let x: Vec<f32> = (0..20).map(|_| rng.random_range(-1f32..1.)).collect();
            let x = Tensor::from_vec(x, (5, 4), &Device::Cpu)?;
            let target = x.sum_keepdim(1)?.broadcast_as((5, 3))?;
            Ok(vec![Gradients::of(&(layer.forward(&x)? - target)?.sqr()?.mean_all()?)?])
        },
        || Ok(image::RgbImage::new(1, 1)),
    );
    match result {
        Err(altclip_training::Error::Setting(_)) => {}
        other => other?,
    }
    let state = optimizer.state().into_iter();
    let state = state.map(|(name, tensor)| Ok((name, tensor.flatten_all()?.to_vec1::<f32>()?)));
    Ok((losses.0, state.collect::<candle_core::Result<_>>()?))
}

fn losses_so_far(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_resumed_run_is_bit_equal_to_an_unbroken_one() -> Result<()> {
    let (unbroken, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (expected_losses, expected) = train(unbroken.path(), usize::MAX)?;
    assert_eq!(expected_losses.len(), 12);
    let mut losses = Vec::new();
    for until in [4, 5, 9, usize::MAX] {
        let (part, state) = train(broken.path(), until)?;
        losses.extend(part);
        if until == usize::MAX {
            assert_eq!(state, expected);
        }
    }
    assert_eq!(losses, expected_losses);
    let metrics = |folder: &Path| std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics(broken.path()), metrics(unbroken.path()));
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

/// The first AdamW step moves every weight by the learning rate against the sign of its gradient, apart from decay.
#[test]
fn the_first_step_is_the_learning_rate() -> Result<()> {
    let parameters = Parameters::new(3);
    let layer = Linear::new(2, 2, true, parameters.var_builder(&Device::Cpu))?;
    let before = parameters.snapshot()?;
    let config = OptimizerConfig { warmup_steps: 1, weight_decay: 0., max_grad_norm: 1e9, ..config(1000) };
    let mut optimizer = Optimizer::new(config, &parameters)?;
    let loss = layer.forward(&Tensor::new(&[[1f32, -2.]], &Device::Cpu)?)?.sum_all()?;
    optimizer.step(&[Gradients::of(&loss)?])?;
    let after = parameters.snapshot()?;
    let moved = (&after["weight"] - &before["weight"])?.to_vec2::<f32>()?;
    for row in moved {
        assert!((row[0] + 0.01).abs() < 1e-6 && (row[1] - 0.01).abs() < 1e-6, "{row:?}");
    }
    Ok(())
}

#[test]
fn a_checkpoint_of_another_model_is_one_clear_error() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), 4)?;
    let parameters = Parameters::new(5);
    let layer = Linear::new(6, 3, true, parameters.var_builder(&Device::Cpu))?;
    let mut optimizer = Optimizer::new(config(12), &parameters)?;
    let run = Run::open(folder.path(), 7)?;
    let loss = |_: &mut rand_chacha::ChaCha8Rng| {
        let ones = Tensor::ones((1, 6), candle_core::DType::F32, &Device::Cpu)?;
        Ok(vec![Gradients::of(&layer.forward(&ones)?.sum_all()?)?])
    };
    let error = run.train(&mut optimizer, &mut Losses(Vec::new()), loss, || Ok(image::RgbImage::new(1, 1)));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("state.safetensors") && error.contains("[3, 6]"), "{error}");
    Ok(())
}
