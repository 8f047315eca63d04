//! Embeds texts that do not fit into memory: tokenizes a window ahead of the model, on a separate thread.

use std::sync::Arc;
use std::vec::IntoIter;

use super::Embedder;
use super::ahead::Ahead;
use super::texts::{RowOutcome, TokenRow, WINDOW, tokenize};
use crate::error::Result;

/// Vectors of rows with keys, from [`Embedder::row_stream`]. It owns its data, and can be sent to another thread.
pub struct RowStream<K> {
    embedder: Embedder,
    windows: Ahead<Vec<(K, TokenRow)>>,
    /// The rest of the current window.
    window: IntoIter<(K, TokenRow)>,
}

impl<K> RowStream<K> {
    /// Writes the vectors of as many rows as fit into `out`, (rows, projection_dim) row by row, and returns each
    /// row's key and outcome, like [`Embedder::embed_into`]. No rows mean the end of the stream.
    ///
    /// Rows go through the model in windows of 2048, or of what fits into `out` if that is less.
    ///
    /// # Panics
    /// If the iterator of rows panics.
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
    /// Buffer for the vectors of a window.
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
    /// Yields the vector of each text, not normalised, equal to those of [`embed_texts`](Self::embed_texts).
    ///
    /// Texts are read and tokenized on a separate thread while the model runs on earlier ones; a few thousand are in
    /// memory. A text that cannot be encoded yields an error in its place, and the stream goes on.
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

    /// Embeds the rows of a column, each with a key, which is returned with its vector, and a text, or `None` for a
    /// null.
    ///
    /// A text is anything that lends a `&str`, and is not copied. Texts are read and tokenized on a separate thread,
    /// a few thousand at a time, while the model runs on earlier ones.
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
