//! Reads `unet/config.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use model_files::config::Accepted::{Is, Number, Text};
use model_files::config::{ConfigFile, FieldTable};

use crate::config::PerBlock;

/// The configuration of a [`UNet2DConditionModel`](super::UNet2DConditionModel), with diffusers' names and
/// defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    /// Height and width of the latents used in training, or one number for both.
    pub sample_size: Option<PerBlock<usize>>,
    /// Channels of the noisy latents; 9 for inpainting.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether to map the input from \[0, 1\] to \[−1, 1\] first.
    pub center_input_sample: bool,
    /// Whether the timestep's cosines come before its sines.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the denominator of their spacing.
    pub freq_shift: f64,
    /// `DownBlock2D` or `CrossAttnDownBlock2D` for each level, highest resolution first.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D` for each level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// Channels of each level, highest resolution first. The resolution halves from each level to the next.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the downsampling path; the upsampling path has one more.
    pub layers_per_block: PerBlock<usize>,
    /// Zero padding of each downsampling convolution; 0 means one row and column at the bottom and on the right.
    pub downsample_padding: usize,
    /// The divisor of the residual sums in the middle block.
    pub mid_block_scale_factor: f64,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Added to the variance in every group norm.
    pub norm_eps: f64,
    /// Width of the prompt's hidden states.
    pub cross_attention_dim: PerBlock<usize>,
    /// Transformer blocks per residual block.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// The number of attention heads. diffusers keeps the misleading name for published models.
    pub attention_head_dim: PerBlock<usize>,
    /// Whether transformers project with linear layers instead of 1 × 1 convolutions.
    pub use_linear_projection: bool,
    /// Width of the time embedding; by default four times the channels of the first level.
    pub time_embedding_dim: Option<usize>,
    /// Kernel of the first convolution.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution.
    pub conv_out_kernel: usize,
    /// Fields that change nothing here, and those of which only one value is supported.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ConfigFile for UNet2DConditionConfig {
    const FIELDS: FieldTable = FIELDS;
}

/// The fields of diffusers' class.
pub(super) const FIELDS: FieldTable = FieldTable {
    used: &[
        "attention_head_dim",
        "block_out_channels",
        "center_input_sample",
        "conv_in_kernel",
        "conv_out_kernel",
        "cross_attention_dim",
        "down_block_types",
        "downsample_padding",
        "flip_sin_to_cos",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "mid_block_scale_factor",
        "norm_eps",
        "norm_num_groups",
        "out_channels",
        "sample_size",
        "time_embedding_dim",
        "transformer_layers_per_block",
        "up_block_types",
        "use_linear_projection",
    ],
    harmless: &[
        ("is about training", &["dropout"]),
        ("attention scores are computed in f32", &["upcast_attention"]),
        (
            "belongs to an embedding that is refused",
            &[
                "addition_embed_type_num_heads",
                "addition_time_embed_dim",
                "class_embeddings_concat",
                "projection_class_embeddings_input_dim",
            ],
        ),
    ],
    fixed: &[
        ("act_fn", &[Text("silu"), Text("swish")]),
        ("addition_embed_type", &[]),
        ("attention_type", &[Text("default")]),
        ("class_embed_type", &[]),
        ("cross_attention_norm", &[]),
        ("dual_cross_attention", &[Is(false)]),
        ("encoder_hid_dim", &[]),
        ("encoder_hid_dim_type", &[]),
        ("mid_block_only_cross_attention", &[Is(false)]),
        ("mid_block_type", &[Text("UNetMidBlock2DCrossAttn")]),
        ("num_attention_heads", &[]),
        ("num_class_embeds", &[]),
        ("only_cross_attention", &[Is(false)]),
        ("resnet_out_scale_factor", &[Number(1.0)]),
        ("resnet_skip_time_act", &[Is(false)]),
        ("resnet_time_scale_shift", &[Text("default")]),
        ("reverse_transformer_layers_per_block", &[]),
        ("time_cond_proj_dim", &[]),
        ("time_embedding_act_fn", &[]),
        ("time_embedding_type", &[Text("positional")]),
        ("timestep_post_act", &[]),
    ],
    nested: &[],
};

pub(super) const DOWN: &str = "DownBlock2D";
pub(crate) const CROSS_ATTENTION_DOWN: &str = "CrossAttnDownBlock2D";
pub(crate) const UP: &str = "UpBlock2D";
pub(crate) const CROSS_ATTENTION_UP: &str = "CrossAttnUpBlock2D";

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(str::to_string).to_vec();
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: names([CROSS_ATTENTION_DOWN, CROSS_ATTENTION_DOWN, CROSS_ATTENTION_DOWN, DOWN]),
            up_block_types: names([UP, CROSS_ATTENTION_UP, CROSS_ATTENTION_UP, CROSS_ATTENTION_UP]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::Same(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::Same(1280),
            transformer_layers_per_block: PerBlock::Same(1),
            attention_head_dim: PerBlock::Same(8),
            use_linear_projection: false,
            time_embedding_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            other: Map::new(),
        }
    }
}
