//! Translates the names of the autoencoder's weights between diffusers and latent diffusion (`model.py` of
//! CompVis/latent-diffusion), like diffusers' `convert_ldm_vae_checkpoint`.
//!
//! Latent diffusion numbers the decoder's levels from the highest resolution, like the encoder's; diffusers numbers
//! them from the lowest. Its attention has 1 × 1 convolutions where diffusers has linear layers.

use super::names::{index, renamed, reversed};
use crate::Result;
use crate::config::ConfigCheck;
use crate::vae::AutoencoderKlConfig;

/// The prefix of the autoencoder's weights in a single file.
pub(crate) const PREFIX: &str = "first_stage_model.";

/// The layers outside the levels, in diffusers and in latent diffusion.
const LAYERS: [(&str, &str); 8] = [
    ("quant_conv", "quant_conv"),
    ("post_quant_conv", "post_quant_conv"),
    ("encoder.conv_in", "encoder.conv_in"),
    ("encoder.conv_norm_out", "encoder.norm_out"),
    ("encoder.conv_out", "encoder.conv_out"),
    ("decoder.conv_in", "decoder.conv_in"),
    ("decoder.conv_norm_out", "decoder.norm_out"),
    ("decoder.conv_out", "decoder.conv_out"),
];

/// The layers of the middle block, in encoder and decoder.
const MIDDLE: [(&str, &str); 3] = [
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.attentions.0", "mid.attn_1"),
    ("mid_block.resnets.1", "mid.block_2"),
];

/// The layers of a residual block.
const RESNET: [(&str, &str); 5] = [
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("conv_shortcut", "nin_shortcut"),
];

/// The attention's layers.
const ATTENTION: [(&str, &str); 5] =
    [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];

/// The attention's projections before and since diffusers 0.17.
const OLD_ATTENTION: [(&str, &str); 4] =
    [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

/// The mapping for autoencoders of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VaeNames {
    pub levels: usize,
}

impl VaeNames {
    /// # Errors
    /// If the configuration has no levels, or more than any model.
    pub(super) fn new(config: &AutoencoderKlConfig) -> Result<Self> {
        let check = ConfigCheck { model: "AutoencoderKL" };
        // Groups matter to layers alone.
        check.levels("block_out_channels", &config.block_out_channels, 1)?;
        Ok(Self { levels: config.block_out_channels.len() })
    }

    /// Maps a name from diffusers to latent diffusion, both without prefix.
    pub(super) fn to_ldm(&self, name: &str) -> Option<String> {
        let segments: Vec<&str> = name.split('.').collect();
        match segments.as_slice() {
            ["encoder", "down_blocks", level, rest @ ..] => {
                let level = self.level(level)?;
                self.level_to_ldm(&format!("encoder.down.{level}"), level, rest)
            }
            ["decoder", "up_blocks", level, rest @ ..] => {
                let level = self.opposite(self.level(level)?)?;
                self.level_to_ldm(&format!("decoder.up.{level}"), level, rest)
            }
            [half @ ("encoder" | "decoder"), "mid_block", kind, layer, rest @ ..] => {
                let block = renamed(&format!("mid_block.{kind}.{layer}"), MIDDLE.into_iter())?;
                let layers = if *kind == "attentions" { ATTENTION } else { RESNET };
                Some(format!("{half}.{block}.{}", renamed(&rest.join("."), layers.into_iter())?))
            }
            _ => renamed(name, LAYERS.into_iter()),
        }
    }

    fn level_to_ldm(&self, ldm_level: &str, level: usize, rest: &[&str]) -> Option<String> {
        match rest {
            ["resnets", layer, rest @ ..] => {
                let (layer, rest) = (index(layer)?, renamed(&rest.join("."), RESNET.into_iter())?);
                Some(format!("{ldm_level}.block.{layer}.{rest}"))
            }
            ["downsamplers", "0", "conv", kind]
                if level + 1 < self.levels && ldm_level.starts_with("encoder") =>
            {
                Some(format!("{ldm_level}.downsample.conv.{kind}"))
            }
            ["upsamplers", "0", "conv", kind] if level > 0 && ldm_level.starts_with("decoder") => {
                Some(format!("{ldm_level}.upsample.conv.{kind}"))
            }
            _ => None,
        }
    }

    /// Maps a name from latent diffusion to diffusers, both without prefix.
    pub(super) fn to_diffusers(&self, name: &str) -> Option<String> {
        let segments: Vec<&str> = name.split('.').collect();
        match segments.as_slice() {
            ["encoder", "down", level, rest @ ..] => {
                let level = self.level(level)?;
                self.level_to_diffusers(&format!("encoder.down_blocks.{level}"), level, rest)
            }
            ["decoder", "up", level, rest @ ..] => {
                let level = self.level(level)?;
                let block = self.opposite(level)?;
                self.level_to_diffusers(&format!("decoder.up_blocks.{block}"), level, rest)
            }
            [half @ ("encoder" | "decoder"), "mid", block, rest @ ..] => {
                let layers = if block.starts_with("attn") { &ATTENTION } else { &RESNET };
                let block = renamed(&format!("mid.{block}"), reversed(&MIDDLE))?;
                Some(format!("{half}.{block}.{}", renamed(&rest.join("."), reversed(layers))?))
            }
            _ => renamed(name, reversed(&LAYERS)),
        }
    }

    fn level_to_diffusers(&self, block: &str, level: usize, rest: &[&str]) -> Option<String> {
        match rest {
            ["block", layer, rest @ ..] => {
                let (layer, rest) = (index(layer)?, renamed(&rest.join("."), reversed(&RESNET))?);
                Some(format!("{block}.resnets.{layer}.{rest}"))
            }
            ["downsample", "conv", kind] if level + 1 < self.levels && block.starts_with("encoder") => {
                Some(format!("{block}.downsamplers.0.conv.{kind}"))
            }
            ["upsample", "conv", kind] if level > 0 && block.starts_with("decoder") => {
                Some(format!("{block}.upsamplers.0.conv.{kind}"))
            }
            _ => None,
        }
    }

    fn level(&self, segment: &str) -> Option<usize> {
        index(segment).filter(|level| *level < self.levels)
    }

    /// The same level, counted from the other end.
    fn opposite(&self, level: usize) -> Option<usize> {
        self.levels.checked_sub(1)?.checked_sub(level)
    }
}

/// The current diffusers name of an autoencoder's weight.
pub(crate) fn name_of_today(name: &str) -> String {
    match name.split_once(".mid_block.attentions.0.") {
        Some((half, layer)) => {
            let layer = renamed(layer, OLD_ATTENTION.into_iter()).unwrap_or_else(|| layer.to_owned());
            format!("{half}.mid_block.attentions.0.{layer}")
        }
        None => name.to_owned(),
    }
}

/// A weight's shape in latent diffusion, where the attention's projections are 1 × 1 convolutions.
pub(crate) fn shape_in_ldm(diffusers_name: &str, shape: &[usize]) -> Vec<usize> {
    match shape {
        [output, input] if is_projection(diffusers_name) => vec![*output, *input, 1, 1],
        shape => shape.to_vec(),
    }
}

/// A weight's shape in diffusers, where the attention's projections are linear layers.
pub(crate) fn shape_in_diffusers(diffusers_name: &str, shape: &[usize]) -> Vec<usize> {
    match shape {
        [output, input, 1] | [output, input, 1, 1] if is_projection(diffusers_name) => vec![*output, *input],
        shape => shape.to_vec(),
    }
}

fn is_projection(diffusers_name: &str) -> bool {
    diffusers_name.split_once(".mid_block.attentions.0.to_").is_some()
}
