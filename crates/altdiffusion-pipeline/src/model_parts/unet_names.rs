//! Translates the names of the UNet's weights between diffusers and latent diffusion (`openaimodel.py` of
//! CompVis/stable-diffusion), like diffusers' `convert_ldm_unet_checkpoint`.
//!
//! Latent diffusion numbers all blocks of the downsampling path in one list, `input_blocks`, and those of the
//! upsampling path in another, `output_blocks`; diffusers has a list of levels, each with lists of layers.

use super::names::{index, renamed, reversed};
use crate::unet::UNet2DConditionConfig;
use crate::{Error, PerBlock, Result};

/// The prefix of the UNet's weights in a single file.
pub(crate) const PREFIX: &str = "model.diffusion_model.";

/// The layers outside the blocks, in diffusers and in latent diffusion.
const LAYERS: [(&str, &str); 5] = [
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
];

/// The layers of a residual block.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The parts of the names of layers that some programs store as 1 × 1 convolutions: those that are linear in every UNet,
/// and those that are in some.
const IN_TRANSFORMERS: &str = ".transformer_blocks.";
const AROUND_TRANSFORMERS: [&str; 2] = [".proj_in.weight", ".proj_out.weight"];

/// A weight's shape in diffusers, where `use_linear_projection` of the configuration says which layers are linear.
pub(super) fn shape_in_diffusers(name: &str, shape: &[usize], use_linear_projection: bool) -> Vec<usize> {
    let is_linear = name.contains(IN_TRANSFORMERS)
        || (use_linear_projection && AROUND_TRANSFORMERS.iter().any(|layer| name.ends_with(layer)));
    match shape {
        [output, input, 1, 1] if is_linear => vec![*output, *input],
        shape => shape.to_vec(),
    }
}

/// The mapping for UNets of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UNetNames {
    /// Residual blocks per level of the downsampling path.
    pub layers: usize,
    /// Whether each level of the upsampling path attends, lowest resolution first.
    pub up_attends: Vec<bool>,
}

impl UNetNames {
    /// # Errors
    /// If levels have different numbers of layers, which this naming cannot express.
    pub(crate) fn new(config: &UNet2DConditionConfig) -> Result<Self> {
        let layers = match &config.layers_per_block {
            PerBlock::Same(layers) => *layers,
            PerBlock::Each(layers) => match layers.as_slice() {
                [first, rest @ ..] if rest.iter().all(|layers| layers == first) => *first,
                found => {
                    return Err(Error::Config {
                        model: "UNet2DConditionModel",
                        field: "layers_per_block",
                        expected: "the same for all blocks, in a single file".to_owned(),
                        found: format!("{found:?}"),
                    });
                }
            },
        };
        let up_attends = config.up_block_types.iter().map(|kind| kind.starts_with("CrossAttn")).collect();
        Ok(Self { layers, up_attends })
    }

    /// Maps a name from diffusers to latent diffusion, both without prefix.
    pub(crate) fn to_ldm(&self, name: &str) -> Option<String> {
        let segments: Vec<&str> = name.split('.').collect();
        match segments.as_slice() {
            ["down_blocks", level, kind, layer, rest @ ..] => {
                let (level, layer) = (self.level(level)?, index(layer)?);
                let first = 1 + level * (self.layers + 1);
                match (*kind, rest) {
                    ("resnets", rest) if layer < self.layers => {
                        Some(format!("input_blocks.{}.0.{}", first + layer, resnet_to_ldm(rest)?))
                    }
                    ("attentions", rest) if layer < self.layers => {
                        Some(format!("input_blocks.{}.1.{}", first + layer, rest.join(".")))
                    }
                    ("downsamplers", ["conv", kind]) if layer == 0 && self.is_followed(level) => {
                        Some(format!("input_blocks.{}.0.op.{kind}", first + self.layers))
                    }
                    _ => None,
                }
            }
            ["mid_block", "resnets", layer @ ("0" | "1"), rest @ ..] => {
                let place = if *layer == "0" { 0 } else { 2 };
                Some(format!("middle_block.{place}.{}", resnet_to_ldm(rest)?))
            }
            ["mid_block", "attentions", "0", rest @ ..] => Some(format!("middle_block.1.{}", rest.join("."))),
            ["up_blocks", level, kind, layer, rest @ ..] => {
                let (level, layer) = (self.level(level)?, index(layer)?);
                let first = level * (self.layers + 1);
                match (*kind, rest) {
                    ("resnets", rest) if layer <= self.layers => {
                        Some(format!("output_blocks.{}.0.{}", first + layer, resnet_to_ldm(rest)?))
                    }
                    ("attentions", rest) if layer <= self.layers && self.attends(level) => {
                        Some(format!("output_blocks.{}.1.{}", first + layer, rest.join(".")))
                    }
                    ("upsamplers", ["conv", kind]) if layer == 0 && self.is_followed(level) => {
                        let place = self.upsampler_place(level);
                        Some(format!("output_blocks.{}.{place}.conv.{kind}", first + self.layers))
                    }
                    _ => None,
                }
            }
            _ => renamed(name, LAYERS.into_iter()),
        }
    }

    /// Maps a name from latent diffusion to diffusers, both without prefix.
    pub(crate) fn to_diffusers(&self, name: &str) -> Option<String> {
        let segments: Vec<&str> = name.split('.').collect();
        match segments.as_slice() {
            ["input_blocks", "0", ..] => renamed(name, reversed(&LAYERS)),
            ["input_blocks", block, place, rest @ ..] => {
                let block = index(block)?.checked_sub(1)?;
                let (level, layer) = self.level_and_layer(block)?;
                match (*place, rest) {
                    ("0", ["op", kind]) if layer == self.layers && self.is_followed(level) => {
                        Some(format!("down_blocks.{level}.downsamplers.0.conv.{kind}"))
                    }
                    ("0", rest) if layer < self.layers => {
                        Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet_to_diffusers(rest)?))
                    }
                    ("1", rest) if layer < self.layers => {
                        Some(format!("down_blocks.{level}.attentions.{layer}.{}", rest.join(".")))
                    }
                    _ => None,
                }
            }
            ["middle_block", place @ ("0" | "2"), rest @ ..] => {
                let layer = if *place == "0" { 0 } else { 1 };
                Some(format!("mid_block.resnets.{layer}.{}", resnet_to_diffusers(rest)?))
            }
            ["middle_block", "1", rest @ ..] => Some(format!("mid_block.attentions.0.{}", rest.join("."))),
            ["output_blocks", block, place, rest @ ..] => {
                let (level, layer) = self.level_and_layer(index(block)?)?;
                let place = index(place)?;
                match (place, rest) {
                    (0, rest) => {
                        Some(format!("up_blocks.{level}.resnets.{layer}.{}", resnet_to_diffusers(rest)?))
                    }
                    (place, ["conv", kind])
                        if place == self.upsampler_place(level)
                            && layer == self.layers
                            && self.is_followed(level) =>
                    {
                        Some(format!("up_blocks.{level}.upsamplers.0.conv.{kind}"))
                    }
                    (1, rest) if self.attends(level) => {
                        Some(format!("up_blocks.{level}.attentions.{layer}.{}", rest.join(".")))
                    }
                    _ => None,
                }
            }
            _ => renamed(name, reversed(&LAYERS)),
        }
    }

    fn level(&self, segment: &str) -> Option<usize> {
        index(segment).filter(|level| *level < self.up_attends.len())
    }

    fn level_and_layer(&self, block: usize) -> Option<(usize, usize)> {
        let (level, layer) = (block / (self.layers + 1), block % (self.layers + 1));
        (level < self.up_attends.len()).then_some((level, layer))
    }

    /// Whether another level follows, so that a resampler stands in between.
    fn is_followed(&self, level: usize) -> bool {
        level + 1 < self.up_attends.len()
    }

    fn attends(&self, up_level: usize) -> bool {
        self.up_attends.get(up_level).copied().unwrap_or(false)
    }

    /// The index of the upsampler, after the residual block and the transformer if there is one.
    fn upsampler_place(&self, up_level: usize) -> usize {
        if self.attends(up_level) { 2 } else { 1 }
    }
}

fn resnet_to_ldm(rest: &[&str]) -> Option<String> {
    renamed(&rest.join("."), RESNET.into_iter())
}

fn resnet_to_diffusers(rest: &[&str]) -> Option<String> {
    renamed(&rest.join("."), reversed(&RESNET))
}
