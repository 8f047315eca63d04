//! Embeds texts: tokenizes by the window, and runs the model by the batch.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::Embedder;
use crate::batches::batches;
use crate::dual_encoder::TextPadding;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The window in which texts are grouped by length.
pub(super) const WINDOW: usize = 2048;

/// Token ids of one text, or an error; `None` for a null.
pub(super) type TokenRow = Option<Result<Vec<u32>>>;

/// The outcome of a row: see [`Embedder::embed_into`].
#[derive(Debug)]
pub enum RowOutcome {
    /// Its vector was written.
    Embedded,
    /// There was no text. Its vector is zero.
    Null,
    /// The text could not be embedded. Its vector is zero.
    Failed(Error),
}

/// The ids of each text, truncated to `max_tokens`.
pub(super) fn tokenize<S: AsRef<str> + Sync>(
    tokenizer: &Tokenizer,
    texts: &[Option<S>],
    max_tokens: usize,
) -> Vec<TokenRow> {
    let tokenize = |text: &S| tokenizer.encode_truncated(text.as_ref(), max_tokens);
    texts.par_iter().map(|text| text.as_ref().map(tokenize)).collect()
}

impl Embedder {
    /// Embeds texts, in order: (texts, projection_dim), f32 on the CPU, not normalised; (0, dim) for no texts.
    ///
    /// A text's vector does not depend on its neighbours. Texts are truncated to [`max_tokens`](Self::max_tokens).
    ///
    /// # Errors
    /// If the tokenizer cannot encode a text, or the model fails.
    pub fn embed_texts<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor> {
        let dim = self.projection_dim();
        let mut values = vec![0.; texts.len() * dim];
        for (texts, out) in texts.chunks(WINDOW).zip(values.chunks_mut(WINDOW * dim)) {
            let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_ref())).collect();
            for outcome in self.embed_window(&texts, out) {
                if let RowOutcome::Failed(error) = outcome {
                    return Err(error);
                }
            }
        }
        Ok(Tensor::from_vec(values, (texts.len(), dim), &Device::Cpu)?)
    }

    /// Writes the vector of each text into `out`, (texts, projection_dim) row by row, not normalised, equal to those
    /// of [`embed_texts`](Self::embed_texts), and returns the outcome of each row: for columns with nulls, such as
    /// Arrow's. Texts are not copied.
    ///
    /// A text that cannot be embedded is an outcome in its place, and does not stop the others.
    ///
    /// # Errors
    /// [`Error::Input`] if `out` does not have the length needed. Nothing is written then.
    pub fn embed_into<'t, I>(&self, texts: I, out: &mut [f32]) -> Result<Vec<RowOutcome>>
    where
        I: IntoIterator<Item = Option<&'t str>>,
    {
        let texts: Vec<Option<&str>> = texts.into_iter().collect();
        self.check_buffer(texts.len(), out)?;
        let dim = self.projection_dim();
        let mut outcomes = Vec::with_capacity(texts.len());
        for (texts, out) in texts.chunks(WINDOW).zip(out.chunks_mut(WINDOW * dim)) {
            outcomes.extend(self.embed_window(texts, out));
        }
        Ok(outcomes)
    }

    /// The token ids of each text, with special tokens, truncated to [`max_tokens`](Self::max_tokens); an error for a
    /// text that cannot be encoded.
    pub fn tokenize<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Vec<Result<Vec<u32>>> {
        let tokenize = |text: &S| self.tokenizer.encode_truncated(text.as_ref(), self.max_tokens);
        texts.par_iter().map(tokenize).collect()
    }

    /// Like [`embed_into`](Self::embed_into), from token ids as [`tokenize`](Self::tokenize) returns them.
    ///
    /// Ids that the model does not have, no ids, and more than [`max_tokens`](Self::max_tokens) fail in their place.
    ///
    /// # Errors
    /// [`Error::Input`] if `out` does not have the length needed. Nothing is written then.
    pub fn embed_ids(&self, rows: Vec<Result<Vec<u32>>>, out: &mut [f32]) -> Result<Vec<RowOutcome>> {
        self.check_buffer(rows.len(), out)?;
        let dim = self.projection_dim();
        let mut outcomes = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().map(|row| Some(row.and_then(|ids| self.checked(ids)))).peekable();
        for out in out.chunks_mut(WINDOW * dim) {
            outcomes.extend(self.embed_tokens(rows.by_ref().take(WINDOW).collect(), out));
        }
        Ok(outcomes)
    }

    fn checked(&self, ids: Vec<u32>) -> Result<Vec<u32>> {
        let vocabulary = self.model.properties().vocab_size;
        let problem = if ids.is_empty() || ids.len() > self.max_tokens {
            format!("{} token ids, expected 1 to {}", ids.len(), self.max_tokens)
        } else if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            format!("token id {id}, expected less than {vocabulary}")
        } else {
            return Ok(ids);
        };
        Err(Error::Input(problem))
    }

    fn check_buffer(&self, rows: usize, out: &[f32]) -> Result<()> {
        let dim = self.projection_dim();
        match rows.checked_mul(dim) == Some(out.len()) {
            true => Ok(()),
            false => Err(Error::Input(format!(
                "expected a buffer of {rows} rows × {dim} numbers, found {}",
                out.len()
            ))),
        }
    }

    /// Embeds at most [`WINDOW`] texts.
    fn embed_window(&self, texts: &[Option<&str>], out: &mut [f32]) -> Vec<RowOutcome> {
        self.embed_tokens(tokenize(&self.tokenizer, texts, self.max_tokens), out)
    }

    /// Writes a vector to `out` for each row of tokens, in order.
    pub(super) fn embed_tokens(&self, rows: Vec<TokenRow>, out: &mut [f32]) -> Vec<RowOutcome> {
        out.fill(0.);
        let (mut outcomes, mut places, mut tokens) = (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
        for (place, row) in rows.into_iter().enumerate() {
            outcomes.push(match row {
                None => RowOutcome::Null,
                Some(Err(error)) => RowOutcome::Failed(error),
                Some(Ok(row)) => {
                    places.push(place);
                    tokens.push(row);
                    RowOutcome::Embedded
                }
            });
        }
        let dim = self.projection_dim();
        let padding = self.model.properties().padding;
        let length = |row: &Vec<u32>| if padding == TextPadding::Read { self.max_tokens } else { row.len() };
        let lengths: Vec<usize> = tokens.iter().map(length).collect();
        for batch in batches(&lengths, padding == TextPadding::Skipped) {
            let rows: Vec<&[u32]> = batch.iter().map(|&index| tokens[index].as_slice()).collect();
            match self.encode_tokens(&rows) {
                Ok(vectors) => {
                    for (&index, vector) in batch.iter().zip(vectors.chunks_exact(dim)) {
                        let start = places[index] * dim;
                        out[start..start + dim].copy_from_slice(vector);
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for &index in &batch {
                        outcomes[places[index]] = RowOutcome::Failed(Error::Shared(Arc::clone(&error)));
                    }
                }
            }
        }
        outcomes
    }

    /// The vectors of one batch, concatenated.
    fn encode_tokens(&self, rows: &[&[u32]]) -> Result<Vec<f32>> {
        let encode = || -> Result<Vec<f32>> {
            let encoding = match self.model.properties().padding {
                TextPadding::Read => self.tokenizer.pad(rows, self.max_tokens)?,
                TextPadding::Skipped | TextPadding::Masked => self.tokenizer.pad_rows(rows)?,
            };
            let vectors = self.model.encode_text(&encoding.input_ids, &encoding.attention_mask)?;
            Ok(vectors.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        match self.model.properties().device {
            // On a thread of the pool: another would fall asleep and be woken at each of dozens of operations.
            Device::Cpu => rayon::scope(|_| encode()),
            _ => encode(),
        }
    }
}
