//! Holds the hidden states of prompts.

use candle_core::{DType, Result, Tensor};

use crate::padding::CompactPrompts;

/// Hidden states of a batch of prompts, with padding rows that are equal as a single row.
///
/// Attention over `rows` with `key_bias` added to the scores equals attention over all of [`expand`](Self::expand).
#[derive(Debug, Clone)]
pub struct CompactHiddenStates {
    /// (batch, rows, width); as many rows as the longest prompt needs.
    pub rows: Tensor,
    /// (batch, rows), f32: 0 for a token, ln m for the row that stands for m rows of padding, −∞ for filler rows.
    pub key_bias: Tensor,
    /// How to restore all rows, unless `rows` are all.
    merged: Option<MergedPadding>,
}

#[derive(Debug, Clone)]
struct MergedPadding {
    /// (rows of all prompts, width)
    packed: Tensor,
    prompts: CompactPrompts,
}

impl CompactHiddenStates {
    /// The rows (rows of all prompts, width) of prompts whose padding was merged.
    pub(crate) fn of_merged(prompts: CompactPrompts, packed: Tensor) -> Result<Self> {
        let key_bias = prompts.key_bias(packed.device())?;
        Ok(Self { rows: prompts.padded(&packed)?, key_bias, merged: Some(MergedPadding { packed, prompts }) })
    }

    /// Hidden states (batch, tokens, width) of prompts whose padding rows differ.
    pub(crate) fn of_all(rows: Tensor) -> Result<Self> {
        let (batch, tokens, _) = rows.dims3()?;
        Ok(Self { key_bias: Tensor::zeros((batch, tokens), DType::F32, rows.device())?, rows, merged: None })
    }

    /// All rows, as in the reference implementation: (batch, tokens, width).
    pub fn expand(&self) -> Result<Tensor> {
        match &self.merged {
            Some(MergedPadding { packed, prompts }) => prompts.expand(packed),
            None => Ok(self.rows.clone()),
        }
    }
}
