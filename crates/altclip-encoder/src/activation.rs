//! Lists the activation functions that a tower's `config.json` can name as `hidden_act`.

use fused_ops::Activation;
use serde::{Deserialize, Serialize};

/// The activation between the two linear layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// x · Φ(x) with the error function (XLM-R, OpenCLIP ViT-H).
    Gelu,
    /// The same by tanh (SigLIP).
    #[serde(rename = "gelu_pytorch_tanh", alias = "gelu_new")]
    GeluTanh,
    /// x · σ(1.702 x) (OpenAI's CLIP ViT-L).
    QuickGelu,
}

impl HiddenAct {
    /// The operation.
    pub(crate) fn operation(self) -> Activation {
        match self {
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
            Self::QuickGelu => Activation::QuickGelu,
        }
    }
}
