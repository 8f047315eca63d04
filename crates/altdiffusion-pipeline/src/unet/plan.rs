//! Plans the blocks of a UNet from its configuration.

use super::config::{CROSS_ATTENTION_DOWN, CROSS_ATTENTION_UP, DOWN, FIELDS, UNet2DConditionConfig, UP};
use super::transformer::TransformerConfig;
use crate::Result;
use crate::config::{ConfigCheck, PerBlock};
use crate::layers::resnet::ResnetConfig;

/// The width of the time embedding, as a multiple of the first level's channels.
const TIME_EMBEDDING_FACTOR: usize = 4;

/// A checked configuration: block settings, and the levels at both ends.
pub(crate) struct UNetPlan {
    pub blocks: BlockSettings,
    pub first: Level,
    pub last: Level,
}

/// What all blocks of a UNet share, and its levels.
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

/// The channels of a UNet's cross-attentions.
#[derive(Debug, Default)]
pub(crate) struct CrossAttentions {
    pub down: Vec<usize>,
    pub mid: Vec<usize>,
    pub up: Vec<usize>,
    /// The widths of the hidden states they attend to.
    pub widths: Vec<usize>,
}

impl CrossAttentions {
    /// In the order in which the UNet runs them.
    pub(crate) fn in_order(&self) -> Vec<usize> {
        [&self.down[..], &self.mid, &self.up].concat()
    }
}

/// The blocks at one resolution, down and up.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub channels: usize,
    /// Channels of the next higher resolution, or its own if there is none.
    pub higher_channels: usize,
    /// Channels of the next lower resolution, or its own if there is none.
    pub lower_channels: usize,
    /// Residual blocks of the downsampling path.
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
    /// The configuration of a residual block.
    pub(crate) fn resnet(&self, in_channels: usize, out_channels: usize) -> ResnetConfig {
        ResnetConfig {
            in_channels,
            out_channels,
            time_embedding_dim: Some(self.time_embedding_dim),
            groups: self.groups,
            eps: self.eps,
            output_scale_factor: 1.0,
        }
    }

    /// The configuration of a level's transformer.
    pub(crate) fn transformer(&self, level: &Level) -> TransformerConfig {
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
    /// Checks that this crate supports the model, and plans each level. `model` is its name in errors, because other
    /// models share the blocks.
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
        // Half of the first level's channels are frequencies; a shift that leaves none would divide by zero.
        let frequencies = self.block_out_channels.first().map_or(0, |channels| channels / 2);
        if !(self.freq_shift.is_finite() && self.freq_shift < frequencies as f64) {
            let expected = format!("a number below {frequencies}, half of the first of `block_out_channels`");
            return Err(check.error("freq_shift", expected, self.freq_shift.to_string()));
        }
        check.fixed(&self.other, &FIELDS)
    }

    /// Highest resolution first, like the configuration's lists except `up_block_types`.
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
    /// Checks that heads divide the channels equally where the level attends.
    fn check_heads(&self, check: &ConfigCheck) -> Result<()> {
        let attends = self.down_attends || self.up_attends || self.is_lowest;
        if attends && !self.channels.is_multiple_of(self.heads) {
            let expected = format!("a number of heads that divides the level's {} channels", self.channels);
            return Err(check.error("attention_head_dim", expected, self.heads.to_string()));
        }
        Ok(())
    }
}
