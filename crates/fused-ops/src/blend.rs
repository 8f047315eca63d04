//! In-place updates of an optimiser: one pass over a parameter each.

use crate::custom::slice;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Var};

/// `average ← decay · average + (1 − decay) · value`, an exponential moving average.
pub fn blend(average: &Var, value: &candle_core::Tensor, decay: f64) -> Result<()> {
    if average.device().is_cpu() {
        return average.inplace_op2(&value.contiguous()?, &Blend { decay: decay as f32, square: false });
    }
    average.set(&((average.as_tensor() * decay)? + (value * (1. - decay))?)?)
}

/// [`blend`] with the square of `value`.
pub fn blend_square(average: &Var, value: &candle_core::Tensor, decay: f64) -> Result<()> {
    if average.device().is_cpu() {
        return average.inplace_op2(&value.contiguous()?, &Blend { decay: decay as f32, square: true });
    }
    average.set(&((average.as_tensor() * decay)? + (value.sqr()? * (1. - decay))?)?)
}

/// One AdamW step (Loshchilov & Hutter, arXiv 1711.05101) from the moments of the gradient:
/// `parameter ← parameter · (1 − shrink) − rate · first / (√(second · correction) + eps)`.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Learning rate times weight decay.
    pub shrink: f64,
    /// Learning rate over the first moment's bias correction.
    pub rate: f64,
    /// Reciprocal of the second moment's bias correction.
    pub correction: f64,
    pub eps: f64,
}

impl AdamStep {
    /// Updates `parameter` in place.
    pub fn apply(&self, parameter: &Var, first: &Var, second: &Var) -> Result<()> {
        if parameter.device().is_cpu() {
            return parameter.inplace_op3(first, second, self);
        }
        let step = (first.as_tensor() * self.rate)?
            .div(&((second.as_tensor() * self.correction)?.sqrt()? + self.eps)?)?;
        parameter.set(&((parameter.as_tensor() * (1. - self.shrink))? - step)?)
    }
}

struct Blend {
    decay: f32,
    square: bool,
}

/// The values of a contiguous f32 storage that is changed in place.
fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("an optimiser updates contiguous f32 tensors only"),
    }
}

impl InplaceOp2 for Blend {
    fn name(&self) -> &'static str {
        "blend"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        average_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<()> {
        let average = slice_mut(average, average_layout)?;
        let (keep, add) = (self.decay, 1. - self.decay);
        for (average, &value) in average.iter_mut().zip(slice(value, value_layout)?) {
            *average = keep * *average + add * if self.square { value * value } else { value };
        }
        Ok(())
    }
}

impl InplaceOp3 for AdamStep {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let keep = (1. - self.shrink) as f32;
        let (rate, correction, eps) = (self.rate as f32, self.correction as f32, self.eps as f32);
        let moments = slice(first, first_layout)?.iter().zip(slice(second, second_layout)?);
        for (parameter, (first, second)) in slice_mut(parameter, parameter_layout)?.iter_mut().zip(moments) {
            *parameter = *parameter * keep - rate * first / ((second * correction).sqrt() + eps);
        }
        Ok(())
    }
}
