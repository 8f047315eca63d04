//! Names the activation functions that the towers' `config.json` can ask for as `hidden_act`.

use fused_ops::Epilogue;
use serde::{Deserialize, Serialize};

/// Activation between the two linear layers of a transformer block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// x · Φ(x) with the error function (XLM-R, OpenCLIP ViT-H).
    Gelu,
    /// x · σ(1.702 x) (OpenAI's CLIP ViT-L).
    QuickGelu,
}

impl HiddenAct {
    /// What follows a linear layer that this function is applied to.
    pub(crate) fn epilogue<'a>(self) -> Epilogue<'a> {
        Epilogue::activation(match self {
            Self::Gelu => fused_ops::Activation::Gelu,
            Self::QuickGelu => fused_ops::Activation::QuickGelu,
        })
    }
}
