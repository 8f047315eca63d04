//! Texts to vectors: tokens by the window, and the model by the batch.

use std::sync::Arc;
use std::vec::IntoIter;

use candle_core::Tensor;
use rayon::prelude::*;

use super::ahead::Ahead;
use super::{Embedder, in_place, vectors};
use crate::batches::batches;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Texts among which those of like lengths are looked for.
pub(super) const WINDOW: usize = 2048;

/// Token ids of one text, or why there are none.
pub(super) type Row = Result<Vec<u32>>;

/// The ids of each text, cut to `max_tokens`.
pub(super) fn tokenize<S: AsRef<str> + Sync>(
    tokenizer: &Tokenizer,
    texts: &[S],
    max_tokens: usize,
) -> Vec<Row> {
    texts.par_iter().map(|text| tokenizer.encode_truncated(text.as_ref(), max_tokens)).collect()
}

/// Vectors of texts, from [`Embedder::text_stream`].
pub struct TextStream<'a> {
    embedder: &'a Embedder,
    windows: Ahead<Vec<Row>>,
    ready: IntoIter<Result<Vec<f32>>>,
}

impl Iterator for TextStream<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(vector) = self.ready.next() {
                return Some(vector);
            }
            self.ready = self.embedder.embed_rows(self.windows.next()?).into_iter();
        }
    }
}

impl Embedder {
    /// The vector of each text in turn, not normalised, as from [`embed_texts`](Self::embed_texts).
    ///
    /// A few thousand texts are in memory at a time, however many there are. The texts are taken and tokenised on a
    /// thread of their own, while the model works on those before. A text that cannot be encoded is an error in its
    /// place, and does not end the stream.
    ///
    /// # Panics
    /// If `texts` panics.
    pub fn text_stream<I>(&self, texts: I) -> TextStream<'_>
    where
        I: Iterator<Item = String> + Send + 'static,
    {
        let (tokenizer, max_tokens) = (Arc::clone(&self.tokenizer), self.max_tokens);
        let mut texts = texts.fuse();
        let windows = std::iter::from_fn(move || {
            let window: Vec<String> = texts.by_ref().take(WINDOW).collect();
            (!window.is_empty()).then(|| tokenize(&tokenizer, &window, max_tokens))
        });
        TextStream { embedder: self, windows: Ahead::new(windows), ready: Vec::new().into_iter() }
    }

    /// A vector for each row, in their order.
    pub(super) fn embed_rows(&self, rows: Vec<Row>) -> Vec<Result<Vec<f32>>> {
        let good: Vec<&[u32]> = rows.iter().flatten().map(Vec::as_slice).collect();
        let lengths: Vec<usize> = good.iter().map(|row| row.len()).collect();
        let mut found: Vec<(usize, Result<Vec<f32>>)> = Vec::with_capacity(good.len());
        for batch in batches(&lengths, self.model.properties().packs_texts) {
            let rows: Vec<&[u32]> = batch.iter().filter_map(|&index| good.get(index).copied()).collect();
            found.extend(batch.into_iter().zip(vectors(self.encode_rows(&rows), rows.len())));
        }
        found.sort_unstable_by_key(|&(index, _)| index);
        in_place(rows, found.into_iter().map(|(_, vector)| vector).collect())
    }

    fn encode_rows(&self, rows: &[&[u32]]) -> Result<Tensor> {
        let encoding = self.tokenizer.pad_rows(rows)?;
        self.model.encode_text(&encoding.input_ids, &encoding.attention_mask)
    }
}
