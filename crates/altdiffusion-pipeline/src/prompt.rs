//! A prompt, ready for the UNet.

use altclip_encoder::config::parse_json;
use altclip_encoder::source::ModelSource;
use altclip_encoder::text_encoder::{TextEncoder, TextEncoderConfig};
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use crate::unet::{CrossAttentionContext, UNet2DConditionModel};
use crate::{Error, Result};

/// The tokens that a diffusion prompt is padded and cut to, `<s>` and `</s>` counted, where the model does not say.
pub const PROMPT_TOKENS: usize = 77;

/// The tokens that the prompts of a model are padded and cut to: `model_max_length` of its
/// `tokenizer/tokenizer_config.json`, as in diffusers. That is [`PROMPT_TOKENS`] in published models; what the encoder
/// has no positions for counts as not given, since transformers writes a huge number where nothing was set.
///
/// # Errors
/// When the file is there but cannot be read.
pub(crate) fn prompt_tokens(source: &ModelSource, encoder: &TextEncoderConfig) -> Result<usize> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        model_max_length: Option<f64>,
    }

    let Some(file) = source.read_optional("tokenizer/tokenizer_config.json")? else {
        return Ok(PROMPT_TOKENS);
    };
    let config: TokenizerConfig = parse_json(&file)?;
    // Room for `<s>` and `</s>` at least.
    let possible = 2.0..=encoder.encoder.max_tokens() as f64;
    Ok(match config.model_max_length {
        Some(length) if possible.contains(&length) => length as usize,
        _ => PROMPT_TOKENS,
    })
}

/// The hidden states of texts, (texts, rows, width), with the biases of their rows as attention keys.
///
/// A row may stand for many: the padding of a prompt is one row, repeated. The bias, (texts, rows), is 0 for a token,
/// ln m for a row that stands for m, and −∞ for a row that stands for none.
#[derive(Debug, Clone)]
pub struct TextStates {
    hidden_states: Tensor,
    key_bias: Option<Tensor>,
}

impl TextStates {
    /// Encodes each text once, padded and cut to `tokens` tokens. The encoder is on `device`.
    ///
    /// # Errors
    /// When a text cannot be tokenised or encoded.
    pub fn encode(
        tokenizer: &Tokenizer,
        encoder: &TextEncoder,
        texts: &[&str],
        tokens: usize,
        device: &Device,
    ) -> Result<Self> {
        let encoding = tokenizer.encode_padded(texts, tokens)?;
        let input_ids = encoding.input_ids.to_device(device)?;
        let attention_mask = encoding.attention_mask.to_device(device)?;
        let states = encoder.encode_compact(&input_ids, &attention_mask)?;
        Ok(Self { hidden_states: states.rows, key_bias: Some(states.key_bias) })
    }

    /// Hidden states (texts, tokens, width) from anywhere, each row a token that is attended to.
    ///
    /// # Errors
    /// When they do not have three dimensions.
    pub fn from_hidden_states(hidden_states: Tensor) -> Result<Self> {
        if hidden_states.rank() != 3 {
            return Err(Error::Shape {
                tensor: "hidden_states",
                expected: "(texts, tokens, width)".to_owned(),
                found: format!("{:?}", hidden_states.dims()),
            });
        }
        Ok(Self { hidden_states, key_bias: None })
    }

    /// How many texts these are.
    pub fn texts(&self) -> usize {
        self.hidden_states.dims().first().copied().unwrap_or(0)
    }

    /// Text after text, each `times` times.
    fn repeat_each(&self, times: usize) -> Result<Self> {
        let repeat = |tensor: &Tensor| -> candle_core::Result<Tensor> {
            let mut shape = tensor.dims().to_vec();
            shape.insert(1, times);
            tensor.unsqueeze(1)?.broadcast_as(shape)?.flatten(0, 1)?.contiguous()
        };
        Ok(Self {
            hidden_states: repeat(&self.hidden_states)?,
            key_bias: self.key_bias.as_ref().map(repeat).transpose()?,
        })
    }
}

/// What the UNet is told about a batch of pictures, projected to the keys and values of its cross-attentions once for
/// all steps. With guidance, the first half of the batch is the unconditioned one, as in diffusers.
#[derive(Debug, Clone)]
pub struct Prompt {
    context: CrossAttentionContext,
    pictures: usize,
    guided: bool,
}

impl Prompt {
    /// The prompt of `pictures` pictures without guidance, from the states of one text.
    ///
    /// # Errors
    /// When `states` are not of one text, or of another width than the UNet's.
    pub fn conditioned(unet: &UNet2DConditionModel, states: &TextStates, pictures: usize) -> Result<Self> {
        Self::new(unet, states, pictures, false)
    }

    /// The prompt of `pictures` pictures with guidance, from the states of two texts: what to keep away from (the empty
    /// text, if nothing), and what to show.
    ///
    /// # Errors
    /// When `states` are not of two texts, or of another width than the UNet's.
    pub fn guided(unet: &UNet2DConditionModel, states: &TextStates, pictures: usize) -> Result<Self> {
        Self::new(unet, states, pictures, true)
    }

    fn new(unet: &UNet2DConditionModel, states: &TextStates, pictures: usize, guided: bool) -> Result<Self> {
        let texts = if guided { 2 } else { 1 };
        if states.texts() != texts {
            return Err(Error::Shape {
                tensor: "hidden_states",
                expected: format!("({texts}, tokens, width)"),
                found: format!("{:?}", states.hidden_states.dims()),
            });
        }
        let states = states.repeat_each(pictures)?;
        let key_bias = states.key_bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        let context = unet.project_context(&states.hidden_states, key_bias.as_ref())?;
        Ok(Self { context, pictures, guided })
    }

    /// The keys and values, of `pictures` or with guidance twice as many prompts.
    pub fn context(&self) -> &CrossAttentionContext {
        &self.context
    }

    /// How many pictures it is for.
    pub fn pictures(&self) -> usize {
        self.pictures
    }

    /// Whether it has an unconditioned half.
    pub fn is_guided(&self) -> bool {
        self.guided
    }
}
