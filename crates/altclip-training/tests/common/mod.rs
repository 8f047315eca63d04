//! Shares a small training task, and what is observed of it, among the tests of runs.

#![allow(dead_code, reason = "each test file is a program of its own and uses a part")]

use altclip_training::{Batch, Gradients, Metrics, Observer, Optimizer, OptimizerConfig, Result, Schedule};
use candle_core::{Device, Tensor};
use fused_ops::Linear;
use rand::RngExt;
use std::collections::BTreeMap;

/// An optimizer's tensors by name.
pub type State = BTreeMap<String, Vec<f32>>;

pub fn state(optimizer: &Optimizer) -> Result<State> {
    let state = optimizer.state().into_iter();
    let state = state.map(|(name, tensor)| Ok((name, tensor.flatten_all()?.to_vec1::<f32>()?)));
    Ok(state.collect::<candle_core::Result<_>>()?)
}

pub fn config(steps: usize, accumulate: usize) -> OptimizerConfig {
    OptimizerConfig {
        steps,
        learning_rate: 1e-2,
        warmup_steps: 3,
        schedule: Schedule::Cosine,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        max_grad_norm: 0.5,
        ema_decay: 0.9,
        accumulate,
    }
}

/// Collects reports, and stops the run after a number of steps.
#[derive(Default)]
pub struct Watch {
    pub losses: Vec<f64>,
    pub notes: Vec<String>,
    pub ends_after: Option<usize>,
}

impl Observer for Watch {
    fn step(&mut self, _: &str, metrics: &Metrics, _: usize) {
        self.losses.push(metrics.loss);
    }

    fn note(&mut self, _: &str, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn is_over(&mut self) -> bool {
        self.ends_after.is_some_and(|steps| self.losses.len() >= steps)
    }
}

/// The gradients of a linear layer from 4 to 3 that fits a noisy line.
pub fn line_gradients(layer: &Linear, batch: &mut Batch) -> Result<Gradients> {
    let x: Vec<f32> = (0..20).map(|_| batch.rng.random_range(-1f32..1.)).collect();
    let x = Tensor::from_vec(x, (5, 4), &Device::Cpu)?;
    let target = x.sum_keepdim(1)?.broadcast_as((5, 3))?;
    Gradients::of(&(layer.forward(&x)? - target)?.sqr()?.mean_all()?)
}
