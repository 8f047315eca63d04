//! Recognises files that cannot be applied as an adapter to this model.

use std::collections::BTreeMap;

/// Parts of tensor names by which unsupported kinds of adapters are known.
const KINDS: [(&str, &str); 18] = [
    ("oft_diag", "diag-OFT under its first name, which programs read in different ways"),
    (".oft_r", "OFT of an early PEFT, whose blocks later ones do not read"),
    (".oft_embedding_R", "OFT of embeddings"),
    (".vera_lambda", "VeRA"),
    (".lora_E", "AdaLoRA"),
    (".lora_diag", "KaSA"),
    (".lokr_t1", "LoKr with a core in its first factor"),
    (".bm.weight", "GLoRA with a core"),
    (".bone_", "Bone"),
    (".miss_", "MiSS"),
    (".hra_u", "HRA"),
    (".road_", "RoAd"),
    ("fourierft_", "FourierFT"),
    ("randlora_", "RandLoRA"),
    ("custom_diffusion", "Custom Diffusion"),
    ("trainable_tokens_", "set of trained rows of the word embeddings"),
    (".reshape_weight", "change of a weight's shape"),
    ("motion_modules.", "motion module of AnimateDiff"),
];

/// Prefixes of names that no AltDiffusion has, and the models that have them.
const BEGINNINGS: [(&str, &str); 9] = [
    ("lora_te2_", "Stable Diffusion XL or 3"),
    ("text_encoders.clip_g.", "Stable Diffusion XL or 3"),
    ("lora_te3_", "Stable Diffusion 3"),
    ("text_encoder_2.", "Stable Diffusion XL, Stable Diffusion 3 or FLUX"),
    ("lora_prior_unet_", "Stable Cascade"),
    ("diffusion_model.blocks.", "a video model"),
    ("base_model.model.model.layers.", "a language model"),
    ("lora_transformer_", "a diffusion transformer"),
    ("transformer.", "a diffusion transformer"),
];
/// Parts of names that no AltDiffusion has. They are checked first, since they are more specific.
const PARTS: [(&str, &str); 8] = [
    ("add_embedding", "Stable Diffusion XL"),
    ("label_emb", "Stable Diffusion XL"),
    ("joint_blocks", "Stable Diffusion 3"),
    ("single_transformer_blocks", "FLUX"),
    ("single_blocks", "FLUX"),
    ("double_blocks", "FLUX"),
    ("attn.add_k_proj", "Stable Diffusion 3 or FLUX"),
    ("attn_add_k_proj", "Stable Diffusion 3 or FLUX"),
];
/// Parts of the names of CLIP's text encoder. A LoRA with them may have a part for the UNet as well.
const CLIP: [&str; 2] = ["text_model_encoder_layers", "text_model.encoder.layers"];

/// Metadata keys under which trainers name the model: kohya's scripts, and the specification that they share.
const METADATA: [&str; 2] = ["modelspec.architecture", "ss_base_model_version"];
/// The longest such name that is shown.
const LONGEST_NAME: usize = 60;

/// The unsupported kind of adapter that has a tensor of this name.
pub(super) fn kind_of(tensor: &str) -> Option<&'static str> {
    KINDS.iter().find_map(|(part, kind)| tensor.contains(part).then_some(*kind))
}

/// The model that an adapter with these tensors is for, if it cannot be an AltDiffusion.
pub(super) fn model_of(tensors: &[&str]) -> Option<&'static str> {
    let part = || PARTS.iter().find(|(part, _)| tensors.iter().any(|name| name.contains(part)));
    let beginning = || BEGINNINGS.iter().find(|(part, _)| tensors.iter().any(|name| name.starts_with(part)));
    part().or_else(beginning).map(|(_, model)| *model)
}

/// The model that a file was made for according to its metadata, for errors.
pub(super) fn said_model(metadata: &BTreeMap<String, String>) -> Option<String> {
    let is_plain = |name: &&String| name.len() <= LONGEST_NAME && name.chars().all(|c| c.is_ascii_graphic());
    METADATA.iter().find_map(|key| metadata.get(*key)).filter(is_plain).cloned()
}

/// Whether a layer belongs to CLIP's text encoder.
pub(super) fn is_of_clip(layer: &str) -> bool {
    CLIP.iter().any(|part| layer.contains(part))
}
