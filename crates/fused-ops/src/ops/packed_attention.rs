//! Computes attention within concatenated sequences of mixed lengths, without padding.

use super::attention::{attention_reference, on_rows};
use super::attention_heads::AttentionHeads;
use crate::shapes::{Heads, Sequences, Span};
use crate::tensors::slices::on_cpu;
use candle_core::{Result, Tensor};

/// Like [`attention`](crate::attention()), within each of several sequences.
///
/// `query`, `key` and `value` are `(rows, heads · head_dim)`, with the rows of all `sequences`; so is the result.
///
/// # Errors
/// If the shapes do not fit together.
pub fn packed_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: impl Into<AttentionHeads>,
    sequences: &Sequences,
) -> Result<Tensor> {
    let AttentionHeads { count: heads, in_bf16 } = heads.into();
    let (rows, width) = query.dims2()?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && key.dims() == query.dims()
        && value.dims() == query.dims()
        && sequences.rows() == rows;
    if !fits {
        candle_core::bail!(
            "packed attention with {heads} heads over sequences of {:?} rows cannot combine query {:?}, key {:?} \
             and value {:?}",
            sequences.lengths(),
            query.dims(),
            key.dims(),
            value.dims()
        );
    }
    if !on_cpu(query) {
        #[cfg(feature = "cuda")]
        if let Some(out) = crate::cuda::ops::packed_attention(query, key, value, heads, sequences)? {
            return Ok(out);
        }
        return packed_attention_reference(query, key, value, heads, sequences);
    }
    // Skip empty sequences: the kernel rejects one without keys.
    let lengths: Vec<usize> = sequences.lengths().iter().copied().filter(|&length| length > 0).collect();
    let heads = Heads { count: heads, dim: width / heads, causal: false };
    on_rows([query, key, value], sequences.key_bias(), (heads, in_bf16), Span::packed(&lengths))
}

/// The definition of [`packed_attention`], in candle tensors; softmax in f32.
///
/// # Errors
/// If the shapes do not fit together.
pub fn packed_attention_reference(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    sequences: &Sequences,
) -> Result<Tensor> {
    let mut first = 0;
    let mut parts = Vec::with_capacity(sequences.lengths().len());
    for &length in sequences.lengths().iter().filter(|&&length| length > 0) {
        let part = |x: &Tensor| x.narrow(0, first, length)?.unsqueeze(0);
        let bias = sequences.key_bias().map(part).transpose()?;
        let out = attention_reference(&part(query)?, &part(key)?, &part(value)?, heads, bias.as_ref())?;
        parts.push(out.squeeze(0)?);
        first += length;
    }
    if parts.is_empty() { Ok(query.clone()) } else { Tensor::cat(&parts, 0) }
}
