//! Indexes tables and divides tensors for the schedulers.

use candle_core::Tensor;

use crate::random::Noise;
use crate::{Error, Result};

/// The entry of `table` for step `index`.
pub(super) fn at<T: Copy>(table: &[T], index: usize) -> Result<T> {
    table.get(index).copied().ok_or_else(|| {
        let length = table.len();
        Error::option("step index", format!("{index} is past the end of the schedule of {length} entries"))
    })
}

/// `tensor / divisor`, rounded once. candle multiplies by the rounded reciprocal, and where a schedule starts with
/// hardly any signal, that difference grows visible.
pub(super) fn divide(tensor: &Tensor, divisor: f32) -> Result<Tensor> {
    let divisor = Tensor::new(divisor, tensor.device())?.to_dtype(tensor.dtype())?;
    Ok(tensor.broadcast_div(&divisor)?)
}

/// Noise in the shape and dtype of `sample`, on its device.
pub(super) fn noise_like(noise: &mut dyn Noise, sample: &Tensor) -> Result<Tensor> {
    Ok(noise.normal(sample.dims())?.to_dtype(sample.dtype())?.to_device(sample.device())?)
}
