//! Normalises the rows of candle tensors.

use super::super::launch::description::NotCovered;
use super::super::launch::layer_norm::{LayerNormOperands, covers};
use super::super::tune::dispatch::Dispatch;
use super::run::{element, optional, run};
use candle_core::{D, Result, Tensor};

/// Whether [`layer_norm`] covers tensors like these with rows of this size.
pub(crate) fn covers_layer_norm<'a>(tensors: impl IntoIterator<Item = &'a Tensor>, size: usize) -> bool {
    element(tensors).is_ok() && covers(size)
}

/// Like [`crate::LayerNorm::forward`] of `x + added + residual`: the result alone, or the sum and the result.
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
    let fits = of_size(weight)
        && of_size(bias)
        && added.is_none_or(of_size)
        && residual.is_none_or(|residual| residual.dims() == x.dims());
    // The reference path words the error for what does not fit.
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
    let launch = |dispatch: &Dispatch, element, from: [_; 5], to: [_; RESULTS]| {
        let [x, added, residual, weight, bias] = from;
        let (sum, out) = match to.as_slice() {
            [out] => (None, *out),
            [sum, out] => (Some(*sum), *out),
            _ => return Err(NotCovered("more results than a sum and what is made of it")),
        };
        let (added, residual) = (optional(added), optional(residual));
        let op = LayerNormOperands { element, rows, size, eps, x, added, residual, weight, bias, sum, out };
        let launch = op.launch()?;
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        Ok(unsafe { dispatch.kernels().launch(&launch) })
    };
    // SAFETY: the kernel writes every value of what it has an address for.
    unsafe { run("layer_norm", element, inputs, results, launch) }
}
