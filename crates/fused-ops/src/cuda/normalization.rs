//! Normalisations of candle tensors.

use super::launches::{group_norm, layer_norm};
use super::{element, only, optional, run};
use candle_core::{D, Result, Tensor};

/// As [`crate::GroupNorm`], of `x + shift`.
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
    // The definition has the words for what does not fit.
    if weight.dims() != [channels] || bias.dims() != [channels] || !x.device().is_cuda() {
        return Ok(None);
    }
    let pixels = x.elem_count() / (batch * channels).max(1);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let shift = shift.map(Tensor::contiguous).transpose()?;
    let inputs = [Some(&x), Some(&weight), Some(&bias), shift.as_ref()];
    let element = element(inputs.into_iter().flatten());
    run("group_norm", element, inputs, [(x.dims(), x.dtype())], |kernels, element, from, [out]| {
        let [x, weight, bias, shift] = from;
        let shift = optional(shift);
        let op = group_norm::GroupNorm {
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
        // Checked before memory is asked for; the address comes after.
        op.launches(0, kernels.multiprocessors())?;
        let partial = match kernels.scratch(op.partial_len(kernels.multiprocessors())) {
            Ok(partial) => partial,
            Err(error) => return Ok(Err(error)),
        };
        let (partial, _guard) = partial.address(kernels.stream());
        let launches = op.launches(partial, kernels.multiprocessors())?;
        Ok(launches.iter().try_for_each(|launch| kernels.launch(launch)))
    })
    .map(only)
}

/// As [`crate::LayerNorm::forward`].
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Option<Tensor>> {
    let size = x.dim(D::Minus1)?;
    if weight.dims() != [size] || bias.dims() != [size] || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / size.max(1);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let inputs = [Some(&x), Some(&weight), Some(&bias)];
    let element = element(inputs.into_iter().flatten());
    run("layer_norm", element, inputs, [(x.dims(), x.dtype())], |kernels, element, from, [out]| {
        let [x, weight, bias] = from;
        let (residual, sum) = (None, None);
        let op = layer_norm::LayerNorm { element, rows, size, eps, x, residual, weight, bias, sum, out };
        Ok(kernels.launch(&op.launch()?))
    })
    .map(only)
}

/// As [`crate::LayerNorm::forward_residual`], of shapes that are the same.
pub(crate) fn layer_norm_residual(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Option<[Tensor; 2]>> {
    let size = x.dim(D::Minus1)?;
    if weight.dims() != [size] || bias.dims() != [size] || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / size.max(1);
    let (x, residual) = (x.contiguous()?, residual.contiguous()?);
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let inputs = [Some(&x), Some(&residual), Some(&weight), Some(&bias)];
    let element = element(inputs.into_iter().flatten());
    let results = [(x.dims(), x.dtype()), (x.dims(), x.dtype())];
    run("layer_norm", element, inputs, results, |kernels, element, from, [sum, out]| {
        let [x, residual, weight, bias] = from;
        let (residual, sum) = (Some(residual), Some(sum));
        let op = layer_norm::LayerNorm { element, rows, size, eps, x, residual, weight, bias, sum, out };
        Ok(kernels.launch(&op.launch()?))
    })
}
