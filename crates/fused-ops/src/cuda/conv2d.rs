//! Convolutions of candle tensors.

use super::device::Kernels;
use super::launches::convolution::Convolution;
use super::launches::launch::NotCovered;
use super::layers::{fits, last};
use super::{Launched, element, element_of, no_kernel, only, optional, run};
use crate::channels_last::{self, channels_last, is_channels_last, stored_channels};
use crate::conv2d::Conv2dOptions;
use crate::epilogue::Epilogue;
use candle_core::{D, Result, Tensor};

/// Of a layer.
#[derive(Clone, Copy)]
pub(crate) struct ConvolutionWeights<'a> {
    /// (out, in, kernel, kernel), [laid out](lay_out_weight)
    pub weight: &'a Tensor,
    /// The same as [`phases`], if its pictures are doubled.
    pub phases: Option<&'a Tensor>,
    /// (out)
    pub bias: Option<&'a Tensor>,
}

/// Whether a weight is one that kernels will read.
fn is_for_kernels(weight: &Tensor) -> bool {
    weight.device().is_cuda() && !weight.track_op() && element_of(weight.dtype()).is_ok()
}

/// The weight of a convolution, (out, in, kernel, kernel), with its memory as the kernel reads it where that will.
pub(crate) fn lay_out_weight(weight: Tensor) -> Result<Tensor> {
    if is_for_kernels(&weight) { channels_last(&weight) } else { Ok(weight) }
}

/// The weights of the phases of a doubled picture, where a kernel makes them.
pub(crate) fn phases(weight: &Tensor, options: Conv2dOptions) -> Result<Option<Tensor>> {
    let covered = options.upsample && weight.dim(2)? == 3 && is_for_kernels(weight);
    covered.then(|| channels_last::phases(weight)).transpose()
}

/// As [`crate::Conv2d::forward_with`].
pub(crate) fn conv2d(
    x: &Tensor,
    weights: ConvolutionWeights,
    options: Conv2dOptions,
    [out_height, out_width]: [usize; 2],
    epilogue: &Epilogue,
) -> Result<Option<Tensor>> {
    let ConvolutionWeights { weight, phases, bias } = weights;
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
    let weight = match phases {
        _ if !options.upsample => weight,
        Some(phases) => phases,
        None => return no_kernel("conv2d", NotCovered("a doubled picture under other than 3 × 3 taps")),
    };
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
