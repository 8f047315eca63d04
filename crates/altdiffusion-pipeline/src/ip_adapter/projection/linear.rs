//! Projects one vector to a few tokens (diffusers' `ImageProjection`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{LayerNorm, Linear};

use super::layer_norm::LAYER_NORM_EPS;

/// A linear layer to all tokens at once, and a layer norm per token.
#[derive(Debug, Clone)]
pub(crate) struct LinearProjection {
    proj: Linear,
    norm: LayerNorm,
    width: usize,
}

impl LinearProjection {
    /// `rows` is the output width, for all tokens together.
    pub(crate) fn new(image_width: usize, rows: usize, width: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            proj: Linear::new(image_width, rows, true, vb.pp("proj"))?,
            norm: LayerNorm::new(width, LAYER_NORM_EPS, vb.pp("norm"))?,
            width,
        })
    }

    /// (images, image_width) → (images, tokens, width)
    pub(crate) fn forward(&self, embeddings: &Tensor) -> Result<Tensor> {
        let tokens = self.proj.forward(embeddings)?;
        self.norm.forward(&tokens.reshape((embeddings.dim(0)?, (), self.width))?)
    }
}
