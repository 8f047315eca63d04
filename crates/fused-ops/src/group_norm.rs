//! Group normalisation over channels-last pictures, alone or followed by SiLU.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Group normalisation (Wu & He, arXiv 1803.08494): every group of neighbouring channels of one picture is brought to
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
        let weight = vb.get_with_hints(channels, "weight", Init::Const(1.))?;
        let bias = vb.get_with_hints(channels, "bias", Init::Const(0.))?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// `(batch, …, channels)`, normalised over each group.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        group_norm_reference(x, &self.weight, &self.bias, self.groups, self.eps, false)
    }

    /// [`GroupNorm::forward`] followed by `x · sigmoid(x)`.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        group_norm_reference(x, &self.weight, &self.bias, self.groups, self.eps, true)
    }
}

/// The definition, in candle tensors; statistics in f32.
pub(crate) fn group_norm_reference(
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
