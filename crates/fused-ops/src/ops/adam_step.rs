//! Applies a step of AdamW in place.

use crate::tensors::slices::{slice, slice_mut};
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Var};

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
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl AdamStep {
    /// Updates `parameter` in place, from moments of its shape.
    ///
    /// # Errors
    /// If the shapes differ, or on the CPU the type is not f32.
    pub fn apply(&self, parameter: &Var, first: &Var, second: &Var) -> Result<()> {
        if parameter.device().is_cpu() {
            return parameter.inplace_op3(first, second, self);
        }
        let step = (first.as_tensor() * self.rate)?
            .div(&((second.as_tensor() * self.correction)?.sqrt()? + self.eps)?)?;
        parameter.set(&((parameter.as_tensor() * (1. - self.shrink))? - step)?)
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
