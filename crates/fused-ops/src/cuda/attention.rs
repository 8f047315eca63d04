//! Attention on candle tensors.

use super::launches::attention::{Attention, Rows};
use super::launches::launch::{Address, NotCovered};
use super::{element, only, optional, run};
use crate::custom::as_f32;
use crate::packed_attention::Sequences;
use candle_core::{Result, Tensor};

/// As [`crate::attention()`] or [`crate::causal_attention()`], of shapes that fit together.
pub(crate) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
    causal: bool,
) -> Result<Option<Tensor>> {
    let (batch, queries, width) = query.dims3()?;
    let keys = key.dim(1)?;
    let key_bias = key_bias.map(as_f32).transpose()?;
    let inputs = [Some(query), Some(key), Some(value), key_bias.as_ref()];
    let results = [(query.dims(), query.dtype())];
    run(
        "attention",
        element([query, key, value]),
        inputs,
        results,
        |kernels, element, [q, k, v, bias], [out]| {
            let op = Attention {
                element,
                batch,
                queries,
                keys,
                heads,
                head_dim: width / heads,
                query: rows(query, q)?,
                key: rows(key, k)?,
                value: rows(value, v)?,
                out: Rows { address: out, batch_stride: queries * width, row_stride: width },
                key_bias: optional(bias),
                offsets: None,
                causal,
            };
            kernels.launch_attention(&op)
        },
    )
    .map(only)
}

/// Where the rows of a tensor (batch, rows, width) lie, which may be a part of the columns of a wider one.
fn rows(x: &Tensor, address: Address) -> std::result::Result<Rows, NotCovered> {
    match *x.stride() {
        [batch_stride, row_stride, 1] => Ok(Rows { address, batch_stride, row_stride }),
        _ => Err(NotCovered("rows whose values do not lie side by side")),
    }
}

/// As [`crate::packed_attention()`], of shapes that fit together.
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
    run(
        "packed_attention",
        element([query, key, value]),
        inputs,
        results,
        |kernels, element, [q, k, v, bias, offsets], [out]| {
            let rows = |x: &Tensor, address| match *x.stride() {
                [row_stride, 1] => Ok(Rows { address, batch_stride: 0, row_stride }),
                _ => Err(NotCovered("rows whose values do not lie side by side")),
            };
            let op = Attention {
                element,
                batch: sequences.lengths().len(),
                queries: longest,
                keys: longest,
                heads,
                head_dim: width / heads,
                query: rows(query, q)?,
                key: rows(key, k)?,
                value: rows(value, v)?,
                out: Rows { address: out, batch_stride: 0, row_stride: width },
                key_bias: optional(bias),
                offsets: Some(offsets),
                causal: false,
            };
            kernels.launch_attention(&op)
        },
    )
    .map(only)
}
