//! Linear layers on candle tensors, and what follows a layer.

use super::launches::epilogue;
use super::product::Product;
use super::{element, element_of, only, optional, run};
use crate::activation::Activation;
use crate::epilogue::Epilogue;
use crate::linear::linear_reference;
use candle_core::{D, Result, Tensor};

/// As [`crate::geglu()`], of `x + bias`.
pub(crate) fn geglu(x: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let mut dims = x.dims().to_vec();
    let columns = match dims.last_mut() {
        Some(last) if last.is_multiple_of(2) => {
            *last /= 2;
            *last
        }
        _ => return Ok(None),
    };
    // The definition has the words for what does not fit.
    if bias.is_some_and(|bias| bias.dims() != [2 * columns]) || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / (2 * columns).max(1);
    let (contiguous, bias) = (x.contiguous()?, bias.map(Tensor::contiguous).transpose()?);
    let inputs = [Some(&contiguous), bias.as_ref()];
    let results = [(&dims[..], x.dtype())];
    run(
        "geglu",
        element(inputs.into_iter().flatten()),
        inputs,
        results,
        |kernels, element, [address, bias], [out]| {
            let op = epilogue::Geglu { element, rows, columns, x: address, bias: optional(bias), out };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}

/// Whether an epilogue fits a result of this shape.
pub(super) fn fits(epilogue: &Epilogue, dims: &[usize]) -> bool {
    let &[pictures, .., columns] = dims else { return false };
    epilogue.shift.is_none_or(|shift| shift.dims() == [pictures, columns])
        && epilogue.residual.is_none_or(|residual| residual.dims() == dims)
}

/// As the kernels know what comes last.
pub(super) fn last(activation: Option<Activation>) -> epilogue::Activation {
    match activation {
        None => epilogue::Activation::None,
        Some(Activation::Gelu) => epilogue::Activation::Gelu,
        Some(Activation::QuickGelu) => epilogue::Activation::QuickGelu,
        Some(Activation::Silu) => epilogue::Activation::Silu,
    }
}

/// As [`Epilogue`]: `activation(x + bias + shift + residual)`.
pub(crate) fn epilogue(x: &Tensor, bias: Option<&Tensor>, epilogue: &Epilogue) -> Result<Option<Tensor>> {
    let Epilogue { shift, residual, activation } = *epilogue;
    let nothing = bias.is_none() && shift.is_none() && residual.is_none() && activation.is_none();
    // The definition has the words for what does not fit.
    let bias_fits = |bias: &Tensor| x.dims().last() == Some(&bias.elem_count()) && bias.rank() == 1;
    if nothing || !x.device().is_cuda() || !fits(epilogue, x.dims()) || !bias.is_none_or(bias_fits) {
        return Ok(None);
    }
    let (pictures, columns) = (x.dim(0)?, x.dim(D::Minus1)?);
    let rows = x.elem_count() / columns.max(1);
    let contiguous = x.contiguous()?;
    let [bias, shift, residual] =
        [bias, shift, residual].map(|tensor| tensor.map(Tensor::contiguous).transpose());
    let (bias, shift, residual) = (bias?, shift?, residual?);
    let inputs = [Some(&contiguous), bias.as_ref(), shift.as_ref(), residual.as_ref()];
    let results = [(x.dims(), x.dtype())];
    run(
        "epilogue",
        element(inputs.into_iter().flatten()),
        inputs,
        results,
        |kernels, element, [address, bias, shift, residual], [out]| {
            let op = epilogue::Epilogue {
                element,
                rows,
                columns,
                x: address,
                bias: optional(bias),
                shift: optional(shift),
                rows_per_picture: rows / pictures.max(1),
                residual: optional(residual),
                activation: last(activation),
                out,
            };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}

/// As [`crate::Linear::forward_with`]: the product, and all that follows it in the same launch or in one pass.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    after: &Epilogue,
) -> Result<Option<Tensor>> {
    if !x.device().is_cuda() {
        return Ok(None);
    }
    if let Some(y) = product(x, weight, bias, after)? {
        return Ok(Some(y));
    }
    let product = linear_reference(x, weight, None)?;
    match epilogue(&product, bias, after)? {
        Some(y) => Ok(Some(y)),
        None => after.apply(with_bias(product, bias)?).map(Some),
    }
}

/// The product with bias and residual, if these are all that follows.
fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, after: &Epilogue) -> Result<Option<Tensor>> {
    let Epilogue { shift, residual, activation } = *after;
    let (out_features, in_features) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    // The definition has the words for what does not fit.
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
    // Rows of other sizes do not begin where tensor cores want them: the pass behind the product takes those.
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
    run(
        "linear",
        element,
        inputs,
        [(&dims, x.dtype())],
        |kernels, element, [x, weight, bias, residual], [out]| {
            let (bias, residual) = (optional(bias), optional(residual));
            let product =
                Product { element, rows, in_features, out_features, x, weight, bias, residual, out };
            kernels.launch_product(&product)
        },
    )
    .map(only)
}

/// As [`crate::Linear::forward_geglu`]: the product, and bias and gate in one pass.
pub(crate) fn linear_geglu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    if !x.device().is_cuda() {
        return Ok(None);
    }
    let product = linear_reference(x, weight, None)?;
    match geglu(&product, bias)? {
        Some(y) => Ok(Some(y)),
        None => crate::activation::geglu(&with_bias(product, bias)?).map(Some),
    }
}

fn with_bias(x: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => x.broadcast_add(bias),
        None => Ok(x),
    }
}
