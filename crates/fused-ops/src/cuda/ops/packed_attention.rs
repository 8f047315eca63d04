//! Computes attention within packed sequences on candle tensors.

use super::super::launch::attention::{AttentionOperands, RowLayout};
use super::super::tune::dispatch::Dispatch;
use super::rows::rows;
use super::run::{element, only, optional, run};
use crate::shapes::Sequences;
use candle_core::{Result, Tensor};

/// Like [`crate::packed_attention()`], for shapes that fit together.
pub(crate) fn packed_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    sequences: &Sequences,
) -> Result<Option<Tensor>> {
    let (_, width) = query.dims2()?;
    let longest = sequences.lengths().iter().copied().max().unwrap_or(0);
    let inputs = [Some(query), Some(key), Some(value), sequences.key_bias(), Some(&sequences.offsets)];
    let results = [(query.dims(), query.dtype())];
    let launch = |dispatch: &Dispatch, element, [q, k, v, bias, offsets]: [_; 5], [out]: [_; 1]| {
        let op = AttentionOperands {
            element,
            batch: sequences.lengths().len(),
            queries: longest,
            keys: longest,
            heads,
            head_dim: width / heads,
            query: rows(query, q)?,
            key: rows(key, k)?,
            value: rows(value, v)?,
            out: RowLayout { address: out, batch_stride: 0, row_stride: width },
            key_bias: optional(bias),
            offsets: Some(offsets),
            causal: false,
        };
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps, and the offsets are those of the
        // sequences, which have as many rows together.
        unsafe { dispatch.attention(&op) }
    };
    // SAFETY: the kernel writes a row for every query.
    unsafe { run("packed_attention", element([query, key, value]), inputs, results, launch) }.map(only)
}
