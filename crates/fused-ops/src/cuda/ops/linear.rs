//! Multiplies candle tensors by weights.

use super::super::runtime::cublaslt::LinearOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element, element_of, only, optional, run};
use crate::shapes::Epilogue;
use candle_core::{Result, Tensor};

/// Like [`crate::Linear::forward_with`], if only a bias and a residual follow the product.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epilogue: &Epilogue,
) -> Result<Option<Tensor>> {
    let Epilogue { shift, residual, activation } = *epilogue;
    let (out_features, in_features) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    // The reference path words the error for what does not fit.
    if dims.pop() != Some(in_features)
        || shift.is_some()
        || activation.is_some()
        || (bias.is_none() && residual.is_none())
        || bias.is_some_and(|bias| bias.dims() != [out_features])
        || element_of(x.dtype()).is_err()
    {
        return Ok(None);
    }
    let rows = dims.iter().product();
    dims.push(out_features);
    // Rows of other sizes are not aligned for tensor cores; a separate pass handles those.
    let covered =
        rows > 0 && [in_features, out_features].iter().all(|&size| size > 0 && size.is_multiple_of(8));
    if !covered || residual.is_some_and(|residual| residual.dims() != dims) {
        return Ok(None);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let [bias, residual] = [bias, residual].map(|tensor| tensor.map(Tensor::contiguous).transpose());
    let (bias, residual) = (bias?, residual?);
    let inputs = [Some(&x), Some(&weight), bias.as_ref(), residual.as_ref()];
    let element = element(inputs.into_iter().flatten());
    let dtype = x.dtype();
    let launch = |dispatch: &Dispatch, element, [x, weight, bias, residual]: [_; 4], [out]: [_; 1]| {
        let (bias, residual) = (optional(bias), optional(residual));
        let product =
            LinearOperands { element, rows, in_features, out_features, x, weight, bias, residual, out };
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        unsafe { dispatch.linear(&product) }
    };
    // SAFETY: the product is written as a whole.
    unsafe { run("linear", element, inputs, [(&dims, dtype)], launch) }.map(only)
}
