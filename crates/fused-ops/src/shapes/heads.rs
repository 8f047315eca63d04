//! Defines which rows attend to which, and with how many heads.

/// The heads of an attention; they are side by side in query, key and value rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) dim: usize,
    /// Whether query i only sees the keys 0 to i.
    pub(crate) causal: bool,
}

impl Heads {
    /// Values of a row.
    pub(crate) fn width(&self) -> usize {
        self.count * self.dim
    }

    /// How many of `keys`, from the first on, the query sees.
    pub(crate) fn seen_keys(&self, keys: usize, query: usize) -> usize {
        if self.causal { keys.min(query + 1) } else { keys }
    }
}

/// A sequence that attends to itself or to another: the rows of its queries and keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) first_query: usize,
    pub(crate) queries: usize,
    pub(crate) first_key: usize,
    pub(crate) keys: usize,
}

impl Span {
    /// Sequences with this many queries and keys each.
    pub(crate) fn batch(batch: usize, queries: usize, keys: usize) -> Vec<Self> {
        let span = |i| Self { first_query: i * queries, queries, first_key: i * keys, keys };
        (0..batch).map(span).collect()
    }

    /// Sequences of these lengths that attend to themselves.
    pub(crate) fn packed(lengths: &[usize]) -> Vec<Self> {
        let mut first = 0;
        let span = |&length: &usize| {
            let span = Self { first_query: first, queries: length, first_key: first, keys: length };
            first += length;
            span
        };
        lengths.iter().map(span).collect()
    }
}
