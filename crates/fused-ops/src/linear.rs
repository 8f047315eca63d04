//! Linear layers: `x · weightᵀ + bias`.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder, init};

/// A linear layer with weights as PyTorch stores them, `(out, in)`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` (out, in) and, if asked for, `bias` (out) from `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(in_features: usize, out_features: usize, bias: bool, vb: VarBuilder) -> Result<Self> {
        let weight =
            vb.get_with_hints((out_features, in_features), "weight", init::DEFAULT_KAIMING_UNIFORM)?;
        let bound = 1. / (in_features as f64).sqrt();
        let bias = bias
            .then(|| vb.get_with_hints(out_features, "bias", Init::Uniform { lo: -bound, up: bound }))
            .transpose()?;
        Ok(Self { weight, bias })
    }

    /// `(…, in)` to `(…, out)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear_reference(x, &self.weight, self.bias.as_ref())
    }
}

/// The definition, in candle tensors.
pub(crate) fn linear_reference(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out_features, in_features) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let y = x.reshape(((), in_features))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = dims.last_mut() {
        *last = out_features;
    }
    y.reshape(dims)
}
