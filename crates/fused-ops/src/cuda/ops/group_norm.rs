//! Normalises groups of channels of candle tensors.

use super::super::launch::group_norm::GroupNormOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element, only, optional, run};
use candle_core::{D, Result, Tensor};

/// Like [`crate::GroupNorm`], for `x + shift`.
pub(crate) fn group_norm(
    x: &Tensor,
    shift: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Option<Tensor>> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    // The reference path words the error for what does not fit.
    let fits = weight.dims() == [channels]
        && bias.dims() == [channels]
        && shift.is_none_or(|shift| shift.dims() == [batch, channels]);
    if !fits || !x.device().is_cuda() {
        return Ok(None);
    }
    let pixels = x.elem_count() / (batch * channels).max(1);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let shift = shift.map(Tensor::contiguous).transpose()?;
    let inputs = [Some(&x), Some(&weight), Some(&bias), shift.as_ref()];
    let element = element(inputs.into_iter().flatten());
    let results = [(x.dims(), x.dtype())];
    let launch = |dispatch: &Dispatch, element, [x, weight, bias, shift]: [_; 4], [out]: [_; 1]| {
        let kernels = dispatch.kernels();
        let shift = optional(shift);
        let op = GroupNormOperands {
            element,
            batch,
            pixels,
            channels,
            groups,
            eps,
            silu,
            x,
            weight,
            bias,
            shift,
            out,
        };
        // Check before allocating; the address comes later.
        op.launches(0, kernels.multiprocessors())?;
        let partial = match kernels.scratch(op.partial_len(kernels.multiprocessors())) {
            Ok(partial) => partial,
            Err(error) => return Ok(Err(error)),
        };
        let (partial, _guard) = partial.address(kernels.stream());
        let launches = op.launches(partial, kernels.multiprocessors())?;
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps, and the statistics have as much memory
        // as both launches were made for.
        Ok(launches.iter().try_for_each(|launch| unsafe { kernels.launch(launch) }))
    };
    // SAFETY: the second kernel writes every value.
    unsafe { run("group_norm", element, inputs, results, launch) }.map(only)
}
