//! Encodes texts with one of the text towers that OpenCLIP takes from transformers. The configuration only names them;
//! their weights give their sizes.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use fused_ops::{Activation, Epilogue, Linear};
use model_files::checkpoint::Checkpoint;

use super::super::family::OPEN_CLIP_CONFIG;
use super::super::weight_sizes::WeightSizes;
use super::super::xlm_roberta_sizes::xlm_roberta_config;
use super::config::TextFields;
use crate::error::{Error, Result};
use crate::m2m100::{M2m100Config, M2m100Encoder};
use crate::padding::CompactPrompts;
use crate::xlm_roberta::XlmRobertaModel;

/// Where the tower's weights are.
pub(super) const PREFIX: &str = "text.transformer.";
/// What errors say was expected.
pub(super) const EXPECTED: &str = "an OpenCLIP with XLM-R or NLLB";
/// How XLM-R's states become one.
pub(super) const MEAN_POOLER: &str = "mean_pooler";
/// Channels per head in NLLB's encoders.
const NLLB_HEAD_WIDTH: usize = 64;
/// Id of `<pad>` in both.
const PAD_TOKEN_ID: u32 = 1;

/// `text`.
#[derive(Debug, Clone)]
pub(super) struct TextTower {
    encoder: Encoder,
    projection: Projection,
    pub vocab_size: usize,
    pub max_tokens: usize,
}

#[derive(Debug, Clone)]
enum Encoder {
    /// Its states are averaged.
    XlmRoberta(XlmRobertaModel),
    /// The state of the first token, which names the language, is taken.
    Nllb(M2m100Encoder),
}

impl TextTower {
    /// Reads `text.transformer.*` and `text.proj.*` under `vb`, for vectors of `dim` values.
    ///
    /// # Errors
    /// If the tower is not known, or a weight is missing or has another shape.
    pub(super) fn new(
        fields: &TextFields,
        dim: usize,
        checkpoint: &Checkpoint,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let (weights, projection) = (vb.pp("text.transformer"), vb.pp("text.proj"));
        if is_nllb(checkpoint) {
            fields.check_pooler("cls_pooler")?;
            let config = nllb_config(checkpoint, fields.context_length)?;
            return Ok(Self {
                encoder: Encoder::Nllb(M2m100Encoder::new(&config, weights)?),
                projection: Projection::new(config.hidden_size, dim, &projection)?,
                vocab_size: config.vocab_size,
                max_tokens: config.max_tokens,
            });
        }
        fields.check_pooler(MEAN_POOLER)?;
        let config = xlm_roberta_config(checkpoint, PREFIX, EXPECTED)?;
        Ok(Self {
            encoder: Encoder::XlmRoberta(XlmRobertaModel::new(&config, weights)?),
            projection: Projection::new(config.hidden_size, dim, &projection)?,
            vocab_size: config.vocab_size,
            max_tokens: fields.context_length.min(config.max_tokens()),
        })
    }

    /// (texts, dim)
    pub(super) fn forward(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), PAD_TOKEN_ID)?;
        let prompts = prompts.without_hidden_padding();
        let pooled = match &self.encoder {
            Encoder::XlmRoberta(model) => prompts.mean_rows(&model.encode(&prompts)?)?,
            Encoder::Nllb(model) => prompts.first_rows(&model.encode(&prompts)?)?,
        };
        Ok(self.projection.forward(&pooled)?)
    }

    /// (texts, tokens, hidden_size)
    pub(super) fn hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let prompts = CompactPrompts::new(input_ids, Some(attention_mask), PAD_TOKEN_ID)?;
        let rows = match &self.encoder {
            Encoder::XlmRoberta(model) => model.encode(&prompts)?,
            Encoder::Nllb(model) => model.encode(&prompts)?,
        };
        Ok(prompts.expand(&rows)?)
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
