//! Lists the activation functions that a tower's `config.json` can name as `hidden_act`.

use fused_ops::Epilogue;
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
    /// The epilogue of a linear layer that applies this function.
    pub(crate) fn epilogue<'a>(self) -> Epilogue<'a> {
        Epilogue::activation(match self {
            Self::Gelu => fused_ops::Activation::Gelu,
            Self::GeluTanh => fused_ops::Activation::GeluTanh,
            Self::QuickGelu => fused_ops::Activation::QuickGelu,
        })
    }
}
