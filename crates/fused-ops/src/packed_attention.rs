//! Attention within sequences of mixed lengths that follow each other without padding.

use crate::attention::{attention_reference, on_rows};
use crate::cpu::attention::{Heads, Span};
use crate::custom::{as_f32, on_cpu};
use candle_core::{Device, Result, Tensor};

/// How rows fall into sequences, of which each attends to itself alone.
#[derive(Debug, Clone)]
pub struct Sequences {
    lengths: Vec<usize>,
    /// (rows), f32
    key_bias: Option<Tensor>,
    /// The first row of each sequence, and where the last one ends: (sequences + 1), i32.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a CUDA kernel reads it"))]
    pub(crate) offsets: Tensor,
}

impl Sequences {
    /// Sequences of these lengths, whose rows are on `device`.
    ///
    /// `key_bias`, of as many values as there are rows, is added to every score of a key, as in
    /// [`attention`](crate::attention()).
    ///
    /// # Errors
    /// If there are more or fewer values in `key_bias`, or 2³¹ rows or more.
    pub fn new(lengths: Vec<usize>, key_bias: Option<&Tensor>, device: &Device) -> Result<Self> {
        let mut offsets = vec![0i32];
        let mut end = 0i32;
        for &length in &lengths {
            let sum = i32::try_from(length).ok().and_then(|length| end.checked_add(length));
            end = sum.ok_or_else(|| candle_core::Error::msg("sequences of more than 2³¹ rows"))?;
            offsets.push(end);
        }
        let key_bias = key_bias.map(|bias| as_f32(bias)?.flatten_all()?.to_device(device)).transpose()?;
        let rows = lengths.iter().sum::<usize>();
        if let Some(bias) = key_bias.as_ref().filter(|bias| bias.elem_count() != rows) {
            candle_core::bail!("a key bias of {} values for sequences of {rows} rows", bias.elem_count());
        }
        Ok(Self { lengths, key_bias, offsets: Tensor::new(offsets, device)? })
    }

    /// The rows of each.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The rows of all together.
    pub fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// What is added to the scores of each key, if anything: (rows), f32.
    pub fn key_bias(&self) -> Option<&Tensor> {
        self.key_bias.as_ref()
    }
}

/// As [`attention`](crate::attention()) within each of several sequences.
///
/// `query`, `key` and `value` are `(rows, heads · head_dim)`, the rows of all `sequences`, and so is the result.
///
/// # Errors
/// If the shapes do not fit together.
pub fn packed_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    sequences: &Sequences,
) -> Result<Tensor> {
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
            sequences.lengths,
            query.dims(),
            key.dims(),
            value.dims()
        );
    }
    if !on_cpu(query) {
        #[cfg(feature = "cuda")]
        if let Some(out) = crate::cuda::packed_attention(query, key, value, heads, sequences)? {
            return Ok(out);
        }
        return packed_attention_reference(query, key, value, heads, sequences);
    }
    // A sequence of no rows is none: the kernel takes one without keys for a mistake.
    let lengths: Vec<usize> = sequences.lengths.iter().copied().filter(|&length| length > 0).collect();
    let heads = Heads { count: heads, dim: width / heads, causal: false };
    on_rows([query, key, value], sequences.key_bias(), heads, Span::packed(&lengths))
}

/// The definition, in candle tensors; softmax in f32.
pub fn packed_attention_reference(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    sequences: &Sequences,
) -> Result<Tensor> {
    let mut first = 0;
    let mut parts = Vec::with_capacity(sequences.lengths.len());
    for &length in sequences.lengths.iter().filter(|&&length| length > 0) {
        let part = |x: &Tensor| x.narrow(0, first, length)?.unsqueeze(0);
        let bias = sequences.key_bias().map(part).transpose()?;
        let out = attention_reference(&part(query)?, &part(key)?, &part(value)?, heads, bias.as_ref())?;
        parts.push(out.squeeze(0)?);
        first += length;
    }
    if parts.is_empty() { Ok(query.clone()) } else { Tensor::cat(&parts, 0) }
}
