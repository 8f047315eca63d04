//! Encodes prompts for a UNet with a text encoder, its tokenizer and the length that the model configures.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use crate::conditioner::{CompactHiddenStates, Conditioner, ConditionerConfig};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The folder of a diffusion model's tokenizer.
const TOKENIZER: &str = "tokenizer";
/// The folder of a diffusion model's text encoder.
const TEXT_ENCODER: &str = "text_encoder";

/// Encodes texts to hidden states for the cross-attentions of any UNet.
///
/// ```
/// use altclip_encoder::PromptEncoder;
/// use candle_core::{DType, Device};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
/// let encoder = PromptEncoder::from_pretrained("models/emoji", DType::F32, &Device::Cpu)?; // or "BAAI/AltDiffusion-m9"
/// let prompts = encoder.encode(&["", "一只戴帽子的小狗"])?; // the negative prompt, and what to draw
/// assert_eq!(prompts.hidden_states.dims(), [2, 77, 128]); // what the `forward` of a UNet takes
/// assert_eq!(prompts.truncated, [0, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PromptEncoder {
    tokenizer: Tokenizer,
    text_encoder: Arc<dyn Conditioner>,
    length: usize,
}

/// Hidden states of a batch of prompts, from [`PromptEncoder::encode`].
#[derive(Debug, Clone)]
pub struct EncodedPrompts {
    /// All rows, including padding, as in diffusers: (batch, length, width), in the encoder's dtype. Cross-attention
    /// attends to all of them, without a mask.
    pub hidden_states: Tensor,
    /// The same with each prompt's padding as one row, and a bias that makes it count for all: fewer keys, for a
    /// cross-attention that supports a bias.
    pub compact: CompactHiddenStates,
    /// The number of tokens cut off from each prompt.
    pub truncated: Vec<usize>,
}

impl PromptEncoder {
    /// Loads the text encoder and the tokenizer of the diffusion model called `name`, a directory or a repository on the hub
    /// (see [`ModelSource::open`]), with weights of `dtype` (f32, f16 or bf16).
    ///
    /// # Errors
    /// Like [`from_source`](Self::from_source); also if `name` cannot be a model's.
    pub fn from_pretrained(name: &str, dtype: DType, device: &Device) -> Result<Self> {
        Self::from_source(&ModelSource::open(name)?, dtype, device)
    }

    /// Loads the folders `tokenizer` and `text_encoder` of `source`.
    ///
    /// # Errors
    /// If a file is missing, damaged, or contradicts another.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        // Small files first, so that errors in them come before the weights are read.
        let tokenizer = Tokenizer::from_source(source, TOKENIZER)?;
        let config = ConditionerConfig::read(&source.read(&format!("{TEXT_ENCODER}/config.json"))?)?;
        let weights = Checkpoint::open(source, TEXT_ENCODER)?.var_builder(dtype, device)?;
        Ok(Self::new(tokenizer, config.build(weights)?))
    }

    /// Joins a text encoder with its tokenizer.
    pub fn new(tokenizer: Tokenizer, text_encoder: Arc<dyn Conditioner>) -> Self {
        let spec = text_encoder.spec();
        Self {
            length: tokenizer.prompt_length(spec.max_tokens),
            tokenizer: tokenizer.with_embedding_rows(spec.vocab_size),
            text_encoder,
        }
    }

    /// Sets the length of prompts in tokens, including special ones.
    ///
    /// # Errors
    /// [`Error::Input`] if that leaves no room for a text, or exceeds the encoder's positions.
    pub fn with_length(self, length: usize) -> Result<Self> {
        let most = self.text_encoder.spec().max_tokens;
        if !(2..=most).contains(&length) {
            return Err(Error::Input(format!(
                "prompt length: expected 2 to {most} tokens, which the text encoder has positions for, found {length}"
            )));
        }
        Ok(Self { length, ..self })
    }

    /// Takes the hidden states from `count` layers before the one used in training ("clip skip").
    ///
    /// # Errors
    /// [`Error::Input`] if fewer than one layer would be left.
    pub fn skipping_layers(self, count: usize) -> Result<Self> {
        Ok(Self { text_encoder: self.text_encoder.skipping_layers(count)?, ..self })
    }

    /// The length that prompts are padded and truncated to, including special tokens: as the model configures it, 77
    /// in published ones.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Width of the hidden states: the UNet's `cross_attention_dim`.
    pub fn width(&self) -> usize {
        self.text_encoder.spec().width
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text encoder.
    pub fn text_encoder(&self) -> &Arc<dyn Conditioner> {
        &self.text_encoder
    }

    /// Encodes prompts. For guidance, pass the negative prompts first (the empty text if there is none).
    ///
    /// # Errors
    /// If there are no prompts, or one cannot be tokenized or encoded.
    pub fn encode<S: AsRef<str>>(&self, prompts: &[S]) -> Result<EncodedPrompts> {
        if prompts.is_empty() {
            return Err(Error::Input("expected at least one prompt, found none".to_owned()));
        }
        let (mut rows, mut truncated) =
            (Vec::with_capacity(prompts.len()), Vec::with_capacity(prompts.len()));
        for prompt in prompts {
            let mut ids = self.tokenizer.encode(prompt.as_ref())?;
            truncated.push(self.tokenizer.cut(&mut ids, self.length));
            rows.push(ids);
        }
        let encoding = self.tokenizer.pad(&rows, self.length)?;
        let compact = self.text_encoder.encode_compact(&encoding.input_ids, &encoding.attention_mask)?;
        Ok(EncodedPrompts { hidden_states: compact.expand()?, compact, truncated })
    }
}
