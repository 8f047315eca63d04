//! Loads dual encoders, which map texts and images to vectors of a joint space, of any supported family.
//!
//! [`load`] recognizes the family from a model's files, and returns a [`DualEncoder`]:
//!
//! | family | text tower | layout |
//! |---|---|---|
//! | AltCLIP, -m9, -m18 | XLM-R, `transformation` | `config.json` with `model_type` `altclip`; or FlagAI's own, `clip` with a text tower of type `xlm-roberta` |
//! | CLIP | CLIP's own | `config.json` with `model_type` `clip` |
//! | Chinese-CLIP | BERT | `config.json` with `model_type` `chinese_clip` |
//! | Taiyi-CLIP | BERT with a classification head | `text_encoder/`: a Taiyi-CLIP repository; its CLIP at the root or
//! in `image_encoder/` |
//! | OpenCLIP, also with XLM-R; NLLB-CLIP | CLIP's own; XLM-R, mean of the tokens; NLLB's encoder | `open_clip_config.json` and OpenCLIP's names |
//! | SigLIP, SigLIP 2 | their own | `config.json` with `model_type` `siglip` |
//! | M-CLIP | XLM-R, mean of the tokens, `LinearTransformation` | `config.json` with `model_type` `M-CLIP`; its CLIP in `image_encoder/` |
//! | sentence-transformers' multilingual CLIP | DistilBERT, mean of the tokens, `linear` | `modules.json`, and `config.json` with `model_type` `distilbert`; its CLIP in `image_encoder/` |
//! | CLIP in sentence-transformers' layout | CLIP's own | `modules.json` and `0_CLIPModel/` |
//! | R2D2, PRD2 | BERT | one `.pth` with the weights under `model`, and `vocab.txt` |
//! | Wukong | CLIP's, with Chinese WordPiece | one `.pkl`, and `vocab_zh.txt` |
//! | AltDiffusion with an image encoder | XLM-R, `transformation` | `text_encoder/` with `pre_LN` and `text_projection`, `image_encoder/` |
//!
//! All have CLIP's image tower but SigLIP, and NLLB-CLIP where it has SigLIP's.

mod alt_diffusion;
mod altclip;
mod chinese_clip;
mod clip;
mod config;
mod distilbert_clip;
mod family;
mod image_encoder;
mod late_interaction;
mod m_clip;
#[cfg(feature = "onnx")]
mod onnx;
mod open_clip;
mod r2d2;
mod ranker;
mod sentence_modules;
mod siglip;
mod taiyi_clip;
mod token_reduction;
mod weight_sizes;
mod wukong;
mod xlm_roberta_sizes;

use candle_core::{DType, Device, Tensor};
use model_files::source::ModelSource;

use crate::error::Result;

pub use self::alt_diffusion::AltDiffusionDualEncoder;
pub use self::altclip::AltClipDualEncoder;
pub use self::chinese_clip::{ChineseClip, ChineseClipConfig};
pub use self::clip::{Clip, ClipConfig};
pub use self::distilbert_clip::DistilBertClip;
pub use self::family::Family;
#[cfg(feature = "images")]
pub(crate) use self::family::OPEN_CLIP_CONFIG;
pub use self::late_interaction::{TextTokens, TokenWise};
pub use self::m_clip::{MClip, MClipConfig};
#[cfg(feature = "onnx")]
pub(crate) use self::onnx::{OnnxTowers, onnx_towers};
pub use self::open_clip::{OpenClip, OpenClipConfig};
pub use self::r2d2::R2d2;
pub use self::ranker::Ranker;
pub use self::siglip::{Siglip, SiglipConfig};
pub use self::taiyi_clip::TaiyiClip;
pub use self::wukong::Wukong;

/// A model that maps texts and images to vectors of a joint space.
pub trait DualEncoder: Send + Sync {
    /// The sizes and types of the model.
    fn properties(&self) -> &Properties;

    /// Text embeddings, not normalised: (texts, projection_dim), in the weights' dtype.
    ///
    /// * `input_ids` (texts, tokens), u32
    /// * `attention_mask` (texts, tokens), u32, 0 at padding; ignored where padding is [read](TextPadding::Read)
    ///
    /// # Errors
    /// If the shapes differ, an id is outside the vocabulary, a text has more tokens than the model has positions, or
    /// the mask hides a whole text.
    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor>;

    /// The state of every token after the tower's last norm or projection, if it has one: (texts, tokens, width).
    /// Rows of padding are meaningless.
    ///
    /// # Errors
    /// Like [`encode_text`](Self::encode_text).
    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor>;

    /// Image embeddings, not normalised: (images, projection_dim), in the weights' dtype.
    ///
    /// * `pixel_values` (images, 3, image_size, image_size), normalised as by
    ///   [`ImageProcessor`](crate::image_processor::ImageProcessor), on any device
    ///
    /// # Errors
    /// If the images have another size.
    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor>;

    /// The model's other part, which ranks pairs, if it has one.
    fn ranker(&self) -> Option<&dyn Ranker> {
        None
    }

    /// The model's vectors of tokens, if it compares these instead of one vector each.
    fn token_wise(&self) -> Option<&dyn TokenWise> {
        None
    }

    /// exp(logit_scale), the factor of cosine similarities.
    fn logit_scale(&self) -> f32 {
        self.properties().logit_scale
    }

    /// Width of the joint space of images and texts.
    fn projection_dim(&self) -> usize {
        self.properties().projection_dim
    }

    /// Side of the image tower's input, in pixels.
    fn image_size(&self) -> usize {
        self.properties().image_size
    }

    /// The longest text in tokens, including special ones.
    fn max_tokens(&self) -> usize {
        self.properties().max_tokens
    }

    /// The device of the weights.
    fn device(&self) -> &Device {
        &self.properties().device
    }

    /// The dtype of the weights. The model computes in f32 on the CPU, and in this type on a GPU.
    fn dtype(&self) -> DType {
        self.properties().dtype
    }
}

/// The sizes and types of a [`DualEncoder`].
#[derive(Debug, Clone)]
pub struct Properties {
    /// exp(logit_scale), the factor of cosine similarities.
    pub logit_scale: f32,
    /// What is added to them, in models that were trained to tell whether a text matches; others tell which one does.
    pub logit_bias: Option<f32>,
    /// Width of the joint space of images and texts.
    pub projection_dim: usize,
    /// Side of the image tower's input, in pixels.
    pub image_size: usize,
    /// The longest text in tokens, including special ones.
    pub max_tokens: usize,
    /// Rows of the token embedding; all ids are smaller.
    pub vocab_size: usize,
    /// The device of the weights.
    pub device: Device,
    /// The dtype of the weights.
    pub dtype: DType,
    /// What the text tower does with padding.
    pub padding: TextPadding,
}

/// What a text tower does with padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPadding {
    /// It is not computed, so that texts of any lengths can share a batch.
    Skipped,
    /// It is computed, and no token sees it.
    Masked,
    /// Tokens see it as in training, so that every text needs [`max_tokens`](DualEncoder::max_tokens).
    Read,
}

/// Loads the dual encoder of `source`, of any supported family, with weights of `dtype` (f32, f16 or bf16).
///
/// # Errors
/// If the family is not supported, or a file is missing, damaged, or contradicts the configuration.
pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Box<dyn DualEncoder>> {
    Ok(match Family::of(source)? {
        Family::AltClip => Box::new(AltClipDualEncoder::load(source, dtype, device)?),
        family @ (Family::Clip | Family::SentenceClip) => {
            Box::new(Clip::load(source, family.tokenizer_folder(), dtype, device)?)
        }
        Family::Siglip => Box::new(Siglip::load(source, dtype, device)?),
        Family::Wukong => Box::new(Wukong::load(source, dtype, device)?),
        Family::R2d2 => Box::new(R2d2::load(source, dtype, device)?),
        Family::MClip => Box::new(MClip::load(source, dtype, device)?),
        Family::DistilBertClip => Box::new(DistilBertClip::load(source, dtype, device)?),
        Family::ChineseClip => Box::new(ChineseClip::load(source, dtype, device)?),
        Family::TaiyiClip => Box::new(TaiyiClip::load(source, dtype, device)?),
        Family::OpenClip => Box::new(OpenClip::load(source, dtype, device)?),
        Family::AltDiffusion => Box::new(AltDiffusionDualEncoder::load(source, dtype, device)?),
    })
}

/// exp(logit_scale), in f32: half precision has fewer than four digits for it.
fn read_logit_scale(checkpoint: &model_files::checkpoint::Checkpoint) -> Result<f32> {
    let scale = checkpoint.var_builder(DType::F32, &Device::Cpu)?.get((), "logit_scale")?;
    Ok(scale.to_scalar::<f32>()?.exp())
}
