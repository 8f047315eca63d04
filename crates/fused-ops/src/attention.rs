//! Scaled dot-product attention over interleaved heads.

use candle_core::{D, DType, Result, Tensor};

/// `softmax(query · keyᵀ / √head_dim + key_bias) · value` for every head (Vaswani et al., arXiv 1706.03762).
///
/// * `query` is `(batch, queries, heads · head_dim)`, `key` and `value` are `(batch, keys, heads · head_dim)`: just as
///   the projections leave them, with the heads side by side in each row.
/// * `key_bias`, `(batch, keys)`, is added to every score of a key: −∞ hides it, and `ln m` lets one key stand for `m`
///   equal ones. A row in which every key is hidden is undefined.
///
/// The result is `(batch, queries, heads · head_dim)`.
///
/// # Errors
/// If the shapes do not fit together.
pub fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    attention_reference(query, key, value, heads, key_bias)
}

/// The definition, in candle tensors; softmax in f32.
pub(crate) fn attention_reference(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, queries, width) = query.dims3()?;
    let split = |x: &Tensor| -> Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        x.reshape((batch, tokens, heads, width / heads))?.transpose(1, 2)?.contiguous()
    };
    let (query, key, value) = (split(query)?, split(key)?, split(value)?); // (batch, heads, tokens, head_dim)
    let scale = 1. / ((width / heads) as f64).sqrt();
    let scores = (query.matmul(&key.transpose(2, 3)?)? * scale)?.to_dtype(DType::F32)?;
    let scores = match key_bias {
        Some(bias) => scores.broadcast_add(&bias.to_dtype(DType::F32)?.unsqueeze(1)?.unsqueeze(1)?)?,
        None => scores,
    };
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(value.dtype())?;
    weights.matmul(&value)?.transpose(1, 2)?.reshape((batch, queries, width))
}
