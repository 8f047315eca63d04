//! Translates the names of the text encoder's weights between diffusers and single files.
//!
//! After the prefix, FlagAI's files have diffusers' names; those of Stable Diffusion 1 and Taiyi have them after
//! `transformer.`; those of Stable Diffusion 2 have OpenCLIP's after `model.`, with the projections of queries, keys
//! and values as one matrix.

use altclip_encoder::conditioner::ConditionerConfig;
use altclip_encoder::open_clip_names;
use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;

use super::Origin;
use super::names::index;
use super::prefixed_tensors::PrefixedTensors;
use crate::Result;

/// The prefix of the text encoder's weights in a single file.
pub(super) const PREFIX: &str = "cond_stage_model.";

const TRANSFORMERS: &str = "transformer.";
const OPEN_CLIP: &str = "model.";

/// The layers that Stable Diffusion 2 uses of OpenCLIP's ViT-H: all but the last, which files converted from diffusers
/// lack.
pub(super) const USED_OF_VIT_H: usize = 23;

/// The tensors outside the layers, in diffusers and in OpenCLIP.
const TENSORS: [(&str, &str); 4] = [
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.weight", "ln_final.weight"),
    ("text_model.final_layer_norm.bias", "ln_final.bias"),
];
/// How a file names the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextEncoderNames {
    /// As in diffusers, after the prefix.
    AltDiffusion,
    /// As in diffusers, after the prefix and `transformer.`.
    Transformers,
    /// OpenCLIP's, for this many layers.
    OpenClip { layers: usize },
}

impl TextEncoderNames {
    /// Recognizes the names in a file; `None` if it has no text encoder that is supported.
    pub(super) fn of(checkpoint: &Checkpoint, origin: Origin) -> Option<Self> {
        let tensors = PrefixedTensors { checkpoint, prefix: PREFIX };
        let is_there = |prefix: &str| tensors.names().any(|name| name.starts_with(prefix));
        if is_there("roberta.") {
            Some(Self::AltDiffusion)
        } else if is_there("transformer.text_model.") || is_there("transformer.encoder.layer.") {
            Some(Self::Transformers)
        } else if is_there("model.transformer.resblocks.") {
            let layers = tensors.numbers("model.transformer.resblocks.").len();
            // The last layer is there, but Stable Diffusion 2 uses the one before; Wukong-Huahua uses all.
            let unused = usize::from(origin == Origin::PyTorch && layers != USED_OF_VIT_H);
            Some(Self::OpenClip { layers: layers.saturating_sub(unused) })
        } else {
            None
        }
    }

    /// The same names, for as many layers as the text encoder's configuration says.
    ///
    /// # Errors
    /// If the configuration cannot be read.
    pub(super) fn with_layers_of(self, config: &FileData) -> Result<Self> {
        let Self::OpenClip { .. } = self else { return Ok(self) };
        Ok(match ConditionerConfig::read(config)? {
            ConditionerConfig::Clip(config) => Self::OpenClip { layers: config.encoder.num_hidden_layers },
            ConditionerConfig::AltDiffusion(_) | ConditionerConfig::Bert(_) => self,
        })
    }

    /// Maps a name in diffusers to that in the file.
    pub(super) fn to_file(self, name: &str) -> Option<String> {
        match self {
            Self::AltDiffusion => Some(format!("{PREFIX}{name}")),
            Self::Transformers => Some(format!("{PREFIX}{TRANSFORMERS}{name}")),
            Self::OpenClip { layers } => Some(format!("{PREFIX}{OPEN_CLIP}{}", to_open_clip(name, layers)?)),
        }
    }

    /// Maps a name in the file to that in diffusers.
    pub(super) fn to_diffusers(self, stored: &str) -> Option<String> {
        let name = stored.strip_prefix(PREFIX)?;
        match self {
            Self::AltDiffusion => Some(name.to_owned()),
            Self::Transformers => name.strip_prefix(TRANSFORMERS).map(str::to_owned),
            Self::OpenClip { layers } => from_open_clip(name.strip_prefix(OPEN_CLIP)?, layers),
        }
    }
}

/// Whether CLIP's text tower of this many layers has a tensor of this name in diffusers. Some files have the tower's other
/// layers too, and the projection to the space of images.
pub(super) fn is_of_clip(name: &str, layers: usize) -> bool {
    match name.strip_prefix("text_model.encoder.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, _)) => index(layer).is_some_and(|layer| layer < layers),
        None => !["text_projection", "logit_scale"].iter().any(|unused| name.contains(unused)),
    }
}

fn to_open_clip(name: &str, layers: usize) -> Option<String> {
    if let Some((_, theirs)) = TENSORS.iter().find(|(ours, _)| *ours == name) {
        return Some((*theirs).to_owned());
    }
    let (layer, rest) = name.strip_prefix("text_model.encoder.layers.")?.split_once('.')?;
    let layer = index(layer).filter(|layer| *layer < layers)?;
    let theirs = open_clip_names::to_open_clip(rest)?;
    Some(format!("transformer.resblocks.{layer}.{theirs}"))
}

fn from_open_clip(name: &str, layers: usize) -> Option<String> {
    if let Some((ours, _)) = TENSORS.iter().find(|(_, theirs)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    let (layer, rest) = name.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let layer = index(layer).filter(|layer| *layer < layers)?;
    let ours = open_clip_names::to_transformers(rest)?;
    Some(format!("text_model.encoder.layers.{layer}.{ours}"))
}

/// The parts of a tensor that is several in diffusers.
pub(super) fn fused_parts(stored: &str) -> Vec<String> {
    if stored.starts_with(PREFIX) { open_clip_names::fused_parts(stored) } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        let open_clip = TextEncoderNames::OpenClip { layers: 23 };
        for (names, ours, stored) in [
            (TextEncoderNames::AltDiffusion, "roberta.x.weight", "cond_stage_model.roberta.x.weight"),
            (TextEncoderNames::Transformers, "text_model.x", "cond_stage_model.transformer.text_model.x"),
            (
                open_clip,
                "text_model.embeddings.position_embedding.weight",
                "cond_stage_model.model.positional_embedding",
            ),
            (
                open_clip,
                "text_model.encoder.layers.22.self_attn.k_proj.bias",
                "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_bias.k",
            ),
            (
                open_clip,
                "text_model.encoder.layers.0.self_attn.out_proj.weight",
                "cond_stage_model.model.transformer.resblocks.0.attn.out_proj.weight",
            ),
            (
                open_clip,
                "text_model.encoder.layers.7.mlp.fc2.bias",
                "cond_stage_model.model.transformer.resblocks.7.mlp.c_proj.bias",
            ),
        ] {
            assert_eq!(names.to_file(ours).as_deref(), Some(stored));
            assert_eq!(names.to_diffusers(stored).as_deref(), Some(ours));
        }
        // The last layer and the projection to the joint space are not used.
        for stored in ["transformer.resblocks.23.ln_1.weight", "text_projection", "logit_scale"] {
            assert_eq!(open_clip.to_diffusers(&format!("{PREFIX}model.{stored}")), None, "{stored}");
        }
        assert_eq!(open_clip.to_file("text_model.encoder.layers.23.layer_norm1.bias"), None);
    }
}
