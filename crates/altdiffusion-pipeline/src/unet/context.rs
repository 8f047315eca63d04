//! The prompt as the UNet sees it: the keys and values of its cross-attentions.

use candle_core::{DType, Tensor};

use crate::layers::attention::{Attention, KeyValue};
use crate::{Error, Result};

/// A batch of prompts, projected to the keys and values of every cross-attention of one UNet, in the order in
/// which the UNet reaches them: down, middle, up.
#[derive(Debug, Clone)]
pub struct CrossAttentionContext {
    layers: Vec<KeyValue>,
    /// (batch, tokens)
    key_bias: Option<Tensor>,
    batch: usize,
}

impl CrossAttentionContext {
    /// How many prompts these are.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// A walk through the layers, for one pass.
    pub(crate) fn cursor(&self) -> ContextCursor<'_> {
        ContextCursor { layers: self.layers.iter(), key_bias: self.key_bias.as_ref() }
    }
}

/// Hands each cross-attention, in the order of the pass, its keys and values.
pub(crate) struct ContextCursor<'a> {
    layers: std::slice::Iter<'a, KeyValue>,
    key_bias: Option<&'a Tensor>,
}

impl ContextCursor<'_> {
    /// Attends, from (batch, positions, channels), to the next layer's keys and values, and adds what is carried around.
    pub fn attend(
        &mut self,
        attention: &Attention,
        hidden: &Tensor,
        residual: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let Some(layer) = self.layers.next() else {
            candle_core::bail!(
                "the cross-attention context was projected by another model, with fewer layers"
            )
        };
        attention.forward_with(hidden, layer, self.key_bias, residual)
    }
}

/// Collects the keys and values, layer by layer.
pub(crate) struct ContextProjector {
    /// (batch, tokens, width)
    hidden_states: Tensor,
    context: CrossAttentionContext,
}

impl ContextProjector {
    pub fn new(hidden_states: &Tensor, key_bias: Option<&Tensor>, dtype: DType) -> Result<Self> {
        let &[batch, tokens, _] = hidden_states.dims() else {
            return Err(Error::Shape {
                tensor: "hidden_states",
                expected: "(batch, tokens, width)".to_string(),
                found: format!("{:?}", hidden_states.dims()),
            });
        };
        if let Some(bias) = key_bias
            && bias.dims() != [batch, tokens]
        {
            return Err(Error::Shape {
                tensor: "key_bias",
                expected: format!("({batch}, {tokens}), one number per token"),
                found: format!("{:?}", bias.dims()),
            });
        }
        let key_bias = key_bias.map(|bias| bias.to_dtype(dtype)).transpose()?;
        let hidden_states = hidden_states.to_dtype(dtype)?;
        Ok(Self { hidden_states, context: CrossAttentionContext { layers: Vec::new(), key_bias, batch } })
    }

    /// Projects the hidden states for the next layer.
    pub fn project(&mut self, attention: &Attention) -> candle_core::Result<()> {
        self.context.layers.push(attention.project(&self.hidden_states)?);
        Ok(())
    }

    pub fn finish(self) -> CrossAttentionContext {
        self.context
    }
}
