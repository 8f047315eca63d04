//! Infers the configuration of a ControlNet from the shapes of its tensors.

use model_files::checkpoint::Checkpoint;

use super::ControlNetConfig;
use super::naming::Naming;
use crate::Result;
use crate::model_parts::{DownPath, PrefixedTensors};

/// The `config.json` of a ControlNet in a single file, in either naming.
pub(super) fn inferred_config(
    checkpoint: &Checkpoint,
    prefix: &'static str,
    naming: Naming,
) -> Result<ControlNetConfig> {
    let tensors = PrefixedTensors { checkpoint, prefix };
    let (down, conv_in, embedding) = match naming {
        // Every fourth entry is a convolution that changes the channels; the others keep them, or are activations.
        Naming::LatentDiffusion => (
            DownPath::in_latent_diffusion(&tensors)?,
            "input_blocks.0.0.weight",
            tensors.sizes((0..).step_by(4).map(|layer| format!("input_hint_block.{layer}.weight")))?,
        ),
        Naming::Diffusers => {
            let halving = |block| format!("controlnet_cond_embedding.blocks.{block}.weight");
            let first = "controlnet_cond_embedding.conv_in.weight".to_owned();
            let names = std::iter::once(first).chain((1..).step_by(2).map(halving));
            (DownPath::in_diffusers(&tensors)?, "conv_in.weight", tensors.sizes(names)?)
        }
    };
    Ok(ControlNetConfig {
        in_channels: tensors.size(conv_in, 1)?,
        conditioning_embedding_out_channels: embedding,
        down_block_types: down.block_types(),
        layers_per_block: down.layers,
        cross_attention_dim: down.cross_attention_dim,
        transformer_layers_per_block: down.transformer_layers(),
        attention_head_dim: down.heads(&tensors, "the ControlNet")?,
        use_linear_projection: down.use_linear_projection,
        block_out_channels: down.channels,
        ..Default::default()
    })
}
