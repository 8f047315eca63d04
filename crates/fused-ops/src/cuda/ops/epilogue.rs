//! Applies epilogues to candle tensors.

use super::super::launch::epilogue::EpilogueOperands;
use super::super::tune::dispatch::Dispatch;
use super::run::{element, only, optional, run};
use crate::shapes::Epilogue;
use candle_core::{D, Result, Tensor};

/// Whether an epilogue fits a result of this shape.
pub(super) fn fits(epilogue: &Epilogue, dims: &[usize]) -> bool {
    let &[images, .., columns] = dims else { return false };
    epilogue.shift.is_none_or(|shift| shift.dims() == [images, columns])
        && epilogue.residual.is_none_or(|residual| residual.dims() == dims)
}

/// Like [`Epilogue`]: `activation(x + bias + shift + residual)`.
pub(crate) fn epilogue(x: &Tensor, bias: Option<&Tensor>, epilogue: &Epilogue) -> Result<Option<Tensor>> {
    let Epilogue { shift, residual, activation } = *epilogue;
    let nothing = bias.is_none() && shift.is_none() && residual.is_none() && activation.is_none();
    // The reference path words the error for what does not fit.
    let bias_fits = |bias: &Tensor| x.dims().last() == Some(&bias.elem_count()) && bias.rank() == 1;
    if nothing || !x.device().is_cuda() || !fits(epilogue, x.dims()) || !bias.is_none_or(bias_fits) {
        return Ok(None);
    }
    let (images, columns) = (x.dim(0)?, x.dim(D::Minus1)?);
    let rows = x.elem_count() / columns.max(1);
    let contiguous = x.contiguous()?;
    let [bias, shift, residual] =
        [bias, shift, residual].map(|tensor| tensor.map(Tensor::contiguous).transpose());
    let (bias, shift, residual) = (bias?, shift?, residual?);
    let inputs = [Some(&contiguous), bias.as_ref(), shift.as_ref(), residual.as_ref()];
    let results = [(x.dims(), x.dtype())];
    let launch = |dispatch: &Dispatch, element, [address, bias, shift, residual]: [_; 4], [out]: [_; 1]| {
        let op = EpilogueOperands {
            element,
            rows,
            columns,
            x: address,
            bias: optional(bias),
            shift: optional(shift),
            rows_per_image: rows / images.max(1),
            residual: optional(residual),
            activation,
            out,
        };
        let launch = op.launch()?;
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        Ok(unsafe { dispatch.kernels().launch(&launch) })
    };
    let element = element(inputs.into_iter().flatten());
    // SAFETY: the kernel writes every value.
    unsafe { run("epilogue", element, inputs, results, launch) }.map(only)
}
