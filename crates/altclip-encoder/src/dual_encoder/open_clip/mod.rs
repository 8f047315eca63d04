//! Loads OpenCLIP's models in its own layout (`CLIP` and `CustomTextCLIP` of open_clip) as a [`DualEncoder`]: those with
//! CLIP's text tower, such as ViT-B-32 and ViT-H-14 trained on LAION; xlm-roberta-base-ViT-B-32 and
//! xlm-roberta-large-ViT-H-14; and NLLB-CLIP.
//!
//! Reproducible scaling laws for contrastive language-image learning, <https://arxiv.org/abs/2212.07143>, and NLLB-CLIP,
//! <https://arxiv.org/abs/2309.01859>. The state of CLIP's end token is projected, the mean of XLM-R's states, and the
//! first of NLLB's. The image tower is CLIP's or SigLIP's.

mod clip_text;
mod config;
#[cfg(feature = "onnx")]
mod onnx;
mod text;
mod timm;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

pub(super) use self::clip_text::text_name;
pub use self::config::OpenClipConfig;
#[cfg(feature = "onnx")]
pub(super) use self::onnx::onnx_towers;
use self::text::TextTower;
use super::family::OPEN_CLIP_CONFIG;
use super::{DualEncoder, Properties, read_logit_scale};
use crate::error::{Error, Result};
use crate::open_clip_names;
use crate::siglip::SiglipVisionModel;
use crate::vision::ClipVisionTower;

/// A text tower and an image tower.
#[derive(Debug, Clone)]
pub struct OpenClip {
    text: TextTower,
    vision: ImageTower,
    properties: Properties,
}

#[derive(Debug, Clone)]
enum ImageTower {
    Clip(Box<ClipVisionTower>),
    Siglip(Box<SiglipVisionModel>),
}

impl OpenClip {
    /// Reads `open_clip_config.json` and the weights at the root of `source`: those of the text tower, `visual.*`,
    /// `logit_scale`, and `logit_bias` if there is one.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let config: OpenClipConfig = source.read_config(OPEN_CLIP_CONFIG)?;
        let model = &config.model_cfg;
        let checkpoint = Checkpoint::open(source, "")?
            .with_rows_split(|name| [open_clip_names::fused_parts(name), timm::fused_parts(name)].concat());
        let vb = checkpoint.var_builder(dtype, device)?;
        let text = TextTower::new(model, &checkpoint, &vb)?;
        let vision = match &model.vision_cfg.timm_model_name {
            Some(name) => ImageTower::Siglip(Box::new(timm::read(name, model, &checkpoint, dtype, device)?)),
            None => ImageTower::Clip(Box::new(clip_tower(&config, &checkpoint, dtype, device)?)),
        };
        Ok(Self {
            properties: Properties {
                logit_scale: read_logit_scale(&checkpoint)?,
                logit_bias: read_logit_bias(&checkpoint)?,
                projection_dim: model.embed_dim,
                image_size: model.vision_cfg.image_size,
                max_tokens: text.max_tokens,
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: text.padding,
            },
            text,
            vision,
        })
    }
}

fn read_logit_bias(checkpoint: &Checkpoint) -> Result<Option<f32>> {
    if !checkpoint.contains("logit_bias") {
        return Ok(None);
    }
    let bias = checkpoint.var_builder(DType::F32, &Device::Cpu)?.get((), "logit_bias")?;
    Ok(Some(bias.to_scalar()?))
}

fn clip_tower(
    config: &OpenClipConfig,
    checkpoint: &Checkpoint,
    dtype: DType,
    device: &Device,
) -> Result<ClipVisionTower> {
    let vision = config.vision();
    vision.check().map_err(|problem| Error::config(OPEN_CLIP_CONFIG, problem))?;
    let projection =
        transposed(checkpoint, "visual.proj", [vision.hidden_size, vision.projection_dim], dtype, device)?;
    let visual = checkpoint.part("visual.", vision_name).var_builder(dtype, device)?;
    Ok(ClipVisionTower::from_parts(&vision, visual, projection)?)
}

/// A projection, which is stored transposed, in this shape, as the weight of a linear layer.
fn transposed(
    checkpoint: &Checkpoint,
    name: &str,
    shape: [usize; 2],
    dtype: DType,
    device: &Device,
) -> Result<VarBuilder<'static>> {
    if let Some(found) = checkpoint.shape(name).filter(|found| *found != shape) {
        let (name, file) = (name.to_owned(), checkpoint.file_name().to_owned());
        let (found, expected) = (found.to_vec(), shape.to_vec());
        return Err(model_files::Error::ShapeMismatch { name, file, found, expected }.into());
    }
    let weight = checkpoint.tensor(name, dtype, device)?.t()?.contiguous()?;
    Ok(VarBuilder::from_tensors(HashMap::from([("weight".to_owned(), weight)]), dtype, device))
}

/// The name in OpenCLIP of a weight of the image tower.
pub(in crate::dual_encoder) fn vision_name(name: &str) -> Option<String> {
    let name = match name {
        "embeddings.class_embedding" => "class_embedding".to_owned(),
        "embeddings.position_embedding.weight" => "positional_embedding".to_owned(),
        "embeddings.patch_embedding.weight" => "conv1.weight".to_owned(),
        _ => match name.split_once('.')? {
            ("pre_layrnorm", kind) => format!("ln_pre.{kind}"),
            ("post_layernorm", kind) => format!("ln_post.{kind}"),
            _ => {
                let (layer, rest) = name.strip_prefix("encoder.layers.")?.split_once('.')?;
                format!("transformer.resblocks.{layer}.{}", open_clip_names::to_open_clip(rest)?)
            }
        },
    };
    Some(format!("visual.{name}"))
}

impl DualEncoder for OpenClip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.text.forward(input_ids, attention_mask)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        self.text.hidden_states(input_ids, attention_mask)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let pixels = pixel_values.to_device(&self.properties.device)?;
        Ok(match &self.vision {
            ImageTower::Clip(tower) => tower.forward(&pixels)?,
            ImageTower::Siglip(tower) => tower.forward(&pixels)?,
        })
    }
}
