//! Layer normalisation.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Layer normalisation (Ba et al., arXiv 1607.06450) over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both (size), from `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints(size, "weight", Init::Const(1.))?;
        let bias = vb.get_with_hints(size, "bias", Init::Const(0.))?;
        Ok(Self { weight, bias, eps })
    }

    /// `(…, size)`, each row normalised.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm_reference(x, &self.weight, &self.bias, self.eps)
    }
}

/// The definition, in candle tensors; statistics in f32.
pub(crate) fn layer_norm_reference(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(DType::F32)?;
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(&weight.to_dtype(DType::F32)?)?
        .broadcast_add(&bias.to_dtype(DType::F32)?)?
        .to_dtype(dtype)
}
