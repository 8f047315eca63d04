//! Reads a ControlNet from one file, named as in `cldm.py` of lllyasviel/ControlNet (mapped like diffusers'
//! `convert_controlnet_checkpoint`) or as in diffusers.

use model_files::checkpoint::Checkpoint;

use super::ControlNetConfig;
use super::inferred::inferred_config;
use super::naming::Naming;
use crate::model_parts::{UNetNames, index};
use crate::{Error, Result};

/// The prefix of its tensors in a file that may hold the rest of a model too.
const PREFIX: &str = "control_model.";

/// A tensor that every ControlNet has, in each naming.
const FIRST_LAYERS: [(&str, Naming); 2] = [
    ("input_hint_block.0.weight", Naming::LatentDiffusion),
    ("controlnet_cond_embedding.conv_in.weight", Naming::Diffusers),
];

/// A tensor that marks a file of differences from a model's UNet. Its value does not matter.
const DIFFERENCES: &str = "difference";

/// A tensor that marks a ControlNet-LoRA, some of whose layers are complete.
const LOW_RANK: &str = "lora_controlnet";

/// Parts of tensor names in other models that follow images, and what these are called.
const OTHER_KINDS: [(&str, &str); 6] = [
    (LOW_RANK, "ControlNet-LoRA, expected it made whole by the program that made it"),
    ("lllite_unet", "ControlLLLite of Stable Diffusion XL"),
    ("task_embedding", "ControlNet Union"),
    ("ctrl_cross_attn", "ControlNet-XS"),
    ("body.0.", "T2I-Adapter"),
    ("lora_unet_", "LoRA, expected after --lora"),
];

/// Whether the weights are differences from those of a UNet.
pub(super) fn holds_differences(checkpoint: &Checkpoint) -> bool {
    checkpoint.names().any(marks_differences)
}

/// Whether a tensor of this name marks such a file.
pub(super) fn marks_differences(name: &str) -> bool {
    name.strip_prefix(PREFIX).unwrap_or(name) == DIFFERENCES
}

/// Infers the configuration from the shapes, and maps the weights to diffusers' names.
///
/// # Errors
/// If it is not a ControlNet.
pub(super) fn controlnet_in_single_file(checkpoint: &Checkpoint) -> Result<(ControlNetConfig, Checkpoint)> {
    let places =
        FIRST_LAYERS.iter().flat_map(|&(layer, naming)| [(PREFIX, layer, naming), ("", layer, naming)]);
    let found =
        places.into_iter().find(|(prefix, layer, _)| checkpoint.contains(&format!("{prefix}{layer}")));
    let Some((prefix, _, naming)) = found.filter(|_| !checkpoint.contains(LOW_RANK)) else {
        return Err(no_controlnet(checkpoint));
    };
    let config = inferred_config(checkpoint, prefix, naming)?;
    let names = ControlNetNames::new(&config);
    let weights = checkpoint.part(prefix, move |name| {
        let name = match naming {
            Naming::LatentDiffusion => names.to_ldm(name)?,
            Naming::Diffusers => name.to_owned(),
        };
        Some(format!("{prefix}{name}"))
    });
    Ok((config, weights))
}

/// The error for weights of something else.
pub(super) fn no_controlnet(checkpoint: &Checkpoint) -> Error {
    let [(ldm, _), (diffusers, _)] = FIRST_LAYERS;
    let is_there = |part: &str| checkpoint.names().any(|name| name.contains(part));
    let problem = match OTHER_KINDS.iter().find(|(part, _)| is_there(part)) {
        Some((_, kind)) => format!("expected a ControlNet, found a {kind}"),
        None => format!("expected a ControlNet, found no tensor {diffusers} or {ldm}"),
    };
    Error::content(checkpoint.file_name(), problem)
}

/// Whether weights in diffusers' naming belong to a ControlNet.
pub(super) fn is_controlnet(checkpoint: &Checkpoint) -> bool {
    FIRST_LAYERS.iter().any(|(layer, naming)| *naming == Naming::Diffusers && checkpoint.contains(layer))
}

/// The mapping of names for ControlNets of one shape.
#[derive(Debug, Clone)]
pub(super) struct ControlNetNames {
    down_path: UNetNames,
    /// Convolutions between the first and the last that embed the image.
    blocks: usize,
}

impl ControlNetNames {
    pub(super) fn new(config: &ControlNetConfig) -> Self {
        // The upsampling path has no names here.
        let up_attends = vec![false; config.block_out_channels.len()];
        let halvings = config.conditioning_embedding_out_channels.len().saturating_sub(1);
        Self { down_path: UNetNames { layers: config.layers_per_block, up_attends }, blocks: 2 * halvings }
    }

    /// Maps a name from diffusers to latent diffusion, both without prefix. Activations between the image's
    /// convolutions have numbers too.
    pub(super) fn to_ldm(&self, name: &str) -> Option<String> {
        let segments: Vec<&str> = name.split('.').collect();
        let hint = |layer: usize, kind: &str| Some(format!("input_hint_block.{}.{kind}", 2 * layer));
        match segments.as_slice() {
            ["controlnet_cond_embedding", "conv_in", kind] => hint(0, kind),
            ["controlnet_cond_embedding", "blocks", block, kind] => hint(1 + index(block)?, kind),
            ["controlnet_cond_embedding", "conv_out", kind] => hint(1 + self.blocks, kind),
            ["controlnet_down_blocks", skip, kind] => Some(format!("zero_convs.{}.0.{kind}", index(skip)?)),
            ["controlnet_mid_block", kind] => Some(format!("middle_block_out.0.{kind}")),
            _ => self.down_path.to_ldm(name),
        }
    }
}
