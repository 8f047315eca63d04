//! Computes BERT layers that also attend to the states of something else: a text's to an image, or an image's to a text.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{AttentionHeads, Linear, LinearGroup, attention};

use crate::activation::HiddenAct;
use crate::layer_shape::LayerShape;
use crate::xlm_roberta::layer::ResidualNorm;

/// `text_joint_layer` or `img_joint_layer` of R2D2, without their embeddings, which are never read.
#[derive(Debug, Clone)]
pub(crate) struct JointEncoder {
    layers: Vec<JointLayer>,
}

/// States (batch, rows, width), and the bias of each as a key, (batch, rows), if some are padding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct States<'a> {
    pub rows: &'a Tensor,
    pub bias: Option<&'a Tensor>,
}

impl JointEncoder {
    /// Reads `encoder.layer.*` under `vb`. The other states are `other_width` wide.
    pub(crate) fn new(shape: &LayerShape, other_width: usize, layers: usize, vb: VarBuilder) -> Result<Self> {
        let vb = vb.pp("encoder.layer");
        let layers = (0..layers).map(|index| JointLayer::new(shape, other_width, vb.pp(index)));
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// The state of the first row after all layers: (batch, width).
    pub(crate) fn first_rows(&self, own: States, other: States) -> Result<Tensor> {
        let (_, rows, _) = own.rows.dims3()?;
        let mut x = own.rows.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            // Of the last layer, the other rows are not needed.
            let wanted = if index + 1 == self.layers.len() { 1 } else { rows };
            x = layer.forward(States { rows: &x, ..own }, other, wanted)?;
        }
        x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()
    }
}

/// `encoder.layer.N`: attention to its own rows, to the other states, and feed-forward, each followed by its residual
/// and layer norm.
#[derive(Debug, Clone)]
struct JointLayer {
    query_key_value: LinearGroup<3>,
    attention_output: ResidualNorm,
    other_query: Linear,
    other_key_value: LinearGroup<2>,
    other_output: ResidualNorm,
    intermediate: Linear,
    activation: HiddenAct,
    output: ResidualNorm,
    heads: AttentionHeads,
}

impl JointLayer {
    fn new(shape: &LayerShape, other_width: usize, vb: VarBuilder) -> Result<Self> {
        let (hidden, inner, eps) = (shape.hidden_size, shape.intermediate_size, shape.layer_norm_eps);
        let (own, other) = (vb.pp("attention.self"), vb.pp("crossattention.self"));
        let of_own = |name: &str| Linear::new(hidden, hidden, true, own.pp(name));
        let of_other = |name: &str| Linear::new(other_width, hidden, true, other.pp(name));
        let norm = |name: &str, width: usize| ResidualNorm::new(width, hidden, eps, vb.pp(name));
        Ok(Self {
            query_key_value: LinearGroup::new([of_own("query")?, of_own("key")?, of_own("value")?])?,
            attention_output: norm("attention.output", hidden)?,
            other_query: Linear::new(hidden, hidden, true, other.pp("query"))?,
            other_key_value: LinearGroup::new([of_other("key")?, of_other("value")?])?,
            other_output: norm("crossattention.output", hidden)?,
            intermediate: Linear::new(hidden, inner, true, vb.pp("intermediate.dense"))?,
            activation: shape.hidden_act,
            output: norm("output", inner)?,
            heads: AttentionHeads::new(shape.num_attention_heads, &own),
        })
    }

    /// The first `wanted` rows: (batch, wanted, width).
    fn forward(&self, own: States, other: States, wanted: usize) -> Result<Tensor> {
        let first = |x: &Tensor| x.narrow(1, 0, wanted)?.contiguous();
        let [query, key, value] = self.query_key_value.forward(own.rows)?;
        let mixed = attention(&first(&query)?, &key, &value, self.heads, own.bias)?;
        let x = self.attention_output.forward(&mixed, &first(own.rows)?)?;

        let [key, value] = self.other_key_value.forward(other.rows)?;
        let mixed = attention(&self.other_query.forward(&x)?, &key, &value, self.heads, other.bias)?;
        let x = self.other_output.forward(&mixed, &x)?;

        self.output.forward_after(&self.intermediate, self.activation, &x)
    }
}
