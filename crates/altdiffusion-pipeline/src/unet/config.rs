//! `unet/config.json`, and what it means for each block.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use model_files::config::Accepted::{Is, Number, Text};
use model_files::config::{ConfigFile, FieldTable};

use super::transformer::TransformerConfig;
use crate::Result;
use crate::config::{ConfigCheck, PerBlock};
use crate::layers::resnet::ResnetConfig;

/// The configuration of a [`UNet2DConditionModel`](super::UNet2DConditionModel), with diffusers' names and
/// defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    /// Height and width of the latents that the model was trained on, or one number for both.
    pub sample_size: Option<PerBlock<usize>>,
    /// Channels of the noisy latents; 9 in models for inpainting.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether the input is first mapped from \[0, 1\] to \[−1, 1\].
    pub center_input_sample: bool,
    /// Whether the timestep's cosines come before its sines.
    pub flip_sin_to_cos: bool,
    /// What is taken off the number of frequencies where they are spaced.
    pub freq_shift: f64,
    /// `DownBlock2D` or `CrossAttnDownBlock2D` for each level, highest resolution first.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D` for each level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// Channels of each level, highest resolution first. Between two levels the resolution halves.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level on the way down; on the way up there is one more.
    pub layers_per_block: PerBlock<usize>,
    /// Zeros around the input of each halving; 0 means one row and column at the bottom and on the right.
    pub downsample_padding: usize,
    /// What the sums in the middle's residual blocks are divided by.
    pub mid_block_scale_factor: f64,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// What the group norms add to the variance.
    pub norm_eps: f64,
    /// Width of the prompt's hidden states.
    pub cross_attention_dim: PerBlock<usize>,
    /// Transformer blocks after each residual block.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// The number of attention heads, despite its name, which diffusers keeps for the sake of published
    /// models.
    pub attention_head_dim: PerBlock<usize>,
    /// Whether transformers are entered and left by linear layers, not by 1×1 convolutions.
    pub use_linear_projection: bool,
    /// Width of the time embedding; four times the first level's channels if not given.
    pub time_embedding_dim: Option<usize>,
    /// Kernel of the first convolution.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution.
    pub conv_out_kernel: usize,
    /// The fields that change nothing here, and those whose other values are not supported.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ConfigFile for UNet2DConditionConfig {
    const FIELDS: FieldTable = FIELDS;
}

const FIELDS: FieldTable = FieldTable {
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

const DOWN: &str = "DownBlock2D";
pub(crate) const CROSS_ATTENTION_DOWN: &str = "CrossAttnDownBlock2D";
pub(crate) const UP: &str = "UpBlock2D";
pub(crate) const CROSS_ATTENTION_UP: &str = "CrossAttnUpBlock2D";

/// How many times wider than the first level the time embedding is.
const TIME_EMBEDDING_FACTOR: usize = 4;

/// A checked configuration: the settings of all blocks, and the levels at the two ends.
pub(crate) struct UNetPlan {
    pub blocks: BlockSettings,
    pub first: Level,
    pub last: Level,
}

/// What all blocks of a UNet share, and the levels they stand on.
pub(crate) struct BlockSettings {
    /// Highest resolution first.
    pub levels: Vec<Level>,
    pub time_embedding_dim: usize,
    pub groups: usize,
    pub eps: f64,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    use_linear_projection: bool,
}

/// The cross-attentions of a UNet: the channels of each.
#[derive(Debug, Default)]
pub(crate) struct CrossAttentions {
    pub down: Vec<usize>,
    pub mid: Vec<usize>,
    pub up: Vec<usize>,
    /// Widths of the prompts that they look at.
    pub widths: Vec<usize>,
}

impl CrossAttentions {
    /// In the order in which the UNet reaches them.
    pub fn in_order(&self) -> Vec<usize> {
        [&self.down[..], &self.mid, &self.up].concat()
    }
}

/// The blocks of one resolution, down and up.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub channels: usize,
    /// Channels of the next higher resolution; its own on the highest.
    pub higher_channels: usize,
    /// Channels of the next lower resolution; its own on the lowest.
    pub lower_channels: usize,
    /// Residual blocks on the way down.
    pub layers: usize,
    pub down_attends: bool,
    pub up_attends: bool,
    pub is_highest: bool,
    pub is_lowest: bool,
    heads: usize,
    cross_attention_dim: usize,
    transformer_layers: usize,
}

impl BlockSettings {
    /// A residual block of the UNet.
    pub fn resnet(&self, in_channels: usize, out_channels: usize) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels,
            time_embedding_dim: Some(self.time_embedding_dim),
            groups: self.groups,
            eps: self.eps,
            output_scale_factor: 1.0,
        }
    }

    /// A transformer of a level.
    pub fn transformer(&self, level: &Level) -> TransformerConfig {
        TransformerConfig {
            channels: level.channels,
            heads: level.heads,
            layers: level.transformer_layers,
            cross_attention_dim: level.cross_attention_dim,
            groups: self.groups,
            use_linear_projection: self.use_linear_projection,
        }
    }
}

impl UNet2DConditionConfig {
    /// Checks that this crate can build the model, and works out each level. `model` is what errors call it: other models
    /// have the same blocks.
    pub(crate) fn plan(&self, model: &'static str) -> Result<UNetPlan> {
        let check = ConfigCheck { model };
        self.check_fields(&check)?;
        let levels = self.levels(&check)?;
        let (Some(first), Some(last)) = (levels.first().cloned(), levels.last().cloned()) else {
            return Err(check.error("block_out_channels", "at least one level", "[]"));
        };
        let time_embedding_dim = self.time_embedding_dim.unwrap_or(TIME_EMBEDDING_FACTOR * first.channels);
        check.size("time_embedding_dim", time_embedding_dim)?;
        let blocks = BlockSettings {
            levels,
            time_embedding_dim,
            groups: self.norm_num_groups,
            eps: self.norm_eps,
            downsample_padding: self.downsample_padding,
            mid_block_scale_factor: self.mid_block_scale_factor,
            use_linear_projection: self.use_linear_projection,
        };
        Ok(UNetPlan { blocks, first, last })
    }

    /// The cross-attentions of the model.
    pub(crate) fn cross_attentions(&self) -> Result<CrossAttentions> {
        let UNetPlan { blocks, last, .. } = self.plan("UNet2DConditionModel")?;
        let mut attentions =
            CrossAttentions { mid: vec![last.channels; last.transformer_layers], ..Default::default() };
        attentions.widths.push(last.cross_attention_dim);
        for level in blocks.levels.iter().filter(|level| level.down_attends) {
            attentions.down.extend(vec![level.channels; level.layers * level.transformer_layers]);
            attentions.widths.push(level.cross_attention_dim);
        }
        for level in blocks.levels.iter().rev().filter(|level| level.up_attends) {
            attentions.up.extend(vec![level.channels; (level.layers + 1) * level.transformer_layers]);
            attentions.widths.push(level.cross_attention_dim);
        }
        Ok(attentions)
    }

    fn check_fields(&self, check: &ConfigCheck) -> Result<()> {
        check.size("in_channels", self.in_channels)?;
        check.size("out_channels", self.out_channels)?;
        check.size("norm_num_groups", self.norm_num_groups)?;
        check.levels("block_out_channels", &self.block_out_channels, self.norm_num_groups)?;
        let levels = self.block_out_channels.len();
        let (down, up) = ([DOWN, CROSS_ATTENTION_DOWN], [UP, CROSS_ATTENTION_UP]);
        check.block_types("down_block_types", &self.down_block_types, levels, &down)?;
        check.block_types("up_block_types", &self.up_block_types, levels, &up)?;
        if self.downsample_padding > 1 {
            return Err(check.error("downsample_padding", "0 or 1", self.downsample_padding.to_string()));
        }
        let kernels = [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)];
        for (field, kernel) in kernels {
            check.size(field, kernel)?;
            if kernel.is_multiple_of(2) {
                return Err(check.error(field, "an odd number", kernel.to_string()));
            }
        }
        let numbers = [("norm_eps", self.norm_eps), ("mid_block_scale_factor", self.mid_block_scale_factor)];
        for (field, number) in numbers {
            if !(number.is_finite() && number > 0.0) {
                return Err(check.error(field, "a positive number", number.to_string()));
            }
        }
        // Half the first level's channels are frequencies; a shift that leaves none to space them over
        // divides by zero.
        let frequencies = self.block_out_channels.first().map_or(0, |channels| channels / 2);
        if !(self.freq_shift.is_finite() && self.freq_shift < frequencies as f64) {
            let expected = format!("a number below {frequencies}, half of the first of `block_out_channels`");
            return Err(check.error("freq_shift", expected, self.freq_shift.to_string()));
        }
        check.fixed(&self.other, &FIELDS)
    }

    /// Highest resolution first. The lists of the configuration are in that order too, but for
    /// `up_block_types`.
    fn levels(&self, check: &ConfigCheck) -> Result<Vec<Level>> {
        let channels = &self.block_out_channels;
        let expand = |field, values: &PerBlock<usize>| -> Result<Vec<usize>> {
            let values = values.expand(check, field, channels.len())?;
            values.iter().try_for_each(|&value| check.size(field, value))?;
            Ok(values)
        };
        let expand_layers = |field, values: &PerBlock<usize>| -> Result<Vec<usize>> {
            let values = values.expand(check, field, channels.len())?;
            values.iter().try_for_each(|&value| check.layers(field, value))?;
            Ok(values)
        };
        let layers = expand_layers("layers_per_block", &self.layers_per_block)?;
        let heads = expand("attention_head_dim", &self.attention_head_dim)?;
        let cross_attention_dim = expand("cross_attention_dim", &self.cross_attention_dim)?;
        let transformer_layers =
            expand_layers("transformer_layers_per_block", &self.transformer_layers_per_block)?;

        let mut levels = Vec::new();
        let per_level =
            channels.iter().zip(layers).zip(heads).zip(cross_attention_dim).zip(transformer_layers);
        let types = self.down_block_types.iter().zip(self.up_block_types.iter().rev());
        for (i, (values, (down, up))) in per_level.zip(types).enumerate() {
            let ((((&channels_here, layers), heads), cross_attention_dim), transformer_layers) = values;
            let is_lowest = i + 1 == channels.len();
            let level = Level {
                channels: channels_here,
                higher_channels: i
                    .checked_sub(1)
                    .and_then(|i| channels.get(i))
                    .copied()
                    .unwrap_or(channels_here),
                lower_channels: channels.get(i + 1).copied().unwrap_or(channels_here),
                layers,
                down_attends: down == CROSS_ATTENTION_DOWN,
                up_attends: up == CROSS_ATTENTION_UP,
                is_highest: i == 0,
                is_lowest,
                heads,
                cross_attention_dim,
                transformer_layers,
            };
            level.check_heads(check)?;
            levels.push(level);
        }
        Ok(levels)
    }
}

impl Level {
    /// Where the level attends, its heads share its channels equally.
    fn check_heads(&self, check: &ConfigCheck) -> Result<()> {
        let attends = self.down_attends || self.up_attends || self.is_lowest;
        if attends && !self.channels.is_multiple_of(self.heads) {
            let expected = format!("a number of heads that divides the level's {} channels", self.channels);
            return Err(check.error("attention_head_dim", expected, self.heads.to_string()));
        }
        Ok(())
    }
}
