//! Computes a layer of CLIP's text or image tower: layer norms precede attention and feed-forward (pre-LN).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{AttentionHeads, LayerNorm, Linear, LinearGroup, attention, causal_attention};

use crate::activation::HiddenAct;
use crate::layer_shape::LayerShape;

/// Which rows attend to which.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AttentionMask<'a> {
    /// Every row to every row: an image's patches.
    None,
    /// Every row to itself and earlier ones: a text's tokens. A bias per key, (batch, tokens), can hide some.
    Causal(Option<&'a Tensor>),
}

/// `encoder.layers.N`.
#[derive(Debug, Clone)]
pub(crate) struct ClipLayer {
    layer_norm1: LayerNorm,
    self_attn: ClipAttention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl ClipLayer {
    pub(crate) fn new(shape: &LayerShape, vb: VarBuilder) -> Result<Self> {
        let norm = |name: &str| LayerNorm::new(shape.hidden_size, shape.layer_norm_eps, vb.pp(name));
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            self_attn: ClipAttention::new(shape, vb.pp("self_attn"))?,
            layer_norm2: norm("layer_norm2")?,
            mlp: Mlp::new(shape, vb.pp("mlp"))?,
        })
    }

    /// (batch, rows, hidden_size) → the same.
    pub(crate) fn forward(&self, x: &Tensor, mask: AttentionMask) -> Result<Tensor> {
        let [x, normalised] =
            self.self_attn.forward(&self.layer_norm1.forward(x)?, mask, x, &self.layer_norm2)?;
        self.mlp.forward(&normalised, &x)
    }

    /// Like [`forward`](Self::forward) without a mask, but only the first row of each: (batch, 1, hidden_size).
    pub(crate) fn forward_first(&self, x: &Tensor) -> Result<Tensor> {
        let [x, normalised] =
            self.self_attn.forward_first(&self.layer_norm1.forward(x)?, x, &self.layer_norm2)?;
        self.mlp.forward(&normalised, &x)
    }
}

#[derive(Debug, Clone)]
struct ClipAttention {
    qkv_proj: LinearGroup<3>,
    out_proj: Linear,
    heads: AttentionHeads,
}

impl ClipAttention {
    fn new(shape: &LayerShape, vb: VarBuilder) -> Result<Self> {
        let linear = |name: &str| Linear::new(shape.hidden_size, shape.hidden_size, true, vb.pp(name));
        Ok(Self {
            qkv_proj: LinearGroup::new([linear("q_proj")?, linear("k_proj")?, linear("v_proj")?])?,
            out_proj: linear("out_proj")?,
            heads: AttentionHeads::new(shape.num_attention_heads, &vb),
        })
    }

    /// Adds the residual, and also returns the normalised sum.
    fn forward(
        &self,
        x: &Tensor,
        mask: AttentionMask,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> Result<[Tensor; 2]> {
        let [query, key, value] = self.qkv_proj.forward(x)?;
        let mixed = match mask {
            AttentionMask::None => attention(&query, &key, &value, self.heads, None),
            AttentionMask::Causal(bias) => causal_attention(&query, &key, &value, self.heads, bias),
        };
        self.out_proj.forward_then_norm(&mixed?, residual, norm)
    }

    /// Like [`forward`](Self::forward) without a mask, but only the first row of each: (batch, 1, hidden_size).
    fn forward_first(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Result<[Tensor; 2]> {
        let [query, key, value] = self.qkv_proj.forward(x)?;
        let first = |x: &Tensor| x.narrow(1, 0, 1)?.contiguous();
        let mixed = attention(&first(&query)?, &key, &value, self.heads, None)?;
        self.out_proj.forward_then_norm(&mixed, &first(residual)?, norm)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    fc1: Linear,
    activation: HiddenAct,
    fc2: Linear,
}

impl Mlp {
    pub(crate) fn new(shape: &LayerShape, vb: VarBuilder) -> Result<Self> {
        let (hidden, intermediate) = (shape.hidden_size, shape.intermediate_size);
        Ok(Self {
            fc1: Linear::new(hidden, intermediate, true, vb.pp("fc1"))?,
            activation: shape.hidden_act,
            fc2: Linear::new(intermediate, hidden, true, vb.pp("fc2"))?,
        })
    }

    /// Adds the residual.
    pub(crate) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.fc1.forward_through(x, self.activation.operation(), &self.fc2, residual)
    }
}
