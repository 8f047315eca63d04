//! Applies GEGLU's gate to candle tensors.

use super::super::launch::geglu::GegluOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element, only, optional, run};
use candle_core::{Result, Tensor};

/// Like [`crate::geglu()`], for `x + bias`.
pub(crate) fn geglu(x: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let mut dims = x.dims().to_vec();
    let columns = match dims.last_mut() {
        Some(last) if last.is_multiple_of(2) => {
            *last /= 2;
            *last
        }
        _ => return Ok(None),
    };
    // The reference path words the error for what does not fit.
    if bias.is_some_and(|bias| bias.dims() != [2 * columns]) || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / (2 * columns).max(1);
    let (contiguous, bias) = (x.contiguous()?, bias.map(Tensor::contiguous).transpose()?);
    let inputs = [Some(&contiguous), bias.as_ref()];
    let results = [(&dims[..], x.dtype())];
    let launch = |dispatch: &Dispatch, element, [address, bias]: [_; 2], [out]: [_; 1]| {
        let op = GegluOperands { element, rows, columns, x: address, bias: optional(bias), out };
        let launch = op.launch()?;
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        Ok(unsafe { dispatch.kernels().launch(&launch) })
    };
    let element = element(inputs.into_iter().flatten());
    // SAFETY: the kernel writes every value.
    unsafe { run("geglu", element, inputs, results, launch) }.map(only)
}
