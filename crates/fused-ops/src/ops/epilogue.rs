//! Applies epilogues: in a layer's kernel, while its results are in the cache, or afterwards.

use super::shift_channels::shift_channels;
use crate::cpu::epilogue::{Shift, SliceEpilogue};
use crate::shapes::Epilogue;
use crate::tensors::slices::{on_cpu, with_slices};
use candle_core::{DType, Result, Tensor};

/// Whether a kernel can apply the epilogue itself: no gradients of the inputs are needed.
pub(super) fn is_fusible(epilogue: &Epilogue, x: &Tensor) -> bool {
    let fits = |tensor: &Tensor| on_cpu(tensor) && !tensor.track_op();
    fits(x) && epilogue.shift.is_none_or(fits) && epilogue.residual.is_none_or(fits)
}

/// The definition: one operation after the other.
pub(super) fn apply(epilogue: &Epilogue, mut y: Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(y) = crate::cuda::ops::epilogue(&y, None, epilogue)? {
        return Ok(y);
    }
    if let Some(shift) = epilogue.shift {
        y = shift_channels(&y, shift)?;
    }
    if let Some(residual) = epilogue.residual {
        y = (y + residual)?;
    }
    match epilogue.activation {
        Some(activation) => activation.forward(&y),
        None => Ok(y),
    }
}

/// Runs a kernel with a result of shape `dims` on the values of `x` and of this epilogue.
///
/// # Errors
/// If shift or residual do not fit `dims`.
pub(super) fn run(
    epilogue: &Epilogue,
    x: &Tensor,
    dims: &[usize],
    bias: Option<&[f32]>,
    kernel: impl FnOnce(&[f32], &SliceEpilogue) -> Vec<f32>,
) -> Result<Tensor> {
    // A single row, (channels), is not an image and takes no shift.
    let (images, rows_per_image, columns) = match dims {
        [images, places @ .., columns] => (*images, places.iter().product(), *columns),
        [columns] => (0, 1, *columns),
        [] => candle_core::bail!("a layer got a scalar"),
    };
    if let Some(shift) = epilogue.shift.filter(|shift| shift.dims() != [images, columns]) {
        candle_core::bail!("a shift of shape {:?} does not fit {dims:?}", shift.dims());
    }
    if let Some(residual) = epilogue.residual.filter(|residual| residual.dims() != dims) {
        candle_core::bail!("a residual of shape {:?} does not fit {dims:?}", residual.dims());
    }
    let nothing = Tensor::zeros(0, DType::F32, x.device())?;
    let tensors = [x, epilogue.shift.unwrap_or(&nothing), epilogue.residual.unwrap_or(&nothing)];
    let values = with_slices(tensors, |[x, shift, residual]| {
        let epilogue = SliceEpilogue {
            bias,
            shift: epilogue.shift.map(|_| Shift { values: shift, rows_per_image }),
            residual: epilogue.residual.map(|_| residual),
            activation: epilogue.activation,
        };
        kernel(x, &epilogue)
    })?;
    Tensor::from_vec(values, dims, x.device())?.to_dtype(x.dtype())
}
