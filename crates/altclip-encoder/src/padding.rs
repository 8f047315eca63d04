//! Removes repeated padding from a batch of prompts, exactly for XLM-R, and masks padding for the other text towers.
//!
//! All trailing `<pad>` rows of a prompt enter the encoder with the same embedding and attend to the same keys, so
//! they stay equal in every layer. One of them stands for all: as a key that counts m times it gets ln m added to its
//! score, since m · exp(s) = exp(s + ln m), and its output row is repeated if all rows are needed. A prompt of k
//! tokens needs k + 1 rows, however long its padding.

use candle_core::{Device, Result, Tensor, bail};
use fused_ops::Sequences;

/// The most rows that go through a model at a time, to save memory, if there are several prompts.
const ROWS_AT_A_TIME: usize = 4096;

/// A batch of prompts without repeated padding rows; the remaining rows are concatenated, whatever the prompts'
/// lengths.
#[derive(Debug, Clone)]
pub(crate) struct CompactPrompts {
    prompts: Vec<CompactPrompt>,
    /// Rows per prompt before compaction.
    full_rows: usize,
}

/// One prompt of the batch.
#[derive(Debug, Clone)]
struct CompactPrompt {
    /// The rows to compute: the tokens, and one for padding, if there is any.
    input_ids: Vec<u32>,
    /// Which keys are visible; as long as `input_ids`.
    seen: Vec<bool>,
    /// Rows before the trailing padding.
    tokens: usize,
    /// The number of padding rows.
    padding: usize,
}

impl CompactPrompt {
    fn new(mut input_ids: Vec<u32>, mut seen: Vec<bool>, pad_token_id: u32) -> Self {
        // Only rows that are equal as queries and as keys may be merged: same id, same visibility.
        let last = input_ids.last().zip(seen.last()).filter(|&(&id, _)| id == pad_token_id);
        let padding = input_ids.iter().zip(&seen).rev().take_while(|&row| Some(row) == last).count();
        let tokens = input_ids.len() - padding;
        input_ids.truncate(tokens + 1);
        seen.truncate(tokens + 1);
        Self { input_ids, seen, tokens, padding }
    }

    fn rows(&self) -> usize {
        self.input_ids.len()
    }

    /// The bias of a key's scores: ln m for a padding row that stands for m.
    fn bias(&self, row: usize) -> f32 {
        if row < self.tokens { 0. } else { (self.padding as f32).ln() }
    }
}

impl CompactPrompts {
    /// * `input_ids` (batch, tokens), u32
    /// * `attention_mask` (batch, tokens), u32: 0 for a masked key; `None` if all are visible
    ///
    /// # Errors
    /// If the shapes differ, or a mask hides a whole prompt.
    pub(crate) fn new(
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        pad_token_id: u32,
    ) -> Result<Self> {
        let (batch, full_rows) = input_ids.dims2()?;
        let seen: Vec<Vec<bool>> = match attention_mask {
            None => vec![vec![true; full_rows]; batch],
            Some(mask) if mask.dims() == input_ids.dims() => {
                let mask = mask.to_vec2::<u32>()?;
                mask.iter().map(|row| row.iter().map(|&m| m != 0).collect()).collect()
            }
            Some(mask) => {
                bail!(
                    "the attention mask has shape {:?}, expected that of the ids, {:?}",
                    mask.dims(),
                    input_ids.dims()
                )
            }
        };
        if let Some(index) = seen.iter().position(|row| !row.iter().any(|&seen| seen)) {
            bail!("the attention mask hides every token of prompt {index}")
        }
        let prompts = input_ids
            .to_vec2::<u32>()?
            .into_iter()
            .zip(seen)
            .map(|(ids, seen)| CompactPrompt::new(ids, seen, pad_token_id))
            .collect();
        Ok(Self { prompts, full_rows })
    }

    /// Drops padding rows that no token attends to, for callers that do not need their outputs.
    pub(crate) fn without_hidden_padding(mut self) -> Self {
        for prompt in &mut self.prompts {
            if prompt.seen.get(prompt.tokens) == Some(&false) {
                prompt.input_ids.truncate(prompt.tokens);
                prompt.seen.truncate(prompt.tokens);
            }
        }
        self
    }

    /// Rows of the longest prompt.
    fn longest(&self) -> usize {
        self.prompts.iter().map(CompactPrompt::rows).max().unwrap_or(0)
    }

    /// Splits the batch into parts that go through a model one at a time; at least one.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let mut parts = vec![Self { prompts: Vec::new(), full_rows: self.full_rows }];
        let mut rows = 0;
        for prompt in &self.prompts {
            rows += prompt.rows();
            match parts.last_mut() {
                Some(part) if rows <= ROWS_AT_A_TIME || part.prompts.is_empty() => {
                    part.prompts.push(prompt.clone());
                }
                _ => {
                    rows = prompt.rows();
                    parts.push(Self { prompts: vec![prompt.clone()], full_rows: self.full_rows });
                }
            }
        }
        parts
    }

    /// Ids of the rows to compute.
    pub(crate) fn input_ids(&self) -> Vec<u32> {
        self.prompts.iter().flat_map(|prompt| &prompt.input_ids).copied().collect()
    }

    /// The lengths of the prompts, and the weights of keys inside the encoder, if the mask shows them.
    pub(crate) fn sequences(&self, device: &Device) -> Result<Sequences> {
        let lengths = self.prompts.iter().map(CompactPrompt::rows).collect();
        let of_prompt = |prompt: &CompactPrompt| {
            let seen = prompt.seen.iter().enumerate();
            let bias = seen.map(|(row, &seen)| if seen { prompt.bias(row) } else { f32::NEG_INFINITY });
            bias.collect::<Vec<_>>()
        };
        let bias: Vec<f32> = self.prompts.iter().flat_map(of_prompt).collect();
        let bias = match bias.iter().any(|&bias| bias != 0.) {
            true => Some(Tensor::new(bias, &Device::Cpu)?),
            false => None,
        };
        Sequences::new(lengths, bias.as_ref(), device)
    }

    /// The bias of each key for a reader that attends to all rows, whatever mask the encoder had: (batch, rows), f32.
    pub(crate) fn key_bias(&self, device: &Device) -> Result<Tensor> {
        let longest = self.longest();
        let of_prompt = |prompt: &CompactPrompt| {
            // The row before the filler rows already counts for them.
            let bias = (0..longest)
                .map(|row| if row < prompt.rows() { prompt.bias(row) } else { f32::NEG_INFINITY });
            bias.collect::<Vec<_>>()
        };
        let bias: Vec<f32> = self.prompts.iter().flat_map(of_prompt).collect();
        Tensor::from_vec(bias, (self.prompts.len(), longest), &Device::Cpu)?.to_device(device)
    }

    /// The row of `<s>` of each prompt: (rows, width) → (batch, width).
    pub(crate) fn first_rows(&self, rows: &Tensor) -> Result<Tensor> {
        self.gather(rows, 1, |_, row| row)?.squeeze(1)
    }

    /// The mean of each prompt's visible rows: (rows, width) → (batch, width), in the rows' dtype.
    pub(crate) fn mean_rows(&self, rows: &Tensor) -> Result<Tensor> {
        let longest = self.longest();
        let of_prompt = |prompt: &CompactPrompt| {
            let count = prompt.seen.iter().filter(|seen| **seen).count();
            let weight = move |seen: Option<&bool>| if seen == Some(&true) { 1. / count as f32 } else { 0. };
            (0..longest).map(|row| weight(prompt.seen.get(row))).collect::<Vec<_>>()
        };
        let weights: Vec<f32> = self.prompts.iter().flat_map(of_prompt).collect();
        let weights = Tensor::from_vec(weights, (self.prompts.len(), 1, longest), &Device::Cpu)?;
        let weights = weights.to_device(rows.device())?.to_dtype(rows.dtype())?;
        weights.matmul(&self.padded(rows)?)?.squeeze(1)
    }

    /// Pads every prompt to the rows of the longest: (rows, width) → (batch, rows, width). Filler rows repeat the
    /// last one, and have a [bias](Self::key_bias) that masks them.
    pub(crate) fn padded(&self, rows: &Tensor) -> Result<Tensor> {
        self.gather(rows, self.longest(), |prompt, row| row.min(prompt.rows() - 1))
    }

    /// Restores every original row, repeating the padding's: (rows, width) → (batch, tokens, width).
    pub(crate) fn expand(&self, rows: &Tensor) -> Result<Tensor> {
        self.gather(rows, self.full_rows, |prompt, row| row.min(prompt.tokens))
    }

    /// Gathers `count` rows of each prompt, with indices from `row`.
    fn gather(
        &self,
        rows: &Tensor,
        count: usize,
        row: impl Fn(&CompactPrompt, usize) -> usize,
    ) -> Result<Tensor> {
        let (_, width) = rows.dims2()?;
        let mut index = Vec::with_capacity(self.prompts.len() * count);
        let mut first = 0;
        for prompt in &self.prompts {
            index.extend((0..count).map(|place| (first + row(prompt, place)) as u32));
            first += prompt.rows();
        }
        let index = Tensor::new(index, rows.device())?;
        rows.index_select(&index, 0)?.reshape((self.prompts.len(), count, width))
    }
}

/// The bias of each key for towers that compute padding like any token, because their padding rows differ: 0 for a
/// visible key, −∞ for a masked one: (batch, tokens), f32.
///
/// # Errors
/// If the shapes differ, or the mask hides a whole text.
pub(crate) fn hidden_key_bias(
    input_ids: &Tensor,
    attention_mask: &Tensor,
    device: &Device,
) -> Result<Tensor> {
    let shape = input_ids.dims2()?;
    if attention_mask.dims() != input_ids.dims() {
        bail!(
            "the attention mask has shape {:?}, expected that of the ids, {:?}",
            attention_mask.dims(),
            input_ids.dims()
        )
    }
    let mask = attention_mask.to_vec2::<u32>()?;
    if let Some(index) = mask.iter().position(|row| row.iter().all(|&m| m == 0)) {
        bail!("the attention mask hides every token of text {index}")
    }
    let bias = mask.iter().flatten().map(|&m| if m == 0 { f32::NEG_INFINITY } else { 0. });
    Tensor::from_vec(bias.collect(), shape, &Device::Cpu)?.to_device(device)
}

/// The mean of each text's visible rows: `hidden` (batch, tokens, width) → (batch, width), in its dtype.
///
/// * `attention_mask` (batch, tokens), u32, on any device: 0 for a masked row
pub(crate) fn mean_of_seen(hidden: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
    let weights: Vec<Vec<f32>> = attention_mask
        .to_vec2::<u32>()?
        .iter()
        .map(|row| {
            let count = row.iter().filter(|&&m| m != 0).count();
            row.iter().map(|&m| if m == 0 { 0. } else { 1. / count as f32 }).collect()
        })
        .collect();
    let weights = Tensor::new(weights, hidden.device())?.to_dtype(hidden.dtype())?.unsqueeze(1)?;
    weights.matmul(hidden)?.squeeze(1)
}

/// The ids of texts, concatenated; `input_ids` is (batch, tokens), u32, on any device.
///
/// # Errors
/// If a text has more tokens than there are positions.
pub(crate) fn flat_ids(input_ids: &Tensor, positions: usize) -> Result<Vec<u32>> {
    let (_, tokens) = input_ids.dims2()?;
    if tokens > positions {
        bail!("a text has {tokens} tokens, and the text tower has positions for {positions}")
    }
    input_ids.contiguous()?.flatten_all()?.to_vec1()
}
