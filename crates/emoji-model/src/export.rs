//! Writes a trained model in the published layout, which every loader of AltDiffusion reads.

use crate::error::{Error, Result};
use crate::stages::autoencoder::Autoencoder;
use crate::stages::dual_encoder::TrainedDualEncoder;
use crate::stages::upscaler::TrainedUpscaler;
use altclip_encoder::altclip::AltClipConfig;
use altclip_encoder::conditioner::TextEncoderConfig;
use altclip_encoder::images::Background;
use altclip_training::save_weights;
use altdiffusion_pipeline::PROMPT_TOKENS;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use candle_core::{DType, Tensor};
use model_files::write_whole;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The diffusers version in the configuration files.
const DIFFUSERS_VERSION: &str = "0.31.0";

/// The tokenizer's file in the folders of a model.
pub(crate) const SENTENCEPIECE: &str = "tokenizer/sentencepiece.bpe.model";

/// `scheduler/scheduler_config.json`: DDIM on Stable Diffusion's noise levels, with velocity prediction.
pub(crate) fn scheduler_config() -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
        "trained_betas": null,
    })
}

/// The configuration of the diffusion text encoder, which shares its weights with the dual encoder's text tower.
pub(crate) fn text_encoder_config(model: &TrainedDualEncoder) -> TextEncoderConfig {
    TextEncoderConfig {
        encoder: model.text_config.encoder.clone(),
        project_dim: model.text_config.project_dim,
        use_attention_mask: true,
        has_pre_transformation: false,
    }
}

/// The trained UNet.
pub struct TrainedUnet {
    /// Its configuration.
    pub config: UNet2DConditionConfig,
    /// The averaged weights by name.
    pub weights: BTreeMap<String, Tensor>,
}

/// Writes the whole model in f16.
///
/// # Errors
/// If a file cannot be written.
pub fn export_model(
    folder: &Path,
    tokenizer: &[u8],
    dual_encoder: &TrainedDualEncoder,
    vae: &Autoencoder,
    unet: &TrainedUnet,
    upscaler: Option<&TrainedUpscaler>,
) -> Result<()> {
    let size = dual_encoder.vision_config.image_size;
    write_json(folder, "model_index.json", &model_index(upscaler.is_some()))?;

    write_file(folder, SENTENCEPIECE, tokenizer)?;
    write_json(folder, "tokenizer/tokenizer_config.json", &tokenizer_config())?;
    write_json(folder, "tokenizer/special_tokens_map.json", &special_tokens())?;

    let tags = json!({
        "architectures": ["RobertaSeriesModelWithTransformation"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "model_type": "xlm-roberta",
    });
    write_json(folder, "text_encoder/config.json", &tagged(text_encoder_config(dual_encoder), tags)?)?;
    write_weights(folder, "text_encoder/model.safetensors", &dual_encoder.text_weights, DType::F16)?;

    let tags =
        json!({ "architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model" });
    write_json(folder, "image_encoder/config.json", &tagged(&dual_encoder.vision_config, tags)?)?;
    write_weights(folder, "image_encoder/model.safetensors", &dual_encoder.vision_weights, DType::F16)?;
    write_json(folder, "feature_extractor/preprocessor_config.json", &preprocessor_config(size))?;

    export_autoencoder(folder, size, vae)?;
    if let Some(upscaler) = upscaler {
        let tags = json!({ "_class_name": "PixelShuffleUpscaler" });
        write_json(folder, "upscaler/config.json", &tagged(&upscaler.config, tags)?)?;
        let name = "upscaler/diffusion_pytorch_model.safetensors";
        write_weights(folder, name, &upscaler.weights, DType::F16)?;
    }

    let tags = json!({ "_class_name": "UNet2DConditionModel", "_diffusers_version": DIFFUSERS_VERSION });
    write_json(folder, "unet/config.json", &tagged(&unet.config, tags)?)?;
    write_weights(folder, "unet/diffusion_pytorch_model.safetensors", &unet.weights, DType::F16)?;

    write_json(folder, "scheduler/scheduler_config.json", &scheduler_config())
}

/// Writes a model's folder `vae` in f16; `size` is the side of its training images.
///
/// # Errors
/// If a file cannot be written.
pub fn export_autoencoder(folder: &Path, size: usize, vae: &Autoencoder) -> Result<()> {
    let tags = json!({ "_class_name": "AutoencoderKL", "_diffusers_version": DIFFUSERS_VERSION, "sample_size": size });
    write_json(folder, "vae/config.json", &tagged(&vae.config, tags)?)?;
    write_weights(folder, "vae/diffusion_pytorch_model.safetensors", &vae.weights, DType::F16)
}

/// Writes a dual encoder in AltCLIP's layout, in f32.
///
/// # Errors
/// If a file cannot be written.
pub fn export_dual_encoder(folder: &Path, tokenizer: &[u8], model: &TrainedDualEncoder) -> Result<()> {
    let size = model.vision_config.image_size;
    write_file(folder, "sentencepiece.bpe.model", tokenizer)?;
    write_json(folder, "tokenizer_config.json", &tokenizer_config())?;
    write_json(folder, "special_tokens_map.json", &special_tokens())?;
    write_json(folder, "preprocessor_config.json", &preprocessor_config(size))?;
    let config = AltClipConfig {
        text_config: model.text_config.clone(),
        vision_config: model.vision_config.clone(),
        projection_dim: model.vision_config.projection_dim,
    };
    let tags = json!({ "architectures": ["AltCLIPModel"], "model_type": "altclip" });
    write_json(folder, "config.json", &tagged(config, tags)?)?;
    let mut weights = model.vision_weights.clone();
    for (name, tensor) in &model.text_weights {
        let is_outside = name.starts_with("text_projection.") || name == "logit_scale";
        let name = if is_outside { name.clone() } else { format!("text_model.{name}") };
        weights.insert(name, tensor.clone());
    }
    write_weights(folder, "model.safetensors", &weights, DType::F32)
}

fn model_index(has_upscaler: bool) -> Value {
    let mut index = json!({
        "_class_name": "AltDiffusionPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["alt_diffusion", "RobertaSeriesModelWithTransformation"],
        "tokenizer": ["transformers", "XLMRobertaTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    if has_upscaler {
        index["upscaler"] = json!(["altdiffusion", "PixelShuffleUpscaler"]);
    }
    index
}

fn special_tokens() -> Value {
    json!({
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": { "content": "<mask>", "lstrip": true, "normalized": false, "rstrip": false, "single_word": false },
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    })
}

fn tokenizer_config() -> Value {
    json!({
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": "<mask>",
        "model_max_length": PROMPT_TOKENS,
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "sp_model_kwargs": {},
        "tokenizer_class": "XLMRobertaTokenizer",
        "unk_token": "<unk>",
    })
}

fn preprocessor_config(size: usize) -> Value {
    json!({
        // The background of the data set's images.
        "background": Background::WHITE,
        "crop_size": { "height": size, "width": size },
        "do_center_crop": true,
        "do_convert_rgb": true,
        "do_normalize": true,
        "do_rescale": true,
        "do_resize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1.0 / 255.0,
        "size": { "shortest_edge": size },
    })
}

/// A configuration with additional fields.
fn tagged(config: impl Serialize, tags: Value) -> Result<Value> {
    let mut value = serde_json::to_value(config).map_err(|e| Error::Setting(e.to_string()))?;
    if let (Value::Object(value), Value::Object(tags)) = (&mut value, tags) {
        value.extend(tags);
    }
    Ok(value)
}

/// Writes a file of a model, with the folders above it.
pub(crate) fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    Ok(write_whole(&path, |temporary| fs::write(temporary, bytes))?)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<()> {
    write_file(folder, name, format!("{value:#}\n").as_bytes())
}

fn write_weights(folder: &Path, name: &str, weights: &BTreeMap<String, Tensor>, dtype: DType) -> Result<()> {
    let converted: BTreeMap<String, Tensor> = weights
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.to_dtype(dtype)?)))
        .collect::<candle_core::Result<_>>()?;
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    Ok(save_weights(&path, &converted)?)
}
