//! Projects prompts to the keys and values of the cross-attentions.

use candle_core::{DType, Device, Tensor};
use fused_ops::LayerNorm;

use crate::layers::attention::{CrossAttention, KeyValue};
use crate::{Error, Result};

/// A batch of prompts, projected to the keys and values of every cross-attention of a UNet, in the order in which it
/// runs them: down, middle, up.
#[derive(Debug, Clone)]
pub struct CrossAttentionContext {
    layers: Vec<KeyValue>,
    /// (batch, tokens)
    key_bias: Option<Tensor>,
    batch: usize,
    /// IP-Adapters' keys and values, beside those of the prompts.
    images: Vec<ImageContext>,
}

/// A batch of images, projected to the keys and values of every cross-attention of a UNet, in the same order: what an
/// IP-Adapter adds to the prompt.
#[derive(Debug, Clone)]
pub struct ImageContext {
    pub(crate) layers: Vec<KeyValue>,
}

impl ImageContext {
    /// The keys and values per cross-attention, (batch, tokens, channels) each. Their attention is added to that of
    /// the text.
    pub fn keys_and_values(&self) -> impl ExactSizeIterator<Item = (&Tensor, &Tensor)> {
        self.layers.iter().map(|layer| (&layer.key, &layer.value))
    }
}

impl CrossAttentionContext {
    /// Adds images. Their attention is added to that of the prompts.
    pub(crate) fn with_images(self, images: Vec<ImageContext>) -> Self {
        Self { images, ..self }
    }

    /// The number of prompts.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Whether it fits a copy with the same [room](Self::room).
    pub(super) fn can_be_copied(&self) -> bool {
        self.images.is_empty()
    }

    /// The number of tokens that a copy has room for, so that prompts of somewhat different lengths fit the same one.
    pub(super) fn room(&self) -> usize {
        let tokens = self.layers.first().map_or(0, |layer| layer.key.dims().get(1).copied().unwrap_or(0));
        // The kernels for few keys process 32 or 80, however few there are; the one for many processes 64 at a time.
        match tokens {
            0..=32 => 32,
            33..=80 => 80,
            more => more.next_multiple_of(64),
        }
    }

    /// A copy with [room](Self::room) for others; the unused part is masked.
    pub(super) fn copy(&self) -> Result<Self> {
        let room = self.room();
        let roomy = |x: &Tensor| -> candle_core::Result<Tensor> {
            let (batch, _, width) = x.dims3()?;
            Tensor::zeros((batch, room, width), x.dtype(), x.device())
        };
        let layers = self
            .layers
            .iter()
            .map(|layer| Ok(KeyValue { key: roomy(&layer.key)?, value: roomy(&layer.value)? }))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let device = self.layers.first().map_or(&Device::Cpu, |layer| layer.key.device());
        let hidden = Tensor::full(f32::NEG_INFINITY, (self.batch, room), device)?;
        let copy = Self { layers, key_bias: Some(hidden), batch: self.batch, images: Vec::new() };
        copy.overwrite(self)?;
        Ok(copy)
    }

    /// Overwrites this [copy](Self::copy) with the keys and values of `other`, a context of the same UNet and room,
    /// and pads with zeros: masking hides what a longer prompt left there, but not a NaN.
    pub(super) fn overwrite(&self, other: &Self) -> Result<()> {
        let mut tokens = 0;
        let put = |to: &Tensor, from: &Tensor| {
            let missing = to.dim(1)? - from.dim(1)?;
            to.slice_set(&from.pad_with_zeros(1, 0, missing)?.contiguous()?, 1, 0)
        };
        for (to, from) in self.layers.iter().zip(&other.layers) {
            put(&to.key, &from.key)?;
            put(&to.value, &from.value)?;
            tokens = from.key.dim(1)?;
        }
        let Some(bias) = &self.key_bias else { return Ok(()) };
        let hidden = Tensor::full(f32::NEG_INFINITY, bias.shape(), bias.device())?;
        bias.slice_set(&hidden, 0, 0)?;
        let seen = match &other.key_bias {
            Some(seen) => seen.contiguous()?,
            None => Tensor::zeros((self.batch, tokens), DType::F32, bias.device())?,
        };
        Ok(bias.slice_set(&seen, 1, 0)?)
    }

    /// Iterates over the layers, for one pass.
    pub(crate) fn cursor(&self) -> ContextCursor<'_> {
        ContextCursor { context: self, place: 0 }
    }
}

/// Gives each cross-attention its keys and values, in the order of the pass.
pub(crate) struct ContextCursor<'a> {
    context: &'a CrossAttentionContext,
    /// The index of the next layer.
    place: usize,
}

impl ContextCursor<'_> {
    /// Attends from (batch, positions, channels) to the next layer's keys and values, and adds `residual`. Returns
    /// that sum, and the sum normalised.
    pub(crate) fn attend(
        &mut self,
        attention: &CrossAttention,
        hidden: &Tensor,
        residual: &Tensor,
        norm: &LayerNorm,
    ) -> candle_core::Result<[Tensor; 2]> {
        let place = self.place;
        self.place += 1;
        let Some(layer) = self.context.layers.get(place) else {
            candle_core::bail!(
                "the cross-attention context was projected by another model, with fewer layers"
            )
        };
        let images: Vec<_> = self.context.images.iter().filter_map(|image| image.layers.get(place)).collect();
        let key_bias = self.context.key_bias.as_ref();
        attention.forward_then_norm(hidden, layer, key_bias, &images, (residual, norm))
    }
}

/// Collects the keys and values, layer by layer.
pub(crate) struct ContextProjector {
    /// (batch, tokens, width)
    hidden_states: Tensor,
    context: CrossAttentionContext,
}

impl ContextProjector {
    pub(crate) fn new(hidden_states: &Tensor, key_bias: Option<&Tensor>, dtype: DType) -> Result<Self> {
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
        // Logarithms of counts, for which half precision is too coarse.
        let key_bias = key_bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        let hidden_states = hidden_states.to_dtype(dtype)?;
        Ok(Self {
            hidden_states,
            context: CrossAttentionContext { layers: Vec::new(), key_bias, batch, images: Vec::new() },
        })
    }

    /// Projects the hidden states for the next layer.
    pub(crate) fn project(&mut self, attention: &CrossAttention) -> candle_core::Result<()> {
        self.context.layers.push(attention.project(&self.hidden_states)?);
        Ok(())
    }

    pub(crate) fn finish(self) -> CrossAttentionContext {
        self.context
    }
}
