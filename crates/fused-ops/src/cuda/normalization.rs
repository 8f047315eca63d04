//! Normalisations of candle tensors.

use super::launches::launch::NotCovered;
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

/// Whether [`layer_norm`] of rows of this size runs on tensors such as these.
pub(crate) fn covers_layer_norm<'a>(tensors: impl IntoIterator<Item = &'a Tensor>, size: usize) -> bool {
    element(tensors).is_ok() && layer_norm::covers(size)
}

/// As [`crate::LayerNorm::forward`] of `x + added + residual`: the result alone, or that sum and the result.
///
/// * `x` (…, size), and `residual` of the same shape
/// * `added` (size)
pub(crate) fn layer_norm<const RESULTS: usize>(
    x: &Tensor,
    added: Option<&Tensor>,
    residual: Option<&Tensor>,
    [weight, bias]: [&Tensor; 2],
    eps: f64,
) -> Result<Option<[Tensor; RESULTS]>> {
    let size = x.dim(D::Minus1)?;
    let of_size = |tensor: &Tensor| tensor.dims() == [size];
    let fits = of_size(weight) && of_size(bias) && added.is_none_or(of_size);
    // The definition has the words for what does not.
    if !fits || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / size.max(1);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let [added, residual] = [added, residual].map(|tensor| tensor.map(Tensor::contiguous).transpose());
    let (added, residual) = (added?, residual?);
    let inputs = [Some(&x), added.as_ref(), residual.as_ref(), Some(&weight), Some(&bias)];
    let element = element(inputs.into_iter().flatten());
    let results = [(x.dims(), x.dtype()); RESULTS];
    run("layer_norm", element, inputs, results, |kernels, element, from, to| {
        let [x, added, residual, weight, bias] = from;
        let (sum, out) = match to.as_slice() {
            [out] => (None, *out),
            [sum, out] => (Some(*sum), *out),
            _ => return Err(NotCovered("more results than a sum and what is made of it")),
        };
        let (added, residual) = (optional(added), optional(residual));
        let op =
            layer_norm::LayerNorm { element, rows, size, eps, x, added, residual, weight, bias, sum, out };
        Ok(kernels.launch(&op.launch()?))
    })
}
