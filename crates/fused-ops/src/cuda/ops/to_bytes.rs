//! Converts candle tensors to bytes.

use super::super::launch::to_bytes::ToBytesOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element, only, run};
use candle_core::{DType, Result, Tensor};

/// Like [`crate::to_bytes()`].
pub(crate) fn to_bytes(x: &Tensor) -> Result<Option<Tensor>> {
    let (contiguous, count) = (x.contiguous()?, x.elem_count());
    let launch = |dispatch: &Dispatch, element, [x]: [_; 1], [out]: [_; 1]| {
        let launch = ToBytesOperands { element, count, x, out }.launch()?;
        // SAFETY: the addresses are those of tensors of this size, which `run` keeps.
        Ok(unsafe { dispatch.kernels().launch(&launch) })
    };
    let (inputs, results) = ([Some(&contiguous)], [(x.dims(), DType::U8)]);
    // SAFETY: the kernel writes every byte.
    unsafe { run("to_bytes", element([x]), inputs, results, launch) }.map(only)
}
