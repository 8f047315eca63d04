//! Implements AdamW with gradient clipping, learning rate warm-up and a moving average of the weights.

use crate::gradients::Gradients;
use crate::parameters::Parameters;
use crate::settings;
use candle_core::{DType, Result, Tensor, Var};
use fused_ops::{AdamStep, blend, blend_square};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The settings of an optimisation, except the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The number of steps.
    pub steps: usize,
    /// The peak learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises to its peak.
    pub warmup_steps: usize,
    /// The learning rate after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Decay of weights with two or more dimensions, relative to the learning rate (Loshchilov & Hutter, arXiv
    /// 1711.05101).
    pub weight_decay: f64,
    /// Decay of the gradient's first moment.
    pub beta1: f64,
    /// Decay of the gradient's second moment.
    pub beta2: f64,
    /// The largest norm of all gradients together; larger ones are scaled down to it.
    pub max_grad_norm: f64,
    /// Decay of the averaged weights, which are the result, approached as `(1 + step) / (10 + step)`.
    pub ema_decay: f64,
    /// Batches whose gradients are averaged for a step.
    #[serde(default = "settings::one")]
    pub accumulate: usize,
}

/// PyTorch's AdamW over 1000 steps, with gradients clipped to norm 1.
impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            learning_rate: 1e-3,
            warmup_steps: 0,
            schedule: Schedule::Cosine,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            max_grad_norm: 1.,
            ema_decay: 0.999,
            accumulate: 1,
        }
    }
}

/// The learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to zero.
    #[default]
    Cosine,
    /// Constant.
    Constant,
}

impl OptimizerConfig {
    /// The learning rate of a step, counted from 0.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let warmup = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.);
        let decaying = self.steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (step.saturating_sub(self.warmup_steps) as f64 / decaying).min(1.);
        let shape = match self.schedule {
            Schedule::Cosine => 0.5 * (1. + (std::f64::consts::PI * progress).cos()),
            Schedule::Constant => 1.,
        };
        self.learning_rate * warmup * shape
    }
}

/// Weights, their averages and the moments of their gradients.
pub struct Optimizer {
    config: OptimizerConfig,
    /// Steps taken.
    step: usize,
    slots: Vec<Slot>,
}

struct Slot {
    name: String,
    /// The weight that the model computes with.
    weight: Var,
    /// The same in f32, where steps can be far smaller than half precision resolves; the same variable if the model
    /// computes in f32.
    master: Var,
    average: Var,
    first: Var,
    second: Var,
}

/// Added to the root of the second moment.
const EPS: f64 = 1e-8;

impl Slot {
    fn new(name: String, weight: Var) -> Result<Self> {
        let master = match weight.dtype() {
            DType::F32 => weight.clone(),
            _ => Var::from_tensor(&weight.to_dtype(DType::F32)?)?,
        };
        Ok(Self {
            name,
            average: Var::from_tensor(&master.as_tensor().copy()?)?,
            first: Var::zeros(weight.shape(), DType::F32, weight.device())?,
            second: Var::zeros(weight.shape(), DType::F32, weight.device())?,
            weight,
            master,
        })
    }

    /// Rounds the master weight to the model's.
    fn publish(&self) -> Result<()> {
        match self.weight.dtype() {
            DType::F32 => Ok(()),
            dtype => self.weight.set(&self.master.to_dtype(dtype)?),
        }
    }

    /// The parts of the state, by prefix.
    fn state(&self) -> [(&'static str, &Var); 4] {
        [
            ("weight", &self.master),
            ("average", &self.average),
            ("first", &self.first),
            ("second", &self.second),
        ]
    }
}

impl Optimizer {
    /// Starts with moments of zero.
    ///
    /// # Errors
    /// If memory for the state cannot be allocated.
    pub fn new(config: OptimizerConfig, parameters: &Parameters) -> Result<Self> {
        let slots = parameters.iter().map(|(name, weight)| Slot::new(name, weight)).collect::<Result<_>>()?;
        Ok(Self { config, step: 0, slots })
    }

    /// Steps taken so far.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// The settings.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// The trained weights, in order of name.
    pub fn weights(&self) -> impl Iterator<Item = &Var> {
        self.slots.iter().map(|slot| &slot.weight)
    }

    /// Whether all steps have been taken.
    pub fn is_finished(&self) -> bool {
        self.step >= self.config.steps
    }

    /// Updates all weights with a gradient. Returns the norm of the gradients before clipping.
    ///
    /// # Errors
    /// If the norm is not finite; no weight is changed then.
    pub fn step(&mut self, gradients: &Gradients) -> Result<f64> {
        let squared = |slot: &Slot| {
            let Some(grad) = gradients.of_weight(&slot.weight)? else { return Ok(None) };
            let square = grad.sqr()?.sum_all()?;
            Ok(Some((grad, square)))
        };
        let grads = self.side_by_side(self.slots.iter().collect(), squared)?;
        let norms: Vec<&Tensor> = grads.iter().flatten().map(|(_, square)| square).collect();
        // All at once, so that a GPU is waited for only once.
        let norms: Vec<f32> =
            if norms.is_empty() { Vec::new() } else { Tensor::stack(&norms, 0)?.to_vec1()? };
        let norm = norms.into_iter().map(f64::from).sum::<f64>().sqrt();
        if !norm.is_finite() {
            candle_core::bail!("step {}: the gradients are not finite; try a lower learning rate", self.step);
        }
        let clip = (self.config.max_grad_norm / norm.max(1e-12)).min(1.);
        let rate = self.config.learning_rate_at(self.step);
        self.step += 1;
        let OptimizerConfig { beta1, beta2, weight_decay, ema_decay, .. } = self.config;
        let step = self.step as f64;
        let ema_decay = ema_decay.min((1. + step) / (10. + step));
        let update = |(slot, grad): (&Slot, Option<(Tensor, Tensor)>)| {
            if let Some((grad, _)) = grad {
                let grad = if clip < 1. { (grad * clip)? } else { grad };
                blend(&slot.first, &grad, beta1)?;
                blend_square(&slot.second, &grad, beta2)?;
                // Biases and normalisation weights do not decay.
                let decay = if slot.weight.rank() > 1 { weight_decay } else { 0. };
                let update = AdamStep {
                    shrink: rate * decay,
                    rate: rate / (1. - beta1.powf(step)),
                    correction: 1. / (1. - beta2.powf(step)),
                    eps: EPS,
                };
                update.apply(&slot.master, &slot.first, &slot.second)?;
                slot.publish()?;
            }
            blend(&slot.average, &slot.master, ema_decay)
        };
        self.side_by_side(self.slots.iter().zip(grads).collect(), update)?;
        Ok(norm)
    }

    /// Maps what belongs to the weights, in order; on a CPU several at a time.
    fn side_by_side<I: Send, T: Send>(
        &self,
        items: Vec<I>,
        map: impl Fn(I) -> Result<T> + Send + Sync,
    ) -> Result<Vec<T>> {
        if self.slots.iter().all(|slot| slot.weight.device().is_cpu()) {
            items.into_par_iter().map(map).collect()
        } else {
            items.into_iter().map(map).collect()
        }
    }

    /// The averaged weights, by name.
    pub fn averages(&self) -> BTreeMap<String, Tensor> {
        self.slots.iter().map(|slot| (slot.name.clone(), slot.average.as_tensor().clone())).collect()
    }

    /// Runs `f` with the averaged weights in place of the trained ones, which are restored afterwards.
    ///
    /// # Errors
    /// The errors of `f`.
    pub fn with_averages<T, E: From<candle_core::Error>>(
        &self,
        f: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let trained =
            self.slots.iter().map(|slot| slot.weight.as_tensor().copy()).collect::<Result<Vec<_>>>()?;
        for slot in &self.slots {
            slot.weight.set(&slot.average.to_dtype(slot.weight.dtype())?)?;
        }
        let result = f();
        for (slot, trained) in self.slots.iter().zip(&trained) {
            slot.weight.set(trained)?;
        }
        result
    }

    /// Everything needed to resume, by name: `weight.NAME`, `average.NAME`, `first.NAME`, `second.NAME`, all f32.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let parts = |slot: &Slot| {
            slot.state().map(|(part, var)| (format!("{part}.{}", slot.name), var.as_tensor().clone()))
        };
        self.slots.iter().flat_map(parts).collect()
    }

    /// A checksum of the state: CRC-32C of its values, in order of name.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn fingerprint(&self) -> Result<u32> {
        self.state().values().try_fold(0, |sum, tensor| {
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            Ok(crc32c::crc32c_append(sum, &bytes))
        })
    }

    /// Loads the state of an earlier run after `step` steps.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; nothing is changed then.
    pub fn load_state(&mut self, step: usize, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let found = |slot: &Slot, part: &str, var: &Var| {
            let name = format!("{part}.{}", slot.name);
            match state.get(&name) {
                Some(tensor) if tensor.dims() == var.dims() => Ok(tensor.clone()),
                Some(tensor) => candle_core::bail!(
                    "tensor `{name}` has shape {:?}, expected {:?}",
                    tensor.dims(),
                    var.dims()
                ),
                None => candle_core::bail!("no tensor `{name}`, expected one of shape {:?}", var.dims()),
            }
        };
        let mut updates = Vec::with_capacity(4 * self.slots.len());
        for slot in &self.slots {
            for (part, var) in slot.state() {
                updates.push((var, found(slot, part, var)?));
            }
        }
        for (var, tensor) in updates {
            var.set(&tensor.to_device(var.device())?)?;
        }
        self.slots.iter().try_for_each(Slot::publish)?;
        self.step = step;
        Ok(())
    }
}
