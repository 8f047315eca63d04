//! Computes attention on candle tensors.

use super::super::launch::attention::{AttentionOperands, RowLayout};
use super::super::tune::dispatch::Dispatch;
use super::rows::rows;
use super::run::{element, only, optional, run};
use crate::tensors::slices::as_f32;
use candle_core::{Result, Tensor};

/// Like [`crate::attention()`] or [`crate::causal_attention()`], for shapes that fit together.
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
    let launch = |dispatch: &Dispatch, element, [q, k, v, bias]: [_; 4], [out]: [_; 1]| {
        let op = AttentionOperands {
            element,
            batch,
            queries,
            keys,
            heads,
            head_dim: width / heads,
            query: rows(query, q)?,
            key: rows(key, k)?,
            value: rows(value, v)?,
            out: RowLayout { address: out, batch_stride: queries * width, row_stride: width },
            key_bias: optional(bias),
            offsets: None,
            causal,
        };
        // SAFETY: the addresses are those of tensors of these sizes, which `run` keeps.
        unsafe { dispatch.attention(&op) }
    };
    // SAFETY: the kernel writes a row for every query.
    unsafe { run("attention", element([query, key, value]), inputs, results, launch) }.map(only)
}
