//! Reads the configuration of an OpenCLIP.

use model_files::config::Accepted::{Is, Text};
use model_files::config::{ConfigFile, FieldTable};
use serde::Deserialize;

#[cfg(feature = "images")]
use super::super::family::OPEN_CLIP_CONFIG;
use crate::activation::HiddenAct;
use crate::clip_text::{ClipTextConfig, LEGACY_EOS_TOKEN_ID};
#[cfg(feature = "images")]
use crate::error::{Error, Result};
use crate::vision::VisionConfig;

/// PyTorch's default.
const LAYER_NORM_EPS: f64 = 1e-5;

/// `open_clip_config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct OpenClipConfig {
    pub(super) model_cfg: ModelConfig,
    #[serde(default)]
    preprocess_cfg: PreprocessConfig,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelConfig {
    pub embed_dim: usize,
    #[serde(default)]
    pub quick_gelu: bool,
    pub vision_cfg: VisionFields,
    pub text_cfg: TextFields,
}

/// Missing fields have open_clip's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct VisionFields {
    pub layers: usize,
    pub width: usize,
    pub head_width: usize,
    pub mlp_ratio: f64,
    pub patch_size: usize,
    pub image_size: usize,
    /// The tower of timm, if it is none of OpenCLIP's own.
    pub timm_model_name: Option<String>,
}

impl Default for VisionFields {
    fn default() -> Self {
        Self {
            layers: 12,
            width: 768,
            head_width: 64,
            mlp_ratio: 4.,
            patch_size: 16,
            image_size: 224,
            timm_model_name: None,
        }
    }
}

/// Missing fields have open_clip's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TextFields {
    pub context_length: usize,
    /// How a text's states become one; the text tower's own way if missing.
    #[serde(alias = "pooler_type")]
    pub hf_pooler_type: Option<String>,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    mlp_ratio: f64,
}

impl Default for TextFields {
    fn default() -> Self {
        Self {
            context_length: 77,
            hf_pooler_type: None,
            vocab_size: 49408,
            width: 512,
            heads: 8,
            layers: 12,
            mlp_ratio: 4.,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(not(feature = "images"), expect(dead_code, reason = "images are not prepared"))]
struct PreprocessConfig {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    resize_mode: Option<String>,
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
                    harmless: &[
                        ("is about training", &["init_logit_bias", "init_logit_scale"]),
                        ("says what the weights are called", &["custom_text"]),
                    ],
                    fixed: &[],
                    nested: &[("vision_cfg", &VISION), ("text_cfg", &TEXT)],
                },
            ),
            (
                "preprocess_cfg",
                &FieldTable {
                    used: &["mean", "resize_mode", "std"],
                    harmless: &[("repeats the model's", &["size"]), ("has no effect here", &["fill_color"])],
                    fixed: &[("interpolation", &[Text("bicubic")]), ("mode", &[Text("RGB")])],
                    nested: &[],
                },
            ),
        ],
    };
}

const VISION: FieldTable = FieldTable {
    used: &["head_width", "image_size", "layers", "mlp_ratio", "patch_size", "timm_model_name", "width"],
    harmless: &[("is about training", &["patch_dropout", "timm_model_pretrained"])],
    // Other towers than CLIP's.
    fixed: &[
        ("attentional_pool", &[Is(false)]),
        ("final_ln_after_pool", &[Is(false)]),
        ("ls_init_value", &[]),
        ("no_ln_pre", &[Is(false)]),
        ("pool_type", &[Text("tok")]),
        ("pos_embed_type", &[Text("learnable")]),
        ("timm_pool", &[Text("map")]),
        ("timm_proj", &[Text("none")]),
    ],
    nested: &[],
};
const TEXT: FieldTable = FieldTable {
    used: &[
        "context_length",
        "heads",
        "hf_pooler_type",
        "layers",
        "mlp_ratio",
        "pooler_type",
        "vocab_size",
        "width",
    ],
    harmless: &[
        (
            "names what the weights and the tokenizer's files tell",
            &["hf_model_name", "hf_proj_type", "hf_tokenizer_name", "proj", "tokenizer_kwargs"],
        ),
        ("is about training", &["hf_model_pretrained"]),
    ],
    // Other towers than CLIP's.
    fixed: &[
        ("embed_cls", &[Is(false)]),
        ("final_ln_after_pool", &[Is(false)]),
        ("ls_init_value", &[]),
        ("no_causal_mask", &[Is(false)]),
        ("pool_type", &[Text("argmax")]),
        ("proj_bias", &[Is(false)]),
        ("proj_type", &[Text("linear")]),
    ],
    nested: &[],
};

impl ModelConfig {
    /// CLIP's text tower, if it is not one of transformers'.
    pub(super) fn clip_text(&self) -> ClipTextConfig {
        let TextFields { width, mlp_ratio, .. } = self.text_cfg;
        ClipTextConfig {
            vocab_size: self.text_cfg.vocab_size,
            hidden_size: width,
            intermediate_size: (width as f64 * mlp_ratio) as usize,
            num_hidden_layers: self.text_cfg.layers,
            num_attention_heads: self.text_cfg.heads,
            max_position_embeddings: self.text_cfg.context_length,
            hidden_act: self.hidden_act(),
            layer_norm_eps: LAYER_NORM_EPS,
            eos_token_id: LEGACY_EOS_TOKEN_ID,
        }
    }

    fn hidden_act(&self) -> HiddenAct {
        if self.quick_gelu { HiddenAct::QuickGelu } else { HiddenAct::Gelu }
    }
}

impl OpenClipConfig {
    /// CLIP's image tower, if it is not one of timm's.
    pub(super) fn vision(&self) -> VisionConfig {
        let ModelConfig { embed_dim, vision_cfg, .. } = &self.model_cfg;
        VisionConfig {
            hidden_size: vision_cfg.width,
            intermediate_size: (vision_cfg.width as f64 * vision_cfg.mlp_ratio) as usize,
            projection_dim: *embed_dim,
            num_hidden_layers: vision_cfg.layers,
            num_attention_heads: vision_cfg.width / vision_cfg.head_width.max(1),
            num_channels: 3,
            image_size: vision_cfg.image_size,
            patch_size: vision_cfg.patch_size,
            hidden_act: self.model_cfg.hidden_act(),
            layer_norm_eps: LAYER_NORM_EPS,
        }
    }

    /// How images are prepared: to the tower's size with all of it or the middle, in OpenAI's colours if none are given.
    ///
    /// # Errors
    /// If the way to resize is not known.
    #[cfg(feature = "images")]
    pub(crate) fn image_processor(&self) -> Result<crate::image_processor::ImageProcessorConfig> {
        use crate::image_processor::{CropTo, ImageProcessorConfig, ResizeTo};
        let side = u32::try_from(self.model_cfg.vision_cfg.image_size).unwrap_or(u32::MAX);
        let (size, do_center_crop) = match self.preprocess_cfg.resize_mode.as_deref() {
            None | Some("shortest") => (ResizeTo::ShortestEdge { shortest_edge: side }, true),
            Some("squash") => (ResizeTo::Exactly { height: side, width: side }, false),
            Some(other) => {
                let problem = format!("resize_mode is {other:?}, expected \"shortest\" or \"squash\"");
                return Err(Error::config(OPEN_CLIP_CONFIG, problem));
            }
        };
        let defaults = ImageProcessorConfig::default();
        Ok(ImageProcessorConfig {
            size,
            do_center_crop,
            crop_size: CropTo::Exactly { height: side, width: side },
            image_mean: self.preprocess_cfg.mean.unwrap_or(defaults.image_mean),
            image_std: self.preprocess_cfg.std.unwrap_or(defaults.image_std),
            ..defaults
        })
    }
}
