//! Computes scaled dot-product attention over interleaved heads.

use super::attention_heads::AttentionHeads;
use crate::cpu::attention as kernel;
use crate::cpu::attention_gradient::{AttentionInputs, attention_gradients};
use crate::cpu::bf16::{self, Engine};
use crate::shapes::{Heads, Span};
use crate::tensors::slices::{as_f32, gradient, on_cpu, slice, with_slices};
use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor};

/// `softmax(query · keyᵀ / √head_dim + key_bias) · value` for every head (Vaswani et al., arXiv 1706.03762).
///
/// * `query` is `(batch, queries, heads · head_dim)`, `key` and `value` are `(batch, keys, heads · head_dim)`, with
///   the heads side by side in each row, as projections return them.
/// * `key_bias`, `(batch, keys)`, is added to every score of a key: −∞ masks it, and `ln m` makes one key stand for
///   `m` equal ones. A row whose keys are all masked is undefined.
///
/// Returns `(batch, queries, heads · head_dim)`.
///
/// # Errors
/// If the shapes do not fit together.
pub fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: impl Into<AttentionHeads>,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    masked_attention(query, key, value, heads.into(), key_bias, false)
}

/// Like [`attention`], but query i only sees the keys 0 to i (the decoder of Vaswani et al.; CLIP's text tower).
///
/// # Errors
/// If the shapes do not fit together.
pub fn causal_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: impl Into<AttentionHeads>,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    masked_attention(query, key, value, heads.into(), key_bias, true)
}

fn masked_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: AttentionHeads,
    key_bias: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let AttentionHeads { count: heads, in_bf16 } = heads;
    let (batch, queries, width) = query.dims3()?;
    let keys = key.dim(1)?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && key.dims() == [batch, keys, width]
        && value.dims() == key.dims()
        && key_bias.is_none_or(|bias| bias.dims() == [batch, keys]);
    if !fits {
        candle_core::bail!(
            "attention with {heads} heads cannot combine query {:?}, key {:?}, value {:?} and key bias {:?}",
            query.dims(),
            key.dims(),
            value.dims(),
            key_bias.map(Tensor::dims)
        );
    }
    if !on_cpu(query) {
        #[cfg(feature = "cuda")]
        if let Some(out) = crate::cuda::ops::attention(query, key, value, heads, key_bias, causal)? {
            return Ok(out);
        }
        return masked_reference(query, key, value, heads, key_bias, causal);
    }
    let heads = Heads { count: heads, dim: width / heads, causal };
    on_rows([query, key, value], key_bias, (heads, in_bf16), Span::batch(batch, queries, keys))
}

/// Runs the CPU kernel on the spans' rows, which are contiguous in the tensors.
pub(crate) fn on_rows(
    [query, key, value]: [&Tensor; 3],
    key_bias: Option<&Tensor>,
    (heads, in_bf16): (Heads, bool),
    spans: Vec<Span>,
) -> Result<Tensor> {
    /// With fewer keys, rounding costs as much as bf16 saves.
    const LEAST_KEYS: usize = 128;
    let is_trained = [query, key, value].into_iter().any(Tensor::track_op);
    let has_many_keys = spans.iter().any(|span| span.keys >= LEAST_KEYS);
    let engine = if in_bf16 && has_many_keys && !is_trained { bf16::engine() } else { None };
    let op = AttentionOp { heads, spans, key_bias: key_bias.map(as_f32).transpose()?, engine };
    as_f32(query)?.apply_op3(&as_f32(key)?, &as_f32(value)?, op)?.to_dtype(query.dtype())
}

struct AttentionOp {
    heads: Heads,
    spans: Vec<Span>,
    /// Not differentiated: it is a mask, or the logarithm of a count.
    key_bias: Option<Tensor>,
    /// The engine for products in bf16; `None` for f32.
    engine: Option<Engine>,
}

impl CustomOp3 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = self.key_bias.as_ref().map(|bias| bias.flatten_all()?.to_vec1()).transpose()?;
        let (query, key, value) =
            (slice(query, query_layout)?, slice(key, key_layout)?, slice(value, value_layout)?);
        let (bias, heads, spans) = (bias.as_deref(), self.heads, &self.spans);
        let y = match self.engine {
            Some(engine) => bf16::attention(engine.kernel, [query, key, value], bias, heads, spans),
            None => kernel::attention(query, key, value, bias, heads, spans),
        };
        Ok((CpuStorage::F32(y), query_layout.shape().clone()))
    }

    fn bwd(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let bias = self.key_bias.as_ref().map(|bias| bias.flatten_all()?.to_vec1()).transpose()?;
        let [grad_query, grad_key, grad_value] =
            with_slices([query, key, value, out, grad], |[query, key, value, out, grad]| {
                let inputs = AttentionInputs { query, key, value, bias: bias.as_deref(), out, grad };
                attention_gradients(inputs, self.heads, &self.spans)
            })?;
        Ok((gradient(grad_query, query)?, gradient(grad_key, key)?, gradient(grad_value, value)?))
    }
}

/// `(batch, tokens, heads · head_dim)` to `(batch, heads, tokens, head_dim)`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    x.reshape((batch, tokens, heads, width / heads))?.transpose(1, 2)?.contiguous()
}

/// The inverse of [`split_heads`].
fn join_heads(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.contiguous()?.flatten_from(2)
}

/// Softmax of the scaled and biased scores, in f32: `(batch, heads, queries, keys)`.
fn attention_weights(
    query: &Tensor,
    key: &Tensor,
    scale: f64,
    key_bias: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let mut scores = (query.matmul(&key.t()?)? * scale)?.to_dtype(DType::F32)?;
    if let Some(bias) = key_bias {
        scores = scores.broadcast_add(&bias.to_dtype(DType::F32)?.unsqueeze(1)?.unsqueeze(1)?)?;
    }
    if causal {
        scores = scores.broadcast_add(&causal_bias(query.dim(2)?, key.dim(2)?, scores.device())?)?;
    }
    candle_nn::ops::softmax(&scores, D::Minus1)
}

/// 0 where a query sees a key, −∞ for later ones: `(queries, keys)`.
fn causal_bias(queries: usize, keys: usize, device: &Device) -> Result<Tensor> {
    let bias = |query: usize, key: usize| if key <= query { 0f32 } else { f32::NEG_INFINITY };
    let rows = (0..queries).flat_map(|query| (0..keys).map(move |key| bias(query, key)));
    Tensor::from_vec(rows.collect(), (queries, keys), device)
}

/// The definition of [`attention`] in candle tensors; softmax in f32.
///
/// # Errors
/// If the shapes do not fit together.
pub fn attention_reference(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    masked_reference(query, key, value, heads, key_bias, false)
}

/// The definition of [`causal_attention`] in candle tensors; softmax in f32.
///
/// # Errors
/// If the shapes do not fit together.
pub fn causal_attention_reference(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
) -> Result<Tensor> {
    masked_reference(query, key, value, heads, key_bias, true)
}

fn masked_reference(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
    causal: bool,
) -> Result<Tensor> {
    let scale = 1. / ((query.dim(2)? / heads) as f64).sqrt();
    let (query, key, value) =
        (split_heads(query, heads)?, split_heads(key, heads)?, split_heads(value, heads)?);
    let weights = attention_weights(&query, &key, scale, key_bias, causal)?.to_dtype(value.dtype())?;
    join_heads(&weights.matmul(&value)?)
}
