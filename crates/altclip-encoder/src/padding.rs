//! Padding in the text towers, and the exact shortcut for XLM-R: what a padded batch of prompts repeats is computed
//! once.
//!
//! All trailing `<pad>` rows of a prompt enter the encoder with the same embedding and attend to the same keys, so
//! they stay the same row in every layer. One of them stands for all: as a key that counts m times it has ln m
//! added to its score, since m · exp(s) = exp(s + ln m), and its output row is repeated where all rows are asked
//! for. A prompt of k tokens needs k + 1 rows however long the padding is.

use candle_core::{Device, Result, Tensor, bail};

/// A batch of prompts without the padding rows that repeat another.
#[derive(Debug, Clone)]
pub(crate) struct CompactPrompts {
    prompts: Vec<Prompt>,
    /// Rows per prompt as they were given.
    full_rows: usize,
    /// Rows per prompt that are computed: those of the longest prompt.
    rows: usize,
}

/// One prompt of the batch.
#[derive(Debug, Clone)]
struct Prompt {
    /// All rows as they were given, `full_rows` of them.
    input_ids: Vec<u32>,
    /// Which keys attention sees; as long as `input_ids`.
    seen: Vec<bool>,
    /// Rows before the trailing padding.
    tokens: usize,
}

impl Prompt {
    fn new(input_ids: Vec<u32>, seen: Vec<bool>, pad_token_id: u32) -> Self {
        // Only rows that are equal as queries and as keys may be merged: same id, same visibility.
        let last = input_ids.last().zip(seen.last()).filter(|&(&id, _)| id == pad_token_id);
        let padding = input_ids.iter().zip(&seen).rev().take_while(|&row| Some(row) == last).count();
        let tokens = input_ids.len() - padding;
        Self { input_ids, seen, tokens }
    }

    /// How many of the given rows the padding row stands for.
    fn padding(&self) -> usize {
        self.input_ids.len() - self.tokens
    }

    /// Rows that have to be computed: the tokens, and one for the padding, if there is any.
    fn needed_rows(&self) -> usize {
        self.tokens + self.padding().min(1)
    }
}

impl CompactPrompts {
    /// * `input_ids` (batch, tokens), u32
    /// * `attention_mask` (batch, tokens), u32: 0 where a key is not to be seen; `None` if all are seen
    ///
    /// # Errors
    /// If the shapes differ, or a mask hides all tokens of a prompt.
    pub fn new(input_ids: &Tensor, attention_mask: Option<&Tensor>, pad_token_id: u32) -> Result<Self> {
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
        let prompts: Vec<Prompt> = input_ids
            .to_vec2::<u32>()?
            .into_iter()
            .zip(seen)
            .map(|(ids, seen)| Prompt::new(ids, seen, pad_token_id))
            .collect();
        let rows = prompts.iter().map(Prompt::needed_rows).max().unwrap_or(0);
        Ok(Self { prompts, full_rows, rows })
    }

    /// How many rows each prompt needs.
    pub fn lengths(&self) -> Vec<usize> {
        self.prompts.iter().map(Prompt::needed_rows).collect()
    }

    /// Rows per prompt that are computed: those of the longest prompt.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Some of the prompts, with no more rows than these need.
    pub fn part(&self, indices: &[usize]) -> Self {
        let prompts: Vec<Prompt> = indices.iter().filter_map(|&i| self.prompts.get(i).cloned()).collect();
        let rows = prompts.iter().map(Prompt::needed_rows).max().unwrap_or(0);
        Self { prompts, full_rows: self.full_rows, rows }
    }

    /// Ids of the rows to compute: (batch, rows), u32, on the CPU.
    pub fn input_ids(&self) -> Result<Tensor> {
        let ids: Vec<u32> =
            self.prompts.iter().flat_map(|p| p.input_ids.iter().take(self.rows).copied()).collect();
        Tensor::from_vec(ids, (self.prompts.len(), self.rows), &Device::Cpu)
    }

    /// Bias of each key inside the encoder: how often it counts, and whether the mask hides it: (batch, rows), f32.
    pub fn self_attention_bias(&self, device: &Device) -> Result<Tensor> {
        self.bias(device, |prompt, row| prompt.seen.get(row).copied().unwrap_or(false))
    }

    /// Bias of each key for a reader that attends to all rows, whatever mask the encoder had:
    /// (batch, rows), f32.
    pub fn key_bias(&self, device: &Device) -> Result<Tensor> {
        self.bias(device, |_, _| true)
    }

    fn bias(&self, device: &Device, seen: impl Fn(&Prompt, usize) -> bool) -> Result<Tensor> {
        let mut bias = Vec::with_capacity(self.prompts.len() * self.rows);
        for prompt in &self.prompts {
            bias.extend((0..self.rows).map(|row| {
                if !seen(prompt, row) {
                    f32::NEG_INFINITY
                } else if row < prompt.tokens {
                    0.
                } else if row == prompt.tokens {
                    (prompt.padding() as f32).ln()
                } else {
                    // Fills the batch up to its longest prompt; the row before the fillers already counts for them.
                    f32::NEG_INFINITY
                }
            }));
        }
        Tensor::from_vec(bias, (self.prompts.len(), self.rows), &Device::Cpu)?.to_device(device)
    }

    /// Repeats each prompt's padding row: (batch, rows, width) → (batch, tokens, width).
    pub fn expand(&self, rows: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = rows.dims3()?;
        let mut index = Vec::with_capacity(batch * self.full_rows);
        for (start, prompt) in self.prompts.iter().enumerate().map(|(i, p)| (i * self.rows, p)) {
            index.extend((0..self.full_rows).map(|row| (start + row.min(prompt.tokens)) as u32));
        }
        let index =
            Tensor::from_vec(index, batch * self.full_rows, &Device::Cpu)?.to_device(rows.device())?;
        rows.reshape((batch * self.rows, width))?.index_select(&index, 0)?.reshape((
            batch,
            self.full_rows,
            width,
        ))
    }
}

/// Bias of each key where padding is computed like any token, for towers whose padding rows differ: 0 where the mask
/// shows a key, −∞ where it hides it: (batch, tokens), f32.
///
/// # Errors
/// If the shapes differ, or the mask hides all tokens of a text.
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

/// Checks that `input_ids` (batch, tokens), u32, are in the vocabulary and have positions.
pub(crate) fn check_ids(input_ids: &Tensor, vocab_size: usize, positions: usize) -> Result<()> {
    let (_, tokens) = input_ids.dims2()?;
    if tokens > positions {
        bail!("a text has {tokens} tokens, and the text tower has positions for {positions}")
    }
    for id in input_ids.contiguous()?.flatten_all()?.to_vec1::<u32>()? {
        if id as usize >= vocab_size {
            bail!("token id {id} is outside the vocabulary of {vocab_size} tokens")
        }
    }
    Ok(())
}
