//! Projects each of the encoder's vectors to a token (diffusers' `IPAdapterFullImageProjection`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Epilogue, LayerNorm, Linear};

use super::layer_norm::LAYER_NORM_EPS;

/// A feed-forward and a layer norm.
#[derive(Debug, Clone)]
pub(crate) struct FullProjection {
    /// `proj.0`
    inner: Linear,
    /// `proj.2`
    out: Linear,
    /// `proj.3`
    norm: LayerNorm,
}

impl FullProjection {
    pub(crate) fn new(image_width: usize, inner: usize, width: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            inner: Linear::new(image_width, inner, true, vb.pp("proj.0"))?,
            out: Linear::new(inner, width, true, vb.pp("proj.2"))?,
            norm: LayerNorm::new(width, LAYER_NORM_EPS, vb.pp("proj.3"))?,
        })
    }

    /// (images, rows, image_width) → (images, rows, width)
    pub(crate) fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let inner = self.inner.forward_with(hidden_states, &Epilogue::activation(Activation::Gelu))?;
        self.norm.forward(&self.out.forward(&inner)?)
    }
}
