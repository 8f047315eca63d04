//! Reads an image's patches by attention with one learned query (`SiglipMultiheadAttentionPoolingHead`; the MAP head of
//! Set Transformer, <https://arxiv.org/abs/1810.00825>).

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use fused_ops::{AttentionHeads, LayerNorm, Linear, LinearGroup, attention, for_computing};

use crate::clip_layer::Mlp;
use crate::layer_shape::{INITIALIZER_RANGE, LayerShape};

/// The tensors of three projections in one, which [`pooling_parts`] names apart.
const FUSED: [&str; 2] =
    ["vision_model.head.attention.in_proj_weight", "vision_model.head.attention.in_proj_bias"];
const PARTS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// The names of the parts of a fused tensor; none for others. For
/// [`Checkpoint::with_rows_split`](crate::Checkpoint::with_rows_split).
pub(crate) fn pooling_parts(stored: &str) -> Vec<String> {
    let parts = PARTS.iter().filter(|_| FUSED.contains(&stored));
    parts.map(|part| format!("{stored}.{part}")).collect()
}

/// The name in the file of a weight of the model: other than itself for parts of fused tensors.
pub(crate) fn pooling_name(name: &str) -> String {
    let part = |part: &&str| {
        let kind =
            name.strip_prefix("vision_model.head.attention.")?.strip_prefix(*part)?.strip_prefix('.')?;
        Some(format!("vision_model.head.attention.in_proj_{kind}.{part}"))
    };
    PARTS.iter().find_map(part).unwrap_or_else(|| name.to_owned())
}

/// `vision_model.head`.
#[derive(Debug, Clone)]
pub(super) struct AttentionPooling {
    probe: Tensor, // (1, 1, hidden_size)
    query: Linear,
    key_value: LinearGroup<2>,
    out_proj: Linear,
    heads: AttentionHeads,
    layer_norm: LayerNorm,
    mlp: Mlp,
}

impl AttentionPooling {
    /// Reads `probe`, `attention.*`, `layernorm.*` and `mlp.*` under `vb`.
    pub(super) fn new(shape: &LayerShape, vb: VarBuilder) -> Result<Self> {
        let (hidden, projections) = (shape.hidden_size, vb.pp("attention"));
        let linear = |name: &str| Linear::new(hidden, hidden, true, projections.pp(name));
        let init = Init::Randn { mean: 0., stdev: INITIALIZER_RANGE };
        Ok(Self {
            probe: for_computing(vb.get_with_hints((1, 1, hidden), "probe", init)?)?,
            query: linear("q_proj")?,
            key_value: LinearGroup::new([linear("k_proj")?, linear("v_proj")?])?,
            out_proj: linear("out_proj")?,
            heads: AttentionHeads::new(shape.num_attention_heads, &projections),
            layer_norm: LayerNorm::new(hidden, shape.layer_norm_eps, vb.pp("layernorm"))?,
            mlp: Mlp::new(shape, vb.pp("mlp"))?,
        })
    }

    /// (batch, patches, hidden_size) → (batch, hidden_size)
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, hidden) = x.dims3()?;
        let query = self.query.forward(&self.probe)?.expand((batch, 1, hidden))?.contiguous()?;
        let [key, value] = self.key_value.forward(x)?;
        let read = self.out_proj.forward(&attention(&query, &key, &value, self.heads, None)?)?;
        self.mlp.forward(&self.layer_norm.forward(&read)?, &read)?.squeeze(1)
    }
}
