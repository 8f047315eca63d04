//! Chooses the dtype that a model computes in.

use candle_core::{DType, Device, Result, Tensor};

/// The dtype that a model with weights of `dtype` computes in: f32 on the CPU, where half precision saves memory but
/// not time.
pub fn compute_dtype(dtype: DType, device: &Device) -> DType {
    if device.is_cpu() && matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

/// Converts rows of a table, or a small tensor such as a bias, to the model's compute dtype.
///
/// # Errors
/// If a tensor operation fails.
pub fn for_computing(x: Tensor) -> Result<Tensor> {
    x.to_dtype(compute_dtype(x.dtype(), x.device()))
}
