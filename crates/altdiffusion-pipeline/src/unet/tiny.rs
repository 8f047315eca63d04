//! Builds a small UNet for tests.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};

use super::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::{PerBlock, Result};

/// Width of its prompts.
pub(crate) const WIDTH: usize = 12;

/// Two levels, with random weights.
pub(crate) fn tiny_unet() -> Result<UNet2DConditionModel> {
    let config = UNet2DConditionConfig {
        down_block_types: vec!["CrossAttnDownBlock2D".to_owned(), "DownBlock2D".to_owned()],
        up_block_types: vec!["UpBlock2D".to_owned(), "CrossAttnUpBlock2D".to_owned()],
        block_out_channels: vec![8, 16],
        layers_per_block: PerBlock::Same(1),
        norm_num_groups: 4,
        cross_attention_dim: PerBlock::Same(WIDTH),
        attention_head_dim: PerBlock::Same(2),
        ..UNet2DConditionConfig::default()
    };
    let variables = VarMap::new();
    UNet2DConditionModel::new(&config, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    // Not as variables, so that the layout is that of a checkpoint.
    let weights = match variables.data().lock() {
        Ok(weights) => {
            weights.iter().map(|(name, weight)| (name.clone(), weight.as_detached_tensor())).collect()
        }
        Err(_) => Default::default(),
    };
    UNet2DConditionModel::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))
}
