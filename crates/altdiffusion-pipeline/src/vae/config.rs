//! Reads `vae/config.json`.

use model_files::config::Accepted::Text;
use model_files::config::{ConfigFile, FieldTable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Result;
use crate::config::ConfigCheck;
use crate::layers::resnet::ResnetConfig;

/// The configuration of an [`AutoencoderKl`](super::AutoencoderKl), with diffusers' names and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlConfig {
    /// Channels of the images that are encoded.
    pub in_channels: usize,
    /// Channels of the decoded images.
    pub out_channels: usize,
    /// `DownEncoderBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D` for each level.
    pub up_block_types: Vec<String>,
    /// Channels of each level, highest resolution first. The resolution halves from each level to the next.
    pub block_out_channels: Vec<usize>,
    /// Channels of each level of the decoder, where they differ from the encoder's; not in diffusers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_block_out_channels: Option<Vec<usize>>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// The factor of latents before diffusion.
    pub scaling_factor: f64,
    /// Whether a 1 × 1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1 × 1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle block has self-attention.
    pub mid_block_add_attention: bool,
    /// Fields that change nothing here, and those of which only one value is supported.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ConfigFile for AutoencoderKlConfig {
    const FIELDS: FieldTable = FIELDS;
}

const FIELDS: FieldTable = FieldTable {
    used: &[
        "block_out_channels",
        "decoder_block_out_channels",
        "down_block_types",
        "in_channels",
        "latent_channels",
        "layers_per_block",
        "mid_block_add_attention",
        "norm_num_groups",
        "out_channels",
        "scaling_factor",
        "up_block_types",
        "use_post_quant_conv",
        "use_quant_conv",
    ],
    harmless: &[
        ("images of any size can be decoded", &["sample_size"]),
        ("is the caller's choice of a type", &["force_upcast"]),
    ],
    fixed: &[
        ("act_fn", &[Text("silu"), Text("swish")]),
        ("latents_mean", &[]),
        ("latents_std", &[]),
        ("shift_factor", &[]),
    ],
    nested: &[],
};

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DOWN_BLOCK.to_string()],
            up_block_types: vec![UP_BLOCK.to_string()],
            block_out_channels: vec![64],
            decoder_block_out_channels: None,
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            other: Map::new(),
        }
    }
}

/// Added to the variance in the VAE's group norms.
pub(super) const EPS: f64 = 1e-6;

const DOWN_BLOCK: &str = "DownEncoderBlock2D";
const UP_BLOCK: &str = "UpDecoderBlock2D";

impl AutoencoderKlConfig {
    /// Pixels per latent along each side: 2 to the number of downsamplers.
    pub fn downscale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Channels of each level of the decoder, highest resolution first.
    pub(super) fn decoder_channels(&self) -> &[usize] {
        self.decoder_block_out_channels.as_ref().unwrap_or(&self.block_out_channels)
    }

    /// The configuration of a residual block: no time embedding, no rescaling.
    pub(super) fn resnet(&self, in_channels: usize, out_channels: usize) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels,
            time_embedding_dim: None,
            groups: self.norm_num_groups,
            eps: EPS,
            output_scale_factor: 1.0,
        }
    }

    /// Checks that this crate supports the model.
    pub(super) fn check(&self) -> Result<()> {
        let check = ConfigCheck { model: "AutoencoderKL" };
        check.size("in_channels", self.in_channels)?;
        check.size("out_channels", self.out_channels)?;
        check.layers("layers_per_block", self.layers_per_block)?;
        check.size("latent_channels", self.latent_channels)?;
        check.size("norm_num_groups", self.norm_num_groups)?;
        check.levels("block_out_channels", &self.block_out_channels, self.norm_num_groups)?;
        let levels = self.block_out_channels.len();
        if let Some(channels) = &self.decoder_block_out_channels {
            check.levels("decoder_block_out_channels", channels, self.norm_num_groups)?;
            if channels.len() != levels {
                let expected = format!("{levels} levels, as in block_out_channels");
                return Err(check.error("decoder_block_out_channels", expected, format!("{channels:?}")));
            }
        }
        check.block_types("down_block_types", &self.down_block_types, levels, &[DOWN_BLOCK])?;
        check.block_types("up_block_types", &self.up_block_types, levels, &[UP_BLOCK])?;
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return Err(check.error("scaling_factor", "a positive number", self.scaling_factor.to_string()));
        }
        check.fixed(&self.other, &FIELDS)
    }
}
