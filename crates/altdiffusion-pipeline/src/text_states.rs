//! Encodes texts to the hidden states that a UNet attends to.

use altclip_encoder::conditioner::{CompactHiddenStates, Conditioner};
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device, Tensor};
use model_files::candle_error;

use crate::cancellation::Cancellation;
use crate::prompt::chunks;
use crate::{Error, Result};

/// The hidden states of texts, (texts, rows, width), with a bias per row for its scores as an attention key.
///
/// A row may stand for several equal ones: a prompt's padding is one row, repeated. The bias, (texts, rows), is 0 for
/// a token, ln m for a row that stands for m, and −∞ for an unused row.
#[derive(Debug, Clone)]
pub struct TextStates {
    hidden_states: Tensor,
    key_bias: Option<Tensor>,
}

impl TextStates {
    /// Encodes each text once, padded and truncated to `tokens` tokens.
    ///
    /// # Errors
    /// If a text cannot be tokenized or encoded.
    pub fn encode(
        tokenizer: &Tokenizer,
        encoder: &dyn Conditioner,
        texts: &[&str],
        tokens: usize,
    ) -> Result<Self> {
        Self::encode_unless(tokenizer, encoder, texts, tokens, &Cancellation::default())
    }

    /// Like [`encode`](Self::encode), but can be cancelled between layers.
    pub(crate) fn encode_unless(
        tokenizer: &Tokenizer,
        encoder: &dyn Conditioner,
        texts: &[&str],
        tokens: usize,
        cancellation: &Cancellation,
    ) -> Result<Self> {
        let encoding = tokenizer.encode_padded(texts, tokens)?;
        let states = compact_states(encoder, &encoding.input_ids, &encoding.attention_mask, cancellation)?;
        Ok(Self { hidden_states: states.rows, key_bias: Some(states.key_bias) })
    }

    /// Encodes each text with its weights, in chunks of `tokens` tokens, concatenated.
    ///
    /// Each token's hidden state is multiplied by its weight, and then the whole chunk is scaled to restore its mean:
    /// stable-diffusion-webui's `EmphasisOriginal`
    /// (<https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/sd_emphasis.py>). A chunk
    /// without weights is left as it is.
    ///
    /// # Errors
    /// If a weight is not a number, or a text cannot be tokenized or encoded.
    pub fn encode_weighted(
        tokenizer: &Tokenizer,
        encoder: &dyn Conditioner,
        texts: &[&str],
        tokens: usize,
    ) -> Result<Self> {
        Self::encode_weighted_unless(tokenizer, encoder, texts, tokens, &Cancellation::default())
    }

    /// Like [`encode_weighted`](Self::encode_weighted), but can be cancelled between layers.
    pub(crate) fn encode_weighted_unless(
        tokenizer: &Tokenizer,
        encoder: &dyn Conditioner,
        texts: &[&str],
        tokens: usize,
        cancellation: &Cancellation,
    ) -> Result<Self> {
        let texts = texts
            .iter()
            .map(|text| Self::encode_chunks(tokenizer, encoder, text, tokens, cancellation))
            .collect::<Result<Vec<_>>>()?;
        Self::stack(&texts)
    }

    /// Encodes one text in chunks.
    fn encode_chunks(
        tokenizer: &Tokenizer,
        encoder: &dyn Conditioner,
        text: &str,
        tokens: usize,
        cancellation: &Cancellation,
    ) -> Result<Self> {
        let chunks = chunks(tokenizer, text, tokens)?;
        let padded = |values: &[u32], with: u32| -> Vec<u32> {
            values.iter().copied().chain(std::iter::repeat(with)).take(tokens).collect()
        };
        let ids: Vec<u32> = chunks.iter().flat_map(|chunk| padded(&chunk.ids, tokenizer.pad_id())).collect();
        let mask: Vec<u32> = chunks.iter().flat_map(|chunk| padded(&vec![1; chunk.ids.len()], 0)).collect();
        let shape = (chunks.len(), tokens);
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let states = compact_states(encoder, &ids, &mask, cancellation)?;
        let rows = chunks
            .iter()
            .enumerate()
            .map(|(index, chunk)| {
                let (rows, key_bias) = (states.rows.get(index)?, states.key_bias.get(index)?);
                if chunk.is_plain() { Ok(rows) } else { weighted(&rows, &key_bias, &chunk.weights) }
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            hidden_states: Tensor::cat(&rows, 0)?.unsqueeze(0)?,
            key_bias: Some(states.key_bias.flatten_all()?.unsqueeze(0)?),
        })
    }

    /// Stacks texts. Shorter ones get unused rows.
    fn stack(texts: &[Self]) -> Result<Self> {
        let longest =
            texts.iter().map(|text| text.hidden_states.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
        let longest = longest.into_iter().max().unwrap_or(0);
        let (mut rows, mut biases) = (Vec::with_capacity(texts.len()), Vec::with_capacity(texts.len()));
        for text in texts {
            let missing = longest - text.hidden_states.dim(1)?;
            rows.push(text.hidden_states.pad_with_zeros(1, 0, missing)?);
            let bias = match &text.key_bias {
                Some(bias) => bias.clone(),
                None => {
                    Tensor::zeros((text.texts(), longest - missing), DType::F32, text.hidden_states.device())?
                }
            };
            // A GPU cannot fill an empty tensor.
            biases.push(match missing {
                0 => bias,
                _ => {
                    let unseen = Tensor::full(f32::NEG_INFINITY, (text.texts(), missing), bias.device())?;
                    Tensor::cat(&[bias, unseen], 1)?
                }
            });
        }
        Ok(Self { hidden_states: Tensor::cat(&rows, 0)?, key_bias: Some(Tensor::cat(&biases, 0)?) })
    }

    /// Wraps hidden states (texts, tokens, width) from elsewhere. Every row is attended to.
    ///
    /// # Errors
    /// If they do not have three dimensions.
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

    /// The rows, (texts, rows, width).
    pub fn hidden_states(&self) -> &Tensor {
        &self.hidden_states
    }

    /// The biases of the rows, (texts, rows), unless all are 0.
    pub fn key_bias(&self) -> Option<&Tensor> {
        self.key_bias.as_ref()
    }

    /// Appends `others`.
    ///
    /// # Errors
    /// If their widths differ.
    pub fn and(&self, others: &Self) -> Result<Self> {
        Self::stack(&[self.clone(), others.clone()])
    }

    /// Repeats a single text `texts` times; leaves several as they are.
    pub(crate) fn for_each_of(&self, texts: usize) -> Result<Self> {
        if self.texts() == 1 { self.repeat_each(texts) } else { Ok(self.clone()) }
    }

    /// The number of texts.
    pub fn texts(&self) -> usize {
        self.hidden_states.dims().first().copied().unwrap_or(0)
    }

    /// The second half of a guided batch's texts: the conditional one.
    pub(crate) fn conditioned_half(&self) -> Result<Self> {
        let half = self.texts() / 2;
        let second = |tensor: &Tensor| tensor.narrow(0, half, half)?.contiguous();
        Ok(Self {
            hidden_states: second(&self.hidden_states)?,
            key_bias: self.key_bias.as_ref().map(second).transpose()?,
        })
    }

    /// Repeats each text `times` times.
    pub(crate) fn repeat_each(&self, times: usize) -> Result<Self> {
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

/// Encodes tokens; can be cancelled between layers.
fn compact_states(
    encoder: &dyn Conditioner,
    ids: &Tensor,
    mask: &Tensor,
    cancellation: &Cancellation,
) -> Result<CompactHiddenStates> {
    let proceed = || cancellation.check().map_err(candle_error::carry);
    Ok(encoder.encode_compact_while(ids, mask, &proceed)?)
}

/// Multiplies the rows (rows, width) of a chunk by their tokens' weights, and restores the mean over all tokens. A
/// row counts as many times as its bias says.
fn weighted(rows: &Tensor, key_bias: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let counts = key_bias.to_dtype(DType::F32)?.exp()?.unsqueeze(1)?; // (rows, 1)
    let count = rows.dim(0)?;
    let weights: Vec<f32> = weights.iter().copied().chain(std::iter::repeat(1.0)).take(count).collect();
    let weights = Tensor::from_vec(weights, (count, 1), rows.device())?;
    let states = rows.to_dtype(DType::F32)?;
    // Sums over the same number of values have the ratio of the means.
    let sum = |states: &Tensor| states.broadcast_mul(&counts)?.sum_all()?.to_scalar::<f32>();
    let before = sum(&states)?;
    let states = states.broadcast_mul(&weights)?;
    let scale = f64::from(before) / f64::from(sum(&states)?);
    if !scale.is_finite() {
        return Err(Error::option("prompt", "its weights leave nothing of it, expected some more than 0"));
    }
    Ok((states * scale)?.to_dtype(rows.dtype())?)
}
