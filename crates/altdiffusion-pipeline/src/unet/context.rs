//! The prompt as the UNet sees it: the keys and values of its cross-attentions.

use candle_core::{DType, Tensor};

use crate::layers::attention::{CrossAttention, KeyValue};
use crate::{Error, Result};

/// A batch of prompts, projected to the keys and values of every cross-attention of one UNet, in the order in
/// which the UNet reaches them: down, middle, up.
#[derive(Debug, Clone)]
pub struct CrossAttentionContext {
    layers: Vec<KeyValue>,
    /// (batch, tokens)
    key_bias: Option<Tensor>,
    batch: usize,
    /// What is looked at beside the prompts.
    images: Vec<ImageContext>,
}

/// A batch of pictures as the keys and values of every cross-attention of one UNet, in the same order.
#[derive(Debug, Clone)]
pub(crate) struct ImageContext {
    pub layers: Vec<KeyValue>,
}

impl CrossAttentionContext {
    /// The same, with pictures that are looked at beside the prompts: what each of them gives is added to what the prompts
    /// give.
    pub(crate) fn with_images(self, images: Vec<ImageContext>) -> Self {
        Self { images, ..self }
    }

    /// How many prompts these are.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// A walk through the layers, for one pass.
    pub(crate) fn cursor(&self) -> ContextCursor<'_> {
        ContextCursor { context: self, place: 0 }
    }
}

/// Hands each cross-attention, in the order of the pass, its keys and values.
pub(crate) struct ContextCursor<'a> {
    context: &'a CrossAttentionContext,
    /// Of the next layer.
    place: usize,
}

impl ContextCursor<'_> {
    /// Attends, from (batch, positions, channels), to the next layer's keys and values, and adds what is carried around.
    pub fn attend(
        &mut self,
        attention: &CrossAttention,
        hidden: &Tensor,
        residual: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let place = self.place;
        self.place += 1;
        let Some(layer) = self.context.layers.get(place) else {
            candle_core::bail!(
                "the cross-attention context was projected by another model, with fewer layers"
            )
        };
        let images: Vec<_> = self.context.images.iter().filter_map(|image| image.layers.get(place)).collect();
        attention.forward(hidden, layer, self.context.key_bias.as_ref(), &images, residual)
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
        // Logarithms of counts, which a half type would round by more than all else is rounded.
        let key_bias = key_bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        let hidden_states = hidden_states.to_dtype(dtype)?;
        Ok(Self {
            hidden_states,
            context: CrossAttentionContext { layers: Vec::new(), key_bias, batch, images: Vec::new() },
        })
    }

    /// Projects the hidden states for the next layer.
    pub fn project(&mut self, attention: &CrossAttention) -> candle_core::Result<()> {
        self.context.layers.push(attention.project(&self.hidden_states)?);
        Ok(())
    }

    pub fn finish(self) -> CrossAttentionContext {
        self.context
    }
}
