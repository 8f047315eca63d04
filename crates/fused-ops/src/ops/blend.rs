//! Updates a moving average in place.

use crate::tensors::slices::{slice, slice_mut};
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};

/// `average ← decay · average + (1 − decay) · value`, an exponential moving average in the shape of `value`.
///
/// # Errors
/// If the shapes differ, or on the CPU the type is not f32.
pub fn blend(average: &Var, value: &Tensor, decay: f64) -> Result<()> {
    if average.device().is_cpu() {
        return average.inplace_op2(&value.contiguous()?, &Blend { decay: decay as f32, square: false });
    }
    average.set(&((average.as_tensor() * decay)? + (value * (1. - decay))?)?)
}

/// Like [`blend`], with the square of `value`.
///
/// # Errors
/// Like [`blend`].
pub fn blend_square(average: &Var, value: &Tensor, decay: f64) -> Result<()> {
    if average.device().is_cpu() {
        return average.inplace_op2(&value.contiguous()?, &Blend { decay: decay as f32, square: true });
    }
    average.set(&((average.as_tensor() * decay)? + (value.sqr()? * (1. - decay))?)?)
}

struct Blend {
    decay: f32,
    square: bool,
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
