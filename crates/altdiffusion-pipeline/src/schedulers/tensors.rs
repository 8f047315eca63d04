//! Helps schedulers with their tables and tensors.

use candle_core::Tensor;

use crate::random::Noise;
use crate::{Error, Result};

/// The entry of `table` at `index` of a run.
pub(super) fn at<T: Copy>(table: &[T], index: usize) -> Result<T> {
    table.get(index).copied().ok_or_else(|| {
        let length = table.len();
        Error::option("step index", format!("{index} is past the end of the schedule of {length} entries"))
    })
}

/// `tensor / divisor`, rounded once; candle's division by a number multiplies by its rounded reciprocal. Where a
/// schedule starts with hardly any signal, such a difference grows to one that shows.
pub(super) fn divide(tensor: &Tensor, divisor: f32) -> Result<Tensor> {
    let divisor = Tensor::new(divisor, tensor.device())?.to_dtype(tensor.dtype())?;
    Ok(tensor.broadcast_div(&divisor)?)
}

/// The next noise for `sample`, in its shape and type and where it is.
pub(super) fn noise_like(noise: &mut dyn Noise, sample: &Tensor) -> Result<Tensor> {
    Ok(noise.normal(sample.dims())?.to_dtype(sample.dtype())?.to_device(sample.device())?)
}
