//! Infers the shape of a UNet's downsampling path from its tensors.

use super::prefixed_tensors::PrefixedTensors;
use crate::{PerBlock, Result};

/// Heads per level in Stable Diffusion 1.
const SD1_HEADS: usize = 8;
/// Channels per head in Stable Diffusion 2, and the width of its prompts.
const SD2_HEAD_CHANNELS: usize = 64;
const SD2_CROSS_ATTENTION_DIM: usize = 1024;

/// What the shapes reveal about a downsampling path and its middle, for a UNet or a ControlNet.
pub(crate) struct DownPath {
    /// Residual blocks per level.
    pub layers: usize,
    /// Channels of each level, highest resolution first.
    pub channels: Vec<usize>,
    attends: Vec<bool>,
    /// Transformer blocks per residual block; levels without a transformer get the middle's number.
    transformers: Vec<usize>,
    pub use_linear_projection: bool,
    pub cross_attention_dim: usize,
}

impl DownPath {
    pub(crate) fn in_latent_diffusion(tensors: &PrefixedTensors) -> Result<Self> {
        let inputs = tensors.numbers("input_blocks.");
        let is_halving = |block: &usize| tensors.has(&format!("input_blocks.{block}.0.op.weight"));
        let halvings: Vec<usize> = inputs.iter().copied().filter(is_halving).collect();
        // The first block is a convolution, and every level but the last ends with a downsampler.
        let blocks = inputs.last().copied().unwrap_or(0);
        let layers = halvings.first().map_or(blocks, |halving| halving.saturating_sub(1));
        let levels = halvings.len() + 1;
        // Unless blocks are missing, there are no more than tensors, so the products below stay small.
        let is_regular = layers > 0
            && inputs.len() == blocks.saturating_add(1)
            && inputs.len() == levels * (layers + 1)
            && halvings.iter().zip(1..).all(|(halving, level)| *halving == level * (layers + 1));
        if !is_regular {
            return Err(tensors.error(format!(
                "expected as many residual blocks on each level, found {blocks} input blocks with halvings at \
                 {halvings:?}"
            )));
        }
        let first = |level: usize| format!("input_blocks.{}", 1 + level * (layers + 1));
        let names = (0..levels)
            .map(|level| (format!("{}.0.out_layers.3.weight", first(level)), format!("{}.1", first(level))));
        Self::of_levels(tensors, layers, names, "middle_block.1")
    }

    pub(crate) fn in_diffusers(tensors: &PrefixedTensors) -> Result<Self> {
        let levels = tensors.numbers("down_blocks.").len();
        let names = (0..levels).map(|level| {
            let block = format!("down_blocks.{level}");
            (format!("{block}.resnets.0.conv2.weight"), format!("{block}.attentions.0"))
        });
        let layers = tensors.numbers("down_blocks.0.resnets.").len();
        Self::of_levels(tensors, layers, names, "mid_block.attentions.0")
    }

    /// Reads the names of each level's last convolution and transformer, and of the middle's transformer.
    fn of_levels(
        tensors: &PrefixedTensors,
        layers: usize,
        names: impl Iterator<Item = (String, String)>,
        middle: &str,
    ) -> Result<Self> {
        let transformer_blocks = |name: &str| tensors.numbers(&format!("{name}.transformer_blocks.")).len();
        let (mut channels, mut attends, mut transformers) = (vec![], vec![], vec![]);
        for (convolution, transformer) in names {
            channels.push(tensors.size(&convolution, 0)?);
            let here = tensors.has(&format!("{transformer}.norm.weight"));
            attends.push(here);
            transformers.push(transformer_blocks(if here { &transformer } else { middle }));
        }
        let context = format!("{middle}.transformer_blocks.0.attn2.to_k.weight");
        Ok(Self {
            layers,
            channels,
            attends,
            transformers,
            use_linear_projection: tensors.rank(&format!("{middle}.proj_in.weight")) == Some(2),
            cross_attention_dim: tensors.size(&context, 1)?,
        })
    }

    pub(crate) fn block_types(&self) -> Vec<String> {
        let name = |attends: &bool| if *attends { "CrossAttnDownBlock2D" } else { "DownBlock2D" }.to_owned();
        self.attends.iter().map(name).collect()
    }

    pub(crate) fn heads(&self, tensors: &PrefixedTensors, what: &str) -> Result<PerBlock<usize>> {
        // stable-diffusion.cpp writes the linear projections of Stable Diffusion 2 as convolutions.
        if !self.use_linear_projection && self.cross_attention_dim != SD2_CROSS_ATTENTION_DIM {
            return Ok(PerBlock::Same(SD1_HEADS));
        }
        let heads = |width: &usize| tensors.heads(what, *width, SD2_HEAD_CHANNELS);
        Ok(PerBlock::Each(self.channels.iter().map(heads).collect::<Result<_>>()?))
    }

    pub(crate) fn transformer_layers(&self) -> PerBlock<usize> {
        match self.transformers.as_slice() {
            [first, rest @ ..] if rest.iter().all(|count| count == first) => PerBlock::Same(*first),
            _ => PerBlock::Each(self.transformers.clone()),
        }
    }
}
