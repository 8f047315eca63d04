//! Infers the configurations that a single file lacks from its tensors' shapes.
//!
//! Where the shapes say nothing, it assumes the values of all models published in this form: 8 heads in the UNets of
//! Stable Diffusion 1, heads of 64 channels in those of Stable Diffusion 2 and in text encoders, 32 groups, and latents
//! scaled by 0.18215.

use altclip_encoder::conditioner::TextEncoderConfig;
use altclip_encoder::xlm_roberta::XlmRobertaConfig;
use candle_core::{DType, Device};
use model_files::checkpoint::Checkpoint;
use serde_json::{Value, json};

use super::Origin;
use super::down_path::DownPath;
use super::prefixed_tensors::PrefixedTensors;
use super::text_encoder_names::{self, TextEncoderNames, USED_OF_VIT_H};
use super::{unet_names, vae_names};
use crate::config::LARGEST_SIZE;
use crate::unet::UNet2DConditionConfig;
use crate::vae::AutoencoderKlConfig;
use crate::{Error, PerBlock, Result};

/// Channels per head in XLM-R, BERT and CLIP's text towers.
const TEXT_HEAD_CHANNELS: usize = 64;
/// BERT's word embeddings, which distinguish it from CLIP.
const BERT_WORDS: &str = "transformer.embeddings.word_embeddings";
/// The tower of CLIP, and its word embeddings.
const CLIP_TOWER: &str = "transformer.text_model";
const CLIP_WORDS: &str = "transformer.text_model.embeddings.token_embedding.weight";
/// The width of OpenCLIP's ViT-H, the tower of Stable Diffusion 2.
const OPEN_CLIP_WIDTH: usize = 1024;
/// Side of the latents that the models were trained on.
const SAMPLE_SIZE: usize = 64;
/// The same for those of Stable Diffusion 2 that predict velocity.
const SAMPLE_SIZE_OF_SECOND: usize = 96;

/// Tensors with which trainers mark a model that predicts velocity, and one with a zero-terminal-SNR schedule. Their
/// values do not matter.
const PREDICTS_V: &str = "v_pred";
const ZERO_TERMINAL_SNR: &str = "ztsnr";
/// The metadata key under which trainers name the prediction, as in <https://github.com/Stability-AI/ModelSpec>.
const PREDICTION_KEY: &str = "modelspec.prediction_type";

/// The bias by which ComfyUI tells the models of Stable Diffusion 2, which differ only in their numbers, and the
/// smallest standard deviation it has in those that predict velocity.
const TELLING_BIAS: &str = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
const SPREAD_OF_VELOCITY: f64 = 0.09;

/// The first and the last convolution of the UNet.
const FIRST_CONVOLUTION: &str = "input_blocks.0.0.weight";
const LAST_CONVOLUTION: &str = "out.2.weight";

/// Infers `unet/config.json`.
pub(super) fn unet(checkpoint: &Checkpoint, origin: Origin) -> Result<UNet2DConditionConfig> {
    let tensors = PrefixedTensors { checkpoint, prefix: unet_names::PREFIX };
    let down = DownPath::in_latent_diffusion(&tensors)?;
    let up_attends =
        |level: usize| tensors.has(&format!("output_blocks.{}.1.norm.weight", level * (down.layers + 1)));
    let up_type = |level| if up_attends(level) { "CrossAttnUpBlock2D" } else { "UpBlock2D" }.to_owned();
    let is_large = is_second(checkpoint, origin) && predicts_velocity(checkpoint, origin)?;
    let sample_size = if is_large { SAMPLE_SIZE_OF_SECOND } else { SAMPLE_SIZE };
    Ok(UNet2DConditionConfig {
        sample_size: Some(PerBlock::Same(sample_size)),
        in_channels: tensors.size(FIRST_CONVOLUTION, 1)?,
        out_channels: tensors.size(LAST_CONVOLUTION, 0)?,
        down_block_types: down.block_types(),
        up_block_types: (0..down.channels.len()).map(up_type).collect(),
        layers_per_block: PerBlock::Same(down.layers),
        cross_attention_dim: PerBlock::Same(down.cross_attention_dim),
        transformer_layers_per_block: down.transformer_layers(),
        attention_head_dim: down.heads(&tensors, "the UNet")?,
        use_linear_projection: down.use_linear_projection,
        block_out_channels: down.channels,
        ..Default::default()
    })
}

/// Whether a file holds a model of the kind of Stable Diffusion 2, under OpenCLIP's names or transformers'.
fn is_second(checkpoint: &Checkpoint, origin: Origin) -> bool {
    let tensors = PrefixedTensors { checkpoint, prefix: text_encoder_names::PREFIX };
    match TextEncoderNames::of(checkpoint, origin) {
        Some(TextEncoderNames::OpenClip { .. }) => origin == Origin::PyTorch,
        Some(TextEncoderNames::Transformers) => {
            tensors.size(CLIP_WORDS, 1).is_ok_and(|width| width == OPEN_CLIP_WIDTH)
        }
        Some(TextEncoderNames::AltDiffusion) | None => false,
    }
}

/// Infers `vae/config.json`. Wukong-Huahua has a decoder only.
pub(super) fn vae(checkpoint: &Checkpoint) -> Result<AutoencoderKlConfig> {
    let tensors = PrefixedTensors { checkpoint, prefix: vae_names::PREFIX };
    let levels = tensors.numbers("decoder.up.").len();
    let channels =
        (0..levels).map(|level| tensors.size(&format!("decoder.up.{level}.block.0.conv1.weight"), 0));
    let out_channels = tensors.size("decoder.conv_out.weight", 0)?;
    let has_encoder = tensors.has("encoder.conv_in.weight");
    Ok(AutoencoderKlConfig {
        in_channels: if has_encoder { tensors.size("encoder.conv_in.weight", 1)? } else { out_channels },
        out_channels,
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); levels],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); levels],
        block_out_channels: channels.collect::<Result<_>>()?,
        // A level of the decoder has one more than one of the encoder.
        layers_per_block: tensors.numbers("decoder.up.0.block.").len().saturating_sub(1),
        latent_channels: tensors.size("decoder.conv_in.weight", 1)?,
        use_quant_conv: tensors.has("quant_conv.weight"),
        use_post_quant_conv: tensors.has("post_quant_conv.weight"),
        mid_block_add_attention: tensors.has("decoder.mid.attn_1.q.weight"),
        ..Default::default()
    })
}

/// Infers `text_encoder/config.json`.
pub(super) fn text_encoder(
    checkpoint: &Checkpoint,
    names: TextEncoderNames,
    origin: Origin,
) -> Result<Value> {
    let to_json = |config| -> Result<Value> {
        serde_json::to_value(config)
            .map_err(|error| Error::content(checkpoint.file_name(), error.to_string()))
    };
    let tensors = PrefixedTensors { checkpoint, prefix: text_encoder_names::PREFIX };
    match names {
        TextEncoderNames::AltDiffusion => to_json(alt_diffusion(checkpoint)?),
        TextEncoderNames::Transformers if tensors.has(&format!("{BERT_WORDS}.weight")) => bert(&tensors),
        TextEncoderNames::Transformers => clip(&tensors),
        TextEncoderNames::OpenClip { layers } => open_clip(&tensors, layers, origin),
    }
}

/// Infers the configuration of AltDiffusion's text encoder.
pub(super) fn alt_diffusion(checkpoint: &Checkpoint) -> Result<TextEncoderConfig> {
    let tensors = PrefixedTensors { checkpoint, prefix: text_encoder_names::PREFIX };
    let vocab_size = tensors.size("roberta.embeddings.word_embeddings.weight", 0)?;
    let hidden_size = tensors.size("roberta.embeddings.word_embeddings.weight", 1)?;
    let has_pre_transformation = tensors.has("transformation_pre.weight");
    let projection =
        if has_pre_transformation { "transformation_pre.weight" } else { "transformation.weight" };
    Ok(TextEncoderConfig {
        encoder: XlmRobertaConfig {
            vocab_size,
            hidden_size,
            num_hidden_layers: tensors.numbers("roberta.encoder.layer.").len(),
            num_attention_heads: tensors.heads("the text encoder", hidden_size, TEXT_HEAD_CHANNELS)?,
            intermediate_size: tensors.size("roberta.encoder.layer.0.intermediate.dense.weight", 0)?,
            max_position_embeddings: tensors.size("roberta.embeddings.position_embeddings.weight", 0)?,
            type_vocab_size: tensors.size("roberta.embeddings.token_type_embeddings.weight", 0)?,
            ..XlmRobertaConfig::large()
        },
        project_dim: tensors.size(projection, 0)?,
        use_attention_mask: true,
        has_pre_transformation,
    })
}

/// Infers the configuration of CLIP's text tower in Stable Diffusion 1, or of OpenCLIP's under the same names, as
/// stable-diffusion.cpp writes it.
fn clip(tensors: &PrefixedTensors) -> Result<Value> {
    let hidden_size = tensors.size(CLIP_WORDS, 1)?;
    let is_open_clip = hidden_size == OPEN_CLIP_WIDTH;
    let layers = tensors.numbers(&format!("{CLIP_TOWER}.encoder.layers.")).len();
    let positions = format!("{CLIP_TOWER}.embeddings.position_embedding.weight");
    Ok(json!({
        "architectures": ["CLIPTextModel"],
        // OpenAI's towers have it, OpenCLIP's the exact function.
        "hidden_act": if is_open_clip { "gelu" } else { "quick_gelu" },
        "hidden_size": hidden_size,
        "intermediate_size": tensors.size(&format!("{CLIP_TOWER}.encoder.layers.0.mlp.fc1.weight"), 0)?,
        "max_position_embeddings": tensors.size(&positions, 0)?,
        "num_attention_heads": tensors.heads("the text encoder", hidden_size, TEXT_HEAD_CHANNELS)?,
        "num_hidden_layers": if is_open_clip { layers.min(USED_OF_VIT_H) } else { layers },
        "vocab_size": tensors.size(CLIP_WORDS, 0)?,
    }))
}

/// Infers the configuration of OpenCLIP's text tower in Stable Diffusion 2, or of Wukong-Huahua's.
fn open_clip(tensors: &PrefixedTensors, layers: usize, origin: Origin) -> Result<Value> {
    let is_huahua = origin == Origin::MindSpore;
    let hidden_size = tensors.size("model.token_embedding.weight", 1)?;
    Ok(json!({
        "architectures": ["CLIPTextModel"],
        "hidden_act": if is_huahua { "quick_gelu" } else { "gelu" },
        "hidden_size": hidden_size,
        // MindSpore's default.
        "layer_norm_eps": if is_huahua { 1e-7 } else { 1e-5 },
        "intermediate_size": tensors.size("model.transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        "max_position_embeddings": tensors.size("model.positional_embedding", 0)?,
        "num_attention_heads": tensors.heads("the text encoder", hidden_size, TEXT_HEAD_CHANNELS)?,
        "num_hidden_layers": layers,
        "vocab_size": tensors.size("model.token_embedding.weight", 0)?,
    }))
}

/// Infers the configuration of BERT in Taiyi.
fn bert(tensors: &PrefixedTensors) -> Result<Value> {
    let hidden_size = tensors.size(&format!("{BERT_WORDS}.weight"), 1)?;
    let embeddings = "transformer.embeddings";
    Ok(json!({
        "architectures": ["BertModel"],
        "hidden_size": hidden_size,
        "intermediate_size": tensors.size("transformer.encoder.layer.0.intermediate.dense.weight", 0)?,
        "max_position_embeddings": tensors.size(&format!("{embeddings}.position_embeddings.weight"), 0)?,
        "num_attention_heads": tensors.heads("the text encoder", hidden_size, TEXT_HEAD_CHANNELS)?,
        "num_hidden_layers": tensors.numbers("transformer.encoder.layer.").len(),
        "type_vocab_size": tensors.size(&format!("{embeddings}.token_type_embeddings.weight"), 0)?,
        "vocab_size": tensors.size(&format!("{BERT_WORDS}.weight"), 0)?,
    }))
}

/// Returns the `scheduler/scheduler_config.json` that all published models share but for the prediction.
pub(super) fn scheduler(checkpoint: &Checkpoint, origin: Origin) -> Result<Value> {
    let predicts_v = predicts_velocity(checkpoint, origin)?;
    let prediction = if predicts_v { "v_prediction" } else { "epsilon" };
    Ok(json!({
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction,
        "rescale_betas_zero_snr": checkpoint.contains(ZERO_TERMINAL_SNR),
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
    }))
}

/// Whether the UNet predicts velocity, which its shapes do not reveal: a tensor or the metadata may say so. Otherwise
/// every published AltDiffusion and Stable Diffusion 1 predicts noise, and of Stable Diffusion 2 the inpainting model
/// and those of 512 × 512.
fn predicts_velocity(checkpoint: &Checkpoint, origin: Origin) -> Result<bool> {
    if checkpoint.contains(PREDICTS_V) {
        return Ok(true);
    }
    match checkpoint.metadata().get(PREDICTION_KEY).map(String::as_str) {
        Some("v" | "v_prediction" | "velocity") => return Ok(true),
        Some("epsilon") => return Ok(false),
        _ => {}
    }
    if !is_second(checkpoint, origin) {
        return Ok(false);
    }
    let tensors = PrefixedTensors { checkpoint, prefix: unet_names::PREFIX };
    let channels = |name: &str, side: usize| tensors.size(name, side).ok();
    if channels(FIRST_CONVOLUTION, 1) > channels(LAST_CONVOLUTION, 0) {
        return Ok(false);
    }
    let name = format!("{}{TELLING_BIAS}", unet_names::PREFIX);
    // Check the size before reading anything, since the file may be anything.
    if !matches!(checkpoint.shape(&name), Some([channels]) if (1..=LARGEST_SIZE).contains(channels)) {
        return Ok(true);
    }
    let bias = checkpoint.tensor(&name, DType::F32, &Device::Cpu)?.to_vec1::<f32>()?;
    let count = bias.len() as f64;
    let mean = bias.iter().copied().map(f64::from).sum::<f64>() / count;
    let variance = bias.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    Ok(variance.sqrt() > SPREAD_OF_VELOCITY)
}
