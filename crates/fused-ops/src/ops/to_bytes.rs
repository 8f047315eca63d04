//! Converts decoded images to bytes.

use crate::tensors::slices::{on_cpu, with_slice};
use candle_core::{DType, Result, Tensor};

/// Converts values from −1 to 1 to bytes from 0 to 255, rounding ties to even and clamping values outside.
///
/// # Errors
/// If a tensor operation fails.
pub fn to_bytes(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(bytes) = crate::cuda::ops::to_bytes(x)? {
        return Ok(bytes);
    }
    if on_cpu(x) {
        let bytes = with_slice(x, |values| Ok(values.iter().copied().map(to_byte).collect()))?;
        return Tensor::from_vec(bytes, x.shape(), x.device());
    }
    to_bytes_reference(x)
}

fn to_byte(value: f32) -> u8 {
    ((value / 2. + 0.5).clamp(0., 1.) * 255.).round_ties_even() as u8
}

/// The definition of [`to_bytes`], in candle tensors.
///
/// # Errors
/// If a tensor operation fails.
pub fn to_bytes_reference(x: &Tensor) -> Result<Tensor> {
    let x = (x.to_dtype(DType::F32)?.affine(0.5, 0.5)?.clamp(0f32, 1f32)? * 255.)?;
    // candle's rounding takes ties away from zero.
    let floor = x.floor()?;
    let (fraction, odd) = ((&x - &floor)?, (&floor - ((&floor * 0.5)?.floor()? * 2.)?)?);
    let up = fraction.gt(0.5)?.to_dtype(DType::F32)?;
    let tie = (fraction.eq(0.5)?.to_dtype(DType::F32)? * odd)?;
    (floor + (up + tie)?)?.to_dtype(DType::U8)
}
