//! Embeds a timestep's sinusoids.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Epilogue, Linear};

/// The two-layer MLP after the sinusoids.
#[derive(Debug, Clone)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(crate) fn new(channels: usize, time_embedding_dim: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(channels, time_embedding_dim, true, vb.pp("linear_1"))?,
            linear_2: Linear::new(time_embedding_dim, time_embedding_dim, true, vb.pp("linear_2"))?,
        })
    }

    /// (batch, channels) → (batch, time_embedding_dim)
    pub(crate) fn forward(&self, sinusoids: &Tensor) -> Result<Tensor> {
        let inner = self.linear_1.forward_with(sinusoids, &Epilogue::activation(Activation::Silu))?;
        self.linear_2.forward(&inner)
    }
}
