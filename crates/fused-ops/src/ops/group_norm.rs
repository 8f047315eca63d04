//! Normalises groups of channels of channels-last images, alone or followed by SiLU.

use super::shift_channels::shift_channels;
use crate::cpu::group_norm::Groups;
use crate::tensors::compute_dtype::for_computing;
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slice};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder};

/// Group normalisation (Wu & He, arXiv 1803.08494): each group of neighbouring channels of an image is normalised to
/// mean 0 and variance 1, then each channel is scaled and shifted.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias`, both (channels), from `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or if `groups` does not divide `channels`.
    pub fn new(groups: usize, channels: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            candle_core::bail!(
                "group normalisation: {channels} channels cannot be split into {groups} groups"
            );
        }
        let weight = vb.get_with_hints(channels, "weight", Init::Const(1.)).and_then(for_computing)?;
        let bias = vb.get_with_hints(channels, "bias", Init::Const(0.)).and_then(for_computing)?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// `(batch, …, channels)`, normalised per group.
    ///
    /// # Errors
    /// If `x` has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, false)
    }

    /// [`GroupNorm::forward`] followed by `x · sigmoid(x)`.
    ///
    /// # Errors
    /// If `x` has another number of channels.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, true)
    }

    /// Like [`GroupNorm::forward_silu`] of `x + shift`, with shift (batch, channels): the way a timestep enters the
    /// UNet's residual blocks.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn forward_shifted_silu(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if shift.dims() == [x.dim(0)?, x.dim(D::Minus1)?] && x.device().is_cuda() {
            let Self { weight, bias, groups, eps } = self;
            if let Some(y) = crate::cuda::ops::group_norm(x, Some(shift), weight, bias, *groups, *eps, true)?
            {
                return Ok(y);
            }
        }
        self.forward_silu(&shift_channels(x, shift)?)
    }

    fn apply(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let Self { weight, bias, groups, eps } = self;
        if !on_cpu(x) {
            #[cfg(feature = "cuda")]
            if let Some(y) = crate::cuda::ops::group_norm(x, None, weight, bias, *groups, *eps, silu)? {
                return Ok(y);
            }
            return group_norm_reference(x, weight, bias, *groups, *eps, silu);
        }
        let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
        if channels != weight.elem_count() {
            candle_core::bail!("a group normalisation got an input of shape {:?}", x.dims());
        }
        let pixels = x.elem_count() / (batch * channels).max(1);
        let op = GroupNormOp(Groups { pixels, channels, groups: *groups, eps: *eps, silu });
        as_f32(x)?.apply_op3(&as_f32(weight)?, &as_f32(bias)?, op)?.to_dtype(x.dtype())
    }
}

struct GroupNormOp(Groups);

impl CustomOp3 for GroupNormOp {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let y = self.0.forward(slice(x, x_layout)?, weight, bias);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad_x, grad_weight, grad_bias) = with_slice(x, |x| {
            with_slice(weight, |weight| {
                with_slice(bias, |bias| with_slice(grad, |grad| Ok(self.0.backward(x, weight, bias, grad))))
            })
        })?;
        Ok((gradient(grad_x, x)?, gradient(grad_weight, weight)?, gradient(grad_bias, bias)?))
    }
}

/// The definition of [`GroupNorm::forward`], followed by SiLU if `silu`, in candle tensors; statistics in f32.
///
/// # Errors
/// If the shapes do not fit together.
pub fn group_norm_reference(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let (dtype, dims) = (x.dtype(), x.dims());
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    // (batch, pixels, groups, channels / group)
    let x = x.to_dtype(DType::F32)?.reshape((batch, (), groups, channels / groups))?;
    let mean = x.mean_keepdim(3)?.mean_keepdim(1)?;
    let x = x.broadcast_sub(&mean)?;
    let variance = x.sqr()?.mean_keepdim(3)?.mean_keepdim(1)?;
    let x = x.broadcast_div(&(variance + eps)?.sqrt()?)?.reshape(dims)?;
    let x = x.broadcast_mul(&weight.to_dtype(DType::F32)?)?.broadcast_add(&bias.to_dtype(DType::F32)?)?;
    let x = if silu { candle_nn::ops::silu(&x)? } else { x };
    x.to_dtype(dtype)
}
