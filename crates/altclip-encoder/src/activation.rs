//! The activation functions that the towers' `config.json` can name as `hidden_act`.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// Activation between the two linear layers of a transformer block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x · Φ(x) with the error function (XLM-R, OpenCLIP ViT-H).
    Gelu,
    /// x · σ(1.702 x) (OpenAI's CLIP ViT-L).
    QuickGelu,
}

impl Activation {
    /// Applies the function to every element of `x`.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => fused_ops::gelu(x),
            Self::QuickGelu => fused_ops::quick_gelu(x),
        }
    }
}
