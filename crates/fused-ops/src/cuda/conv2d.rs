//! Convolutions of candle tensors.

use super::device::Kernels;
use super::launches::convolution::Convolution;
use super::launches::launch::NotCovered;
use super::layers::{fits, last};
use super::{Launched, element, element_of, no_kernel, only, optional, run};
use crate::channels_last::{channels_last, is_channels_last, stored_channels};
use crate::conv2d::Conv2dOptions;
use crate::epilogue::Epilogue;
use candle_core::{D, Result, Tensor};

/// The weight of a convolution, (out, in, kernel, kernel), with its memory as the kernel reads it where that will.
pub(crate) fn lay_out_weight(weight: Tensor) -> Result<Tensor> {
    if !weight.device().is_cuda() || weight.track_op() || element_of(weight.dtype()).is_err() {
        return Ok(weight);
    }
    channels_last(&weight)
}

/// As [`crate::Conv2d::forward_with`], of a weight that was [laid out](lay_out_weight).
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    options: Conv2dOptions,
    [out_height, out_width]: [usize; 2],
    epilogue: &Epilogue,
) -> Result<Option<Tensor>> {
    let ((batch, height, width, in_channels), (out_channels, _, kernel, _)) = (x.dims4()?, weight.dims4()?);
    let channels = stored_channels(in_channels);
    let results = [batch, out_height, out_width, out_channels];
    // The definition has the words for what does not fit.
    if !x.device().is_cuda()
        || !fits(epilogue, &results)
        || bias.is_some_and(|bias| bias.dims() != [out_channels])
    {
        return Ok(None);
    }
    if !is_channels_last(weight) {
        return no_kernel(
            "conv2d",
            NotCovered("a weight that is trained, or of a type other than f16 and bf16"),
        );
    }
    let x = x.contiguous()?.pad_with_zeros(D::Minus1, 0, channels - in_channels)?;
    let [bias, shift, residual] =
        [bias, epilogue.shift, epilogue.residual].map(|tensor| tensor.map(Tensor::contiguous).transpose());
    let (bias, shift, residual) = (bias?, shift?, residual?);
    let inputs = [Some(&x), Some(weight), bias.as_ref(), shift.as_ref(), residual.as_ref()];
    let element = element(inputs.into_iter().flatten());
    run("conv2d", element, inputs, [(&results, x.dtype())], |kernels, element, from, [out]| {
        let [x, weight, bias, shift, residual] = from;
        let op = Convolution {
            element,
            batch,
            height,
            width,
            channels,
            out_height,
            out_width,
            out_channels,
            kernel,
            stride: options.stride,
            top: options.padding.top,
            left: options.padding.left,
            upsample: options.upsample,
            x,
            weight,
            bias: optional(bias),
            shift: optional(shift),
            residual: optional(residual),
            activation: last(epilogue.activation),
            out,
        };
        kernels.launch_convolution(&op, || launch_own(kernels, &op))
    })
    .map(only)
}

/// Puts the crate's own kernels for a convolution into the stream.
fn launch_own(kernels: &Kernels, op: &Convolution) -> Launched {
    let multiprocessors = kernels.multiprocessors();
    // Checked before memory is asked for; the address comes after.
    op.launches(0, multiprocessors)?;
    let partial = match op.partial_len(multiprocessors) {
        0 => None,
        len => match kernels.scratch(len) {
            Ok(partial) => Some(partial),
            Err(error) => return Ok(Err(error)),
        },
    };
    let partial = partial.as_ref().map(|partial| partial.address(kernels.stream()));
    let (product, sum) = op.launches(partial.as_ref().map_or(0, |(address, _)| *address), multiprocessors)?;
    Ok([Some(&product), sum.as_ref()].into_iter().flatten().try_for_each(|launch| kernels.launch(launch)))
}
