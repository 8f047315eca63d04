//! Reads timm's SigLIP towers, which OpenCLIP has under `visual.trunk`.

use candle_core::{DType, Device};
use model_files::checkpoint::Checkpoint;

use super::super::family::OPEN_CLIP_CONFIG;
use super::super::weight_sizes::WeightSizes;
use super::config::ModelConfig;
use crate::activation::HiddenAct;
use crate::error::{Error, Result};
use crate::siglip::SiglipVisionModel;
use crate::vision::VisionConfig;

const TRUNK: &str = "visual.trunk";
/// The beginnings of names, with the channels per head.
const TOWERS: [(&str, usize); 3] =
    [("vit_base_patch", 64), ("vit_large_patch", 64), ("vit_so400m_patch", 72)];

/// Reads the tower that timm calls `name`.
///
/// # Errors
/// If it is not known, or its weights are missing or have other shapes.
pub(super) fn read(
    name: &str,
    model: &ModelConfig,
    checkpoint: &Checkpoint,
    dtype: DType,
    device: &Device,
) -> Result<SiglipVisionModel> {
    let known = TOWERS.iter().find(|(start, _)| name.starts_with(start) && name.contains("_siglip_"));
    let Some((_, head_width)) = known else {
        let problem = format!("timm_model_name is {name:?}, expected SigLIP's base, large or so400m");
        return Err(Error::config(OPEN_CLIP_CONFIG, problem));
    };
    let sizes = WeightSizes::new(checkpoint, "an OpenCLIP with timm's SigLIP");
    let size = |name: &str, dimension| sizes.of(&format!("{TRUNK}.{name}"), dimension);
    let hidden_size = size("patch_embed.proj.weight", 0)?;
    if hidden_size != model.embed_dim {
        let problem = format!("embed_dim is {}, expected the image tower's {hidden_size}", model.embed_dim);
        return Err(Error::config(OPEN_CLIP_CONFIG, problem));
    }
    let config = VisionConfig {
        hidden_size,
        intermediate_size: size("blocks.0.mlp.fc1.weight", 0)?,
        projection_dim: hidden_size,
        num_hidden_layers: sizes.layers(&format!("{TRUNK}.blocks.")),
        num_attention_heads: hidden_size / head_width,
        num_channels: size("patch_embed.proj.weight", 1)?,
        image_size: model.vision_cfg.image_size,
        patch_size: size("patch_embed.proj.weight", 2)?,
        // transformers' towers have the one by tanh.
        hidden_act: HiddenAct::Gelu,
        layer_norm_eps: 1e-6,
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    // (1, patches, hidden_size)
    let positions = checkpoint.tensor(&format!("{TRUNK}.pos_embed"), dtype, device)?.flatten_to(1)?;
    let expected = [config.patches(), hidden_size];
    if positions.dims() != expected {
        let found = positions.dims();
        return Err(
            sizes.problem(&format!("found {TRUNK}.pos_embed of shape {found:?}, expected {expected:?}"))
        );
    }
    let vb = checkpoint.part(TRUNK, trunk_name).var_builder(dtype, device)?;
    Ok(SiglipVisionModel::with_positions(&config, positions, vb)?)
}

/// The names of the parts of a tensor that is several in transformers; none for others.
pub(super) fn fused_parts(stored: &str) -> Vec<String> {
    let parts: &[&str] = match stored.rsplit_once('.').map_or("", |(layer, _)| layer) {
        layer if !layer.starts_with(TRUNK) => &[],
        layer if layer.ends_with(".attn.qkv") => &["q", "k", "v"],
        layer if layer.ends_with(".attn_pool.kv") => &["k", "v"],
        _ => &[],
    };
    parts.iter().map(|part| format!("{stored}.{part}")).collect()
}

/// The name in timm of a weight of the image tower.
fn trunk_name(name: &str) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let named = |stored: &str| Some(format!("{TRUNK}.{stored}.{kind}"));
    let part = |stored: &str, part: &str| Some(format!("{TRUNK}.{stored}.{kind}.{part}"));
    if let Some(rest) = layer.strip_prefix("encoder.layers.") {
        let (number, rest) = rest.split_once('.')?;
        let block = |stored: &str| format!("blocks.{number}.{stored}");
        return match rest {
            "layer_norm1" => named(&block("norm1")),
            "layer_norm2" => named(&block("norm2")),
            "self_attn.q_proj" => part(&block("attn.qkv"), "q"),
            "self_attn.k_proj" => part(&block("attn.qkv"), "k"),
            "self_attn.v_proj" => part(&block("attn.qkv"), "v"),
            "self_attn.out_proj" => named(&block("attn.proj")),
            "mlp.fc1" | "mlp.fc2" => named(&block(rest)),
            _ => None,
        };
    }
    match layer {
        "embeddings.patch_embedding" => named("patch_embed.proj"),
        "post_layernorm" => named("norm"),
        "head" if kind == "probe" => Some(format!("{TRUNK}.attn_pool.latent")),
        "head.attention.q_proj" => named("attn_pool.q"),
        "head.attention.k_proj" => part("attn_pool.kv", "k"),
        "head.attention.v_proj" => part("attn_pool.kv", "v"),
        "head.attention.out_proj" => named("attn_pool.proj"),
        "head.layernorm" => named("attn_pool.norm"),
        "head.mlp.fc1" => named("attn_pool.mlp.fc1"),
        "head.mlp.fc2" => named("attn_pool.mlp.fc2"),
        _ => None,
    }
}
