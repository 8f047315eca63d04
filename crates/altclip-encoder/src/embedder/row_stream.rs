//! Embeds texts that do not fit into memory: tokens are made a window ahead of the model, on a thread of their own.

use std::sync::Arc;
use std::vec::IntoIter;

use super::Embedder;
use super::ahead::Ahead;
use super::texts::{RowOutcome, TokenRow, WINDOW, tokenize};
use crate::error::Result;

/// Vectors of rows with keys, from [`Embedder::row_stream`]. It owns all that it needs, and can go to another thread.
pub struct RowStream<K> {
    embedder: Embedder,
    windows: Ahead<Vec<(K, TokenRow)>>,
    /// What is left of the window that was begun.
    window: IntoIter<(K, TokenRow)>,
}

impl<K> RowStream<K> {
    /// Writes the vectors of the next rows into `out`, (rows, projection_dim) row after row, as many as fit, and gives for
    /// each its key and what became of it, as [`Embedder::embed_into`] does. No rows are the end of the stream.
    ///
    /// Rows go through the model by windows of 2048, or by what fits into `out` where that is less.
    ///
    /// # Panics
    /// If the iterator of the rows panics.
    pub fn embed_into(&mut self, mut out: &mut [f32]) -> Vec<(K, RowOutcome)> {
        let dim = self.embedder.projection_dim();
        let mut outcomes = Vec::new();
        while out.len() >= dim {
            if self.window.len() == 0 {
                let Some(window) = self.windows.next() else { break };
                self.window = window.into_iter();
            }
            let (keys, rows): (Vec<K>, Vec<TokenRow>) = self.window.by_ref().take(out.len() / dim).unzip();
            let (written, left) = out.split_at_mut(rows.len() * dim);
            outcomes.extend(keys.into_iter().zip(self.embedder.embed_tokens(rows, written)));
            out = left;
        }
        outcomes
    }
}

/// Vectors of texts, from [`Embedder::text_stream`].
pub struct TextStream {
    rows: RowStream<()>,
    /// Room for the vectors of a window.
    buffer: Vec<f32>,
    ready: IntoIter<Result<Vec<f32>>>,
}

impl Iterator for TextStream {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.len() == 0 {
            let outcomes = self.rows.embed_into(&mut self.buffer);
            let vectors = self.buffer.chunks_exact(self.rows.embedder.projection_dim());
            let results = outcomes.into_iter().zip(vectors).map(|(((), outcome), vector)| match outcome {
                RowOutcome::Embedded | RowOutcome::Null => Ok(vector.to_vec()),
                RowOutcome::Failed(error) => Err(error),
            });
            self.ready = results.collect::<Vec<_>>().into_iter();
        }
        self.ready.next()
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
    pub fn text_stream<I>(&self, texts: I) -> TextStream
    where
        I: Iterator<Item = String> + Send + 'static,
    {
        TextStream {
            rows: self.row_stream(texts.map(|text| ((), Some(text)))),
            buffer: vec![0.; WINDOW * self.projection_dim()],
            ready: Vec::new().into_iter(),
        }
    }

    /// The rows of a column in turn, each a key, which is given back with its vector, and a text, or `None` for a null.
    ///
    /// A text is anything that lends a `&str`, and is not copied. Texts are taken and tokenised on a thread of their own,
    /// a few thousand at a time, while the model works on those before.
    pub fn row_stream<K, T, I>(&self, rows: I) -> RowStream<K>
    where
        K: Send + 'static,
        T: AsRef<str> + Send + Sync,
        I: Iterator<Item = (K, Option<T>)> + Send + 'static,
    {
        let (tokenizer, max_tokens) = (Arc::clone(&self.tokenizer), self.max_tokens);
        let mut rows = rows.fuse();
        let windows = std::iter::from_fn(move || {
            let (keys, texts): (Vec<K>, Vec<Option<T>>) = rows.by_ref().take(WINDOW).unzip();
            let tokens = || tokenize(&tokenizer, &texts, max_tokens);
            (!keys.is_empty()).then(|| keys.into_iter().zip(tokens()).collect())
        });
        RowStream { embedder: self.clone(), windows: Ahead::new(windows), window: Vec::new().into_iter() }
    }
}
