//! Encodes texts with CLIP's text tower, or with one that OpenCLIP takes from transformers. The configuration only names
//! the latter; their weights give their sizes.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use fused_ops::{Activation, Epilogue, Linear};
use model_files::checkpoint::Checkpoint;

use super::super::TextPadding;
use super::super::family::OPEN_CLIP_CONFIG;
use super::super::weight_sizes::WeightSizes;
use super::super::xlm_roberta_sizes::xlm_roberta_config;
use super::config::{ModelConfig, TextFields};
use super::{clip_text, transposed};
use crate::clip_text::ClipTextModel;
use crate::error::{Error, Result};
use crate::m2m100::{M2m100Config, M2m100Encoder};
use crate::padding::CompactPrompts;
use crate::xlm_roberta::XlmRobertaModel;

/// Where the weights of a tower of transformers are.
pub(super) const PREFIX: &str = "text.transformer.";
/// What errors say was expected.
pub(super) const EXPECTED: &str = "an OpenCLIP with CLIP's text tower, XLM-R or NLLB";
/// How XLM-R's states become one.
pub(super) const MEAN_POOLER: &str = "mean_pooler";
/// Channels per head in NLLB's encoders.
const NLLB_HEAD_WIDTH: usize = 64;
/// Id of `<pad>` in XLM-R and NLLB.
const PAD_TOKEN_ID: u32 = 1;

/// The text tower and its projection.
#[derive(Debug, Clone)]
pub(super) struct TextTower {
    encoder: Encoder,
    projection: Projection,
    pub vocab_size: usize,
    pub max_tokens: usize,
    pub padding: TextPadding,
}

#[derive(Debug, Clone)]
enum Encoder {
    /// The state of the end token is taken.
    Clip(Box<ClipTextModel>),
    /// Its states are averaged.
    XlmRoberta(XlmRobertaModel),
    /// The state of the first token, which names the language, is taken.
    Nllb(M2m100Encoder),
}

impl TextTower {
    /// Reads CLIP's text tower and `text_projection` in `checkpoint`, or `text.transformer.*` and `text.proj.*` under
    /// `vb`, which has the same weights.
    ///
    /// # Errors
    /// If the tower is not known, or a weight is missing or has another shape.
    pub(super) fn new(model: &ModelConfig, checkpoint: &Checkpoint, vb: &VarBuilder) -> Result<Self> {
        let (fields, dim) = (&model.text_cfg, model.embed_dim);
        if let Some(prefix) = clip_text::prefix(checkpoint) {
            let (config, dtype, device) = (clip_text::config(model)?, vb.dtype(), vb.device());
            let weights = clip_text::weights(checkpoint, prefix).var_builder(dtype, device)?;
            let projection = format!("{prefix}text_projection");
            let projection = transposed(checkpoint, &projection, [config.hidden_size, dim], dtype, device)?;
            return Ok(Self {
                encoder: Encoder::Clip(Box::new(ClipTextModel::new(&config, weights)?)),
                projection: Projection::Linear(Linear::new(config.hidden_size, dim, false, projection)?),
                vocab_size: config.vocab_size,
                max_tokens: config.max_position_embeddings,
                padding: TextPadding::Masked,
            });
        }
        let (weights, projection) = (vb.pp("text.transformer"), vb.pp("text.proj"));
        if is_nllb(checkpoint) {
            fields.check_pooler("cls_pooler")?;
            let config = nllb_config(checkpoint, fields.context_length)?;
            return Ok(Self {
                encoder: Encoder::Nllb(M2m100Encoder::new(&config, weights)?),
                projection: Projection::new(config.hidden_size, dim, &projection)?,
                vocab_size: config.vocab_size,
                max_tokens: config.max_tokens,
                padding: TextPadding::Skipped,
            });
        }
        fields.check_pooler(MEAN_POOLER)?;
        let config = xlm_roberta_config(checkpoint, PREFIX, EXPECTED)?;
        Ok(Self {
            encoder: Encoder::XlmRoberta(XlmRobertaModel::new(&config, weights)?),
            projection: Projection::new(config.hidden_size, dim, &projection)?,
            vocab_size: config.vocab_size,
            max_tokens: fields.context_length.min(config.max_tokens()),
            padding: TextPadding::Skipped,
        })
    }

    /// (texts, dim)
    pub(super) fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = || {
            let prompts = CompactPrompts::new(input_ids, Some(attention_mask), PAD_TOKEN_ID)?;
            Ok::<_, Error>(prompts.without_hidden_padding())
        };
        let pooled = match &self.encoder {
            Encoder::Clip(model) => model.forward(input_ids, attention_mask)?,
            Encoder::XlmRoberta(model) => {
                let prompts = prompts()?;
                prompts.mean_rows(&model.encode(&prompts)?)?
            }
            Encoder::Nllb(model) => {
                let prompts = prompts()?;
                prompts.first_rows(&model.encode(&prompts)?)?
            }
        };
        Ok(self.projection.forward(&pooled)?)
    }

    /// (texts, tokens, hidden_size)
    pub(super) fn hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = || CompactPrompts::new(input_ids, Some(attention_mask), PAD_TOKEN_ID);
        Ok(match &self.encoder {
            Encoder::Clip(model) => model.hidden_states(input_ids, attention_mask)?,
            Encoder::XlmRoberta(model) => {
                let prompts = prompts()?;
                prompts.expand(&model.encode(&prompts)?)?
            }
            Encoder::Nllb(model) => {
                let prompts = prompts()?;
                prompts.expand(&model.encode(&prompts)?)?
            }
        })
    }
}

impl TextFields {
    /// Checks that a text's states become one in the way of its tower.
    pub(super) fn check_pooler(&self, expected: &str) -> Result<()> {
        match self.hf_pooler_type.as_deref() {
            Some(found) if found != expected => Err(Error::config(
                OPEN_CLIP_CONFIG,
                format!("hf_pooler_type is {found:?}, expected {expected:?} for this text tower"),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether the text tower is NLLB's.
pub(super) fn is_nllb(checkpoint: &Checkpoint) -> bool {
    checkpoint.contains(&format!("{PREFIX}embed_tokens.weight"))
}

fn nllb_config(checkpoint: &Checkpoint, context_length: usize) -> Result<M2m100Config> {
    let sizes = WeightSizes::new(checkpoint, "an OpenCLIP with NLLB");
    let hidden_size = sizes.of(&format!("{PREFIX}embed_tokens.weight"), 1)?;
    let config = M2m100Config {
        vocab_size: sizes.of(&format!("{PREFIX}embed_tokens.weight"), 0)?,
        hidden_size,
        intermediate_size: sizes.of(&format!("{PREFIX}layers.0.fc1.weight"), 0)?,
        num_hidden_layers: sizes.layers(&format!("{PREFIX}layers.")),
        num_attention_heads: hidden_size / NLLB_HEAD_WIDTH,
        max_tokens: context_length,
        pad_token_id: PAD_TOKEN_ID,
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    Ok(config)
}

/// What follows the encoder.
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
