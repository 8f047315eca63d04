//! Reads `config.json` of a ControlNet.

use model_files::config::Accepted::{Is, Text};
use model_files::config::{ConfigFile, FieldTable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{ConfigCheck, PerBlock};
use crate::unet::{CROSS_ATTENTION_DOWN, CROSS_ATTENTION_UP, UNet2DConditionConfig, UNetPlan, UP};
use crate::{Error, Result};

/// The name of the model in errors.
const MODEL: &str = "ControlNetModel";

/// Channels of the image that a ControlNet follows.
const COLOURS: usize = 3;

/// The configuration of a [`ControlNetModel`](super::ControlNetModel), with diffusers' names and defaults. Fields
/// that a [UNet](UNet2DConditionConfig) has too mean the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    /// Channels of the noisy latents.
    pub in_channels: usize,
    /// Channels of the image that is followed.
    pub conditioning_channels: usize,
    /// Whether the timestep's cosines come before its sines.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the denominator of their spacing.
    pub freq_shift: f64,
    /// `DownBlock2D` or `CrossAttnDownBlock2D` for each level, highest resolution first.
    pub down_block_types: Vec<String>,
    /// Channels of each level, highest resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level.
    pub layers_per_block: usize,
    /// Zero padding of each downsampling convolution; 0 means one row and column at the bottom and on the right.
    pub downsample_padding: usize,
    /// The divisor of the residual sums in the middle block.
    pub mid_block_scale_factor: f64,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Added to the variance in every group norm.
    pub norm_eps: f64,
    /// Width of the prompt's hidden states.
    pub cross_attention_dim: usize,
    /// Transformer blocks per residual block.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// The number of attention heads, despite its name.
    pub attention_head_dim: PerBlock<usize>,
    /// Whether transformers project with linear layers instead of 1 × 1 convolutions.
    pub use_linear_projection: bool,
    /// The order of the image's colours.
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Channels of the image's embedding, from full resolution down; each level halves the resolution.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// Whether the residuals are averaged over the image.
    pub global_pool_conditions: bool,
    /// Fields that change nothing here, and those of which only one value is supported.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ConfigFile for ControlNetConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &[
            "attention_head_dim",
            "block_out_channels",
            "conditioning_channels",
            "conditioning_embedding_out_channels",
            "controlnet_conditioning_channel_order",
            "cross_attention_dim",
            "down_block_types",
            "downsample_padding",
            "flip_sin_to_cos",
            "freq_shift",
            "global_pool_conditions",
            "in_channels",
            "layers_per_block",
            "mid_block_scale_factor",
            "norm_eps",
            "norm_num_groups",
            "transformer_layers_per_block",
            "use_linear_projection",
        ],
        harmless: &[
            ("attention scores are computed in f32", &["upcast_attention"]),
            ("images of any size can be followed", &["sample_size"]),
            (
                "belongs to an embedding that is refused",
                &[
                    "addition_embed_type_num_heads",
                    "addition_time_embed_dim",
                    "projection_class_embeddings_input_dim",
                ],
            ),
        ],
        fixed: &[
            ("act_fn", &[Text("silu"), Text("swish")]),
            ("addition_embed_type", &[]),
            ("class_embed_type", &[]),
            ("encoder_hid_dim", &[]),
            ("encoder_hid_dim_type", &[]),
            ("mid_block_type", &[Text("UNetMidBlock2DCrossAttn")]),
            ("num_attention_heads", &[]),
            ("num_class_embeds", &[]),
            ("only_cross_attention", &[Is(false)]),
            ("resnet_time_scale_shift", &[Text("default")]),
        ],
        nested: &[],
    };
}

/// The channel order of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        let unet = UNet2DConditionConfig::default();
        Self {
            in_channels: unet.in_channels,
            conditioning_channels: COLOURS,
            flip_sin_to_cos: unet.flip_sin_to_cos,
            freq_shift: unet.freq_shift,
            down_block_types: unet.down_block_types,
            block_out_channels: unet.block_out_channels,
            layers_per_block: 2,
            downsample_padding: unet.downsample_padding,
            mid_block_scale_factor: unet.mid_block_scale_factor,
            norm_num_groups: unet.norm_num_groups,
            norm_eps: unet.norm_eps,
            cross_attention_dim: 1280,
            transformer_layers_per_block: unet.transformer_layers_per_block,
            attention_head_dim: unet.attention_head_dim,
            use_linear_projection: unet.use_linear_projection,
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            global_pool_conditions: false,
            other: Map::new(),
        }
    }
}

impl ControlNetConfig {
    /// The image's pixels per latent, along each side.
    pub(crate) fn downscale(&self) -> usize {
        1 << self.conditioning_embedding_out_channels.len().saturating_sub(1)
    }

    /// Checks that this crate supports the model, and plans each level.
    pub(super) fn plan(&self) -> Result<UNetPlan> {
        let check = ConfigCheck { model: MODEL };
        if self.conditioning_channels != COLOURS {
            let found = self.conditioning_channels.to_string();
            return Err(check.error("conditioning_channels", COLOURS.to_string(), found));
        }
        let channels = &self.conditioning_embedding_out_channels;
        check.levels("conditioning_embedding_out_channels", channels, 1)?;
        self.half_unet().plan(MODEL)
    }

    /// Checks that the residuals fit a UNet.
    pub(crate) fn check_fits(&self, unet: &UNet2DConditionConfig) -> Result<()> {
        let differs = |field, found: String, of_unet: String| -> Error {
            let expected = format!("{of_unet}, as in the UNet that it is used with");
            ConfigCheck { model: MODEL }.error(field, expected, found)
        };
        let (channels, of_unet) = (&self.block_out_channels, &unet.block_out_channels);
        if channels != of_unet {
            return Err(differs("block_out_channels", format!("{channels:?}"), format!("{of_unet:?}")));
        }
        let is_everywhere = |values: &PerBlock<usize>, value: usize| match values {
            PerBlock::Same(other) => *other == value,
            PerBlock::Each(others) => others.iter().all(|other| *other == value),
        };
        let shown = |values: &PerBlock<usize>| match values {
            PerBlock::Same(value) => value.to_string(),
            PerBlock::Each(values) => format!("{values:?}"),
        };
        for (field, own, of_unet) in [
            ("layers_per_block", self.layers_per_block, &unet.layers_per_block),
            ("cross_attention_dim", self.cross_attention_dim, &unet.cross_attention_dim),
        ] {
            if !is_everywhere(of_unet, own) {
                return Err(differs(field, own.to_string(), shown(of_unet)));
            }
        }
        // An inpainting UNet takes more channels than it denoises.
        if self.in_channels != unet.out_channels {
            return Err(differs("in_channels", self.in_channels.to_string(), unet.out_channels.to_string()));
        }
        Ok(())
    }

    /// The UNet that this shares its downsampling path and middle with. Its upsampling path is a mirror image and is
    /// never built.
    fn half_unet(&self) -> UNet2DConditionConfig {
        let up = |down: &String| match down.as_str() {
            CROSS_ATTENTION_DOWN => CROSS_ATTENTION_UP.to_owned(),
            _ => UP.to_owned(),
        };
        UNet2DConditionConfig {
            in_channels: self.in_channels,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            down_block_types: self.down_block_types.clone(),
            up_block_types: self.down_block_types.iter().rev().map(up).collect(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: PerBlock::Same(self.layers_per_block),
            downsample_padding: self.downsample_padding,
            mid_block_scale_factor: self.mid_block_scale_factor,
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            cross_attention_dim: PerBlock::Same(self.cross_attention_dim),
            transformer_layers_per_block: self.transformer_layers_per_block.clone(),
            attention_head_dim: self.attention_head_dim.clone(),
            use_linear_projection: self.use_linear_projection,
            other: self.other.clone(),
            ..UNet2DConditionConfig::default()
        }
    }
}
