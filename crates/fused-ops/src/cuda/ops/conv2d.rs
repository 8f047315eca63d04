//! Convolves candle tensors.

use super::super::launch::conv2d::Conv2dOperands;
use super::super::launch::description::NotCovered;
use super::super::tune::dispatch::Dispatch;
use super::epilogue::fits;
use super::run::{element, element_of, no_kernel, only, optional, run};
use crate::shapes::{Conv2dOptions, Epilogue};
use crate::tensors::conv2d_layout::{self, channels_last, is_channels_last, stored_channels};
use candle_core::{D, Result, Tensor};

/// A layer's tensors.
#[derive(Clone, Copy)]
pub(crate) struct Conv2dWeights<'a> {
    /// (out, in, kernel, kernel), [laid out](lay_out_weight)
    pub(crate) weight: &'a Tensor,
    /// The same as [`phases`], if its images are doubled.
    pub(crate) phases: Option<&'a Tensor>,
    /// (out)
    pub(crate) bias: Option<&'a Tensor>,
}

/// Whether the kernels will read this weight.
fn is_for_kernels(weight: &Tensor) -> bool {
    weight.device().is_cuda() && !weight.track_op() && element_of(weight.dtype()).is_ok()
}

/// A convolution's weight (out, in, kernel, kernel), with its memory in the kernel's layout if a kernel will read it.
pub(crate) fn lay_out_weight(weight: Tensor) -> Result<Tensor> {
    if is_for_kernels(&weight) { channels_last(&weight) } else { Ok(weight) }
}

/// The weights of a doubled image's phases, where a kernel computes them.
pub(crate) fn phases(weight: &Tensor, options: Conv2dOptions) -> Result<Option<Tensor>> {
    let covered = options.upsample && weight.dim(2)? == 3 && is_for_kernels(weight);
    covered.then(|| conv2d_layout::phases(weight)).transpose()
}

/// Like [`crate::Conv2d::forward_with`].
pub(crate) fn conv2d(
    x: &Tensor,
    weights: Conv2dWeights,
    options: Conv2dOptions,
    [out_height, out_width]: [usize; 2],
    epilogue: &Epilogue,
) -> Result<Option<Tensor>> {
    let Conv2dWeights { weight, phases, bias } = weights;
    let ((batch, height, width, in_channels), (out_channels, _, kernel, _)) = (x.dims4()?, weight.dims4()?);
    let channels = stored_channels(in_channels);
    let results = [batch, out_height, out_width, out_channels];
    // The reference path words the error for what does not fit.
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
        None => return no_kernel("conv2d", NotCovered("a doubled image under other than 3 × 3 taps")),
    };
    let x = x.contiguous()?.pad_with_zeros(D::Minus1, 0, channels - in_channels)?;
    let [bias, shift, residual] =
        [bias, epilogue.shift, epilogue.residual].map(|tensor| tensor.map(Tensor::contiguous).transpose());
    let (bias, shift, residual) = (bias?, shift?, residual?);
    let inputs = [Some(&x), Some(weight), bias.as_ref(), shift.as_ref(), residual.as_ref()];
    let element = element(inputs.into_iter().flatten());
    let dtype = x.dtype();
    let launch = |dispatch: &Dispatch, element, from: [_; 5], [out]: [_; 1]| {
        let [x, weight, bias, shift, residual] = from;
        let op = Conv2dOperands {
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
            activation: epilogue.activation,
            out,
        };
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        unsafe { dispatch.conv2d(&op) }
    };
    // SAFETY: the kernels write every channel of every pixel.
    unsafe { run("conv2d", element, inputs, [(&results, dtype)], launch) }.map(only)
}
