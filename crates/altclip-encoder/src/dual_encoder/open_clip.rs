//! Loads OpenCLIP's models with XLM-R as their text tower (`CustomTextCLIP` of open_clip) as a [`DualEncoder`]:
//! xlm-roberta-base-ViT-B-32 and xlm-roberta-large-ViT-H-14.
//!
//! Reproducible scaling laws for contrastive language-image learning, <https://arxiv.org/abs/2212.07143>. A text's
//! vector is the mean of its tokens' states, projected. The configuration only names XLM-R, so its sizes are told by
//! its weights.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::{Activation, Epilogue, Linear};
use model_files::checkpoint::Checkpoint;
use model_files::config::Accepted::{Is, Text};
use model_files::config::{ConfigFile, FieldTable};
use model_files::source::ModelSource;
use serde::Deserialize;

use super::family::OPEN_CLIP_CONFIG;
use super::xlm_roberta_sizes::xlm_roberta_config;
use super::{DualEncoder, Properties, TextPadding, read_logit_scale};
use crate::activation::HiddenAct;
use crate::error::{Error, Result};
use crate::open_clip_names;
use crate::padding::CompactPrompts;
use crate::vision::{ClipVisionTower, VisionConfig};
use crate::xlm_roberta::XlmRobertaModel;

/// `open_clip_config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct OpenClipConfig {
    model_cfg: ModelConfig,
    #[serde(default)]
    preprocess_cfg: PreprocessConfig,
}

#[derive(Debug, Clone, Deserialize)]
struct ModelConfig {
    embed_dim: usize,
    #[serde(default)]
    quick_gelu: bool,
    vision_cfg: VisionFields,
    text_cfg: TextFields,
}

/// Missing fields have open_clip's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct VisionFields {
    layers: usize,
    width: usize,
    head_width: usize,
    mlp_ratio: f64,
    patch_size: usize,
    image_size: usize,
}

impl Default for VisionFields {
    fn default() -> Self {
        Self { layers: 12, width: 768, head_width: 64, mlp_ratio: 4., patch_size: 16, image_size: 224 }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct TextFields {
    #[serde(default = "default_context_length")]
    context_length: usize,
}

fn default_context_length() -> usize {
    77
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(not(feature = "images"), expect(dead_code, reason = "images are not prepared"))]
struct PreprocessConfig {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

impl ConfigFile for OpenClipConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &[],
        harmless: &[],
        fixed: &[],
        nested: &[
            (
                "model_cfg",
                &FieldTable {
                    used: &["embed_dim", "quick_gelu"],
                    harmless: &[("is about training", &["init_logit_bias", "init_logit_scale"])],
                    fixed: &[("custom_text", &[Is(true)])],
                    nested: &[("vision_cfg", &VISION), ("text_cfg", &TEXT)],
                },
            ),
            (
                "preprocess_cfg",
                &FieldTable {
                    used: &["mean", "std"],
                    harmless: &[("repeats the model's", &["size"]), ("has no effect here", &["fill_color"])],
                    fixed: &[
                        ("interpolation", &[Text("bicubic")]),
                        ("mode", &[Text("RGB")]),
                        ("resize_mode", &[Text("shortest")]),
                    ],
                    nested: &[],
                },
            ),
        ],
    };
}

const VISION: FieldTable = FieldTable {
    used: &["head_width", "image_size", "layers", "mlp_ratio", "patch_size", "width"],
    harmless: &[("is about training", &["patch_dropout"])],
    // Other towers than CLIP's.
    fixed: &[
        ("attentional_pool", &[Is(false)]),
        ("final_ln_after_pool", &[Is(false)]),
        ("ls_init_value", &[]),
        ("no_ln_pre", &[Is(false)]),
        ("pool_type", &[Text("tok")]),
        ("pos_embed_type", &[Text("learnable")]),
        ("timm_model_name", &[]),
    ],
    nested: &[],
};
const TEXT: FieldTable = FieldTable {
    used: &["context_length"],
    harmless: &[
        (
            "names what the weights and the tokenizer's files tell",
            &["hf_model_name", "hf_proj_type", "hf_tokenizer_name", "proj", "tokenizer_kwargs", "vocab_size"],
        ),
        ("is about training", &["hf_model_pretrained"]),
    ],
    fixed: &[("hf_pooler_type", &[Text("mean_pooler")]), ("pooler_type", &[Text("mean_pooler")])],
    nested: &[],
};

impl OpenClipConfig {
    fn vision(&self) -> VisionConfig {
        let ModelConfig { embed_dim, quick_gelu, vision_cfg, .. } = &self.model_cfg;
        VisionConfig {
            hidden_size: vision_cfg.width,
            intermediate_size: (vision_cfg.width as f64 * vision_cfg.mlp_ratio) as usize,
            projection_dim: *embed_dim,
            num_hidden_layers: vision_cfg.layers,
            num_attention_heads: vision_cfg.width / vision_cfg.head_width.max(1),
            num_channels: 3,
            image_size: vision_cfg.image_size,
            patch_size: vision_cfg.patch_size,
            hidden_act: if *quick_gelu { HiddenAct::QuickGelu } else { HiddenAct::Gelu },
            layer_norm_eps: 1e-5,
        }
    }

    /// How images are prepared: the shorter side to the tower's, the middle, OpenAI's colours if none are given.
    #[cfg(feature = "images")]
    pub(crate) fn image_processor(&self) -> crate::image_processor::ImageProcessorConfig {
        use crate::image_processor::{CropTo, ImageProcessorConfig, ResizeTo};
        let side = u32::try_from(self.model_cfg.vision_cfg.image_size).unwrap_or(u32::MAX);
        let defaults = ImageProcessorConfig::default();
        ImageProcessorConfig {
            size: ResizeTo::ShortestEdge { shortest_edge: side },
            crop_size: CropTo::Exactly { height: side, width: side },
            image_mean: self.preprocess_cfg.mean.unwrap_or(defaults.image_mean),
            image_std: self.preprocess_cfg.std.unwrap_or(defaults.image_std),
            ..defaults
        }
    }
}

/// XLM-R with a projection of its tokens' mean, and CLIP's image tower.
#[derive(Debug, Clone)]
pub struct OpenClip {
    roberta: XlmRobertaModel,
    projection: Projection,
    vision: ClipVisionTower,
    pad_token_id: u32,
    properties: Properties,
}

/// `text.proj`.
#[derive(Debug, Clone)]
enum Projection {
    Linear(Linear),
    Mlp(Linear, Linear),
}

impl Projection {
    fn new(hidden: usize, dim: usize, vb: &VarBuilder) -> candle_core::Result<Self> {
        if vb.contains_tensor("weight") {
            return Ok(Self::Linear(Linear::new(hidden, dim, false, vb.clone())?));
        }
        let middle = usize::midpoint(hidden, dim);
        let first = Linear::new(hidden, middle, false, vb.pp("0"))?;
        Ok(Self::Mlp(first, Linear::new(middle, dim, false, vb.pp("2"))?))
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Mlp(first, second) => {
                second.forward(&first.forward_with(x, &Epilogue::activation(Activation::Gelu))?)
            }
        }
    }
}

impl OpenClip {
    /// Reads `open_clip_config.json` and the weights at the root of `source`: `text.transformer.*`, `text.proj.*`,
    /// `visual.*` and `logit_scale`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let config: OpenClipConfig = source.read_config(OPEN_CLIP_CONFIG)?;
        let vision = config.vision();
        vision.check().map_err(|problem| Error::config(OPEN_CLIP_CONFIG, problem))?;
        let checkpoint = Checkpoint::open(source, "")?.with_rows_split(open_clip_names::fused_parts);
        let text = xlm_roberta_config(&checkpoint, "text.transformer.", "an OpenCLIP with XLM-R")?;
        let vb = checkpoint.var_builder(dtype, device)?;
        let dim = config.model_cfg.embed_dim;

        // The one weight that is stored transposed.
        let projection = checkpoint.tensor("visual.proj", dtype, device)?.t()?.contiguous()?;
        let projection = HashMap::from([("weight".to_owned(), projection)]);
        let visual = checkpoint.part("visual.", vision_name).var_builder(dtype, device)?;
        Ok(Self {
            roberta: XlmRobertaModel::new(&text, vb.pp("text.transformer"))?,
            projection: Projection::new(text.hidden_size, dim, &vb.pp("text.proj"))?,
            vision: ClipVisionTower::from_parts(
                &vision,
                visual,
                VarBuilder::from_tensors(projection, dtype, device),
            )?,
            pad_token_id: text.pad_token_id,
            properties: Properties {
                logit_scale: read_logit_scale(&checkpoint)?,
                logit_bias: None,
                projection_dim: dim,
                image_size: vision.image_size,
                max_tokens: config.model_cfg.text_cfg.context_length.min(text.max_tokens()),
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Skipped,
            },
        })
    }
}

/// The name in OpenCLIP of a weight of the image tower.
pub(super) fn vision_name(name: &str) -> Option<String> {
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
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), self.pad_token_id)?;
        let prompts = prompts.without_hidden_padding();
        let mean = prompts.mean_rows(&self.roberta.encode(&prompts)?)?;
        Ok(self.projection.forward(&mean)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), self.pad_token_id)?;
        Ok(prompts.expand(&self.roberta.encode(&prompts)?)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
