//! Computes attention over tiles of keys with a running softmax (Dao et al., arXiv 2205.14135), so that the whole
//! score matrix never exists.

use super::elementwise::{exp2, mul_add};
use super::microkernel::{Block, Left, PANEL};
use super::output::{SharedOutput, written};
use super::pack::{Panels, Strides};
use super::simd::arch;
use crate::shapes::{Heads, Span};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::f32::consts::LOG2_E;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Queries per task.
const QUERIES: usize = 48;
/// Keys per tile: 48 × 256 scores are 48 KiB.
const KEYS: usize = 256;

/// Multiplications worth a task of their own.
const PRODUCTS_PER_TASK: usize = 1 << 19;

/// One task: some query rows of one head against all its keys.
struct AttentionTask<'a> {
    heads: Heads,
    /// Index of the first query in its sequence, and the rows from there on.
    first_query: usize,
    queries: &'a [*const f32],
    /// The number of keys in the sequence.
    count: usize,
    keys: &'a Panels,
    values: &'a Panels,
    bias: Option<&'a [f32]>,
    out: SharedOutput<'a>,
    /// Offset of the first query's result, and the stride to the next.
    out_offset: usize,
    out_stride: usize,
}

impl WithSimd for AttentionTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let head_dim = self.heads.dim;
        let rows = self.queries.len();
        // Skip keys that none of these queries sees.
        let keys = self.heads.seen_keys(self.count, self.first_query + rows - 1);
        let scale = 1. / (head_dim as f32).sqrt();
        // Without a bias, the scale is applied inside the exponential.
        let factor = if self.bias.is_some() { LOG2_E } else { scale * LOG2_E };
        let tile = KEYS.min(keys.next_multiple_of(PANEL));
        let mut scores = vec![0f32; rows * tile];
        let mut sums = vec![0f32; rows * head_dim];
        let mut highest = vec![f32::NEG_INFINITY; rows];
        let mut totals = vec![0f32; rows];
        for first in (0..keys).step_by(tile) {
            let count = tile.min(keys - first);
            let first_panel = first / PANEL;
            let block = Block {
                left: Left::Rows { starts: self.queries, taps: 1, depth: head_dim },
                right: self.keys.right(),
                rows,
                panels: first_panel..first_panel + count.div_ceil(PANEL),
                columns: first + count,
                accumulate: false,
                // A block writes column c at out + c; the tile's first column belongs at the start of its row.
                out: scores.as_mut_ptr().wrapping_sub(first),
                out_stride: tile,
            };
            // SAFETY: a query has `head_dim` values, and the keys are packed to that depth; the scores have room for a tile.
            unsafe { block.run(simd) };
            for (row, scores) in scores.chunks_exact_mut(tile).enumerate() {
                // Whole vectors; padding keys are masked.
                let scores = &mut scores[..count.next_multiple_of(PANEL)];
                if let Some(bias) = self.bias {
                    let bias = &bias[first..first + count];
                    scores.iter_mut().zip(bias).for_each(|(score, bias)| *score = *score * scale + bias);
                }
                let seen = self.heads.seen_keys(self.count, self.first_query + row);
                let seen = seen.saturating_sub(first).min(count);
                scores[seen..].fill(f32::NEG_INFINITY);
                let before = highest[row];
                let new = lane_max(simd, scores, before);
                // Until a visible key is found, there is nothing to weight.
                let shift = if new == f32::NEG_INFINITY { 0. } else { new };
                let total = exp_and_sum::<S>(scores, factor, shift);
                let decay = exp2::<S>((before - shift) * factor);
                highest[row] = new;
                totals[row] = totals[row] * decay + total;
                if decay != 1. {
                    sums[row * head_dim..(row + 1) * head_dim].iter_mut().for_each(|sum| *sum *= decay);
                }
            }
            let starts: Vec<*const f32> = scores.chunks_exact(tile).map(|row| row.as_ptr()).collect();
            let mut right = self.values.right();
            right.data = right.data.wrapping_add(first * right.row_stride);
            let block = Block {
                left: Left::Rows { starts: &starts, taps: 1, depth: count },
                right,
                rows,
                panels: 0..head_dim.div_ceil(PANEL),
                columns: head_dim,
                accumulate: true,
                out: sums.as_mut_ptr(),
                out_stride: head_dim,
            };
            // SAFETY: the tile has `count` scores of each query, the values as many rows from `first` on, and there is a row
            // of sums for each query.
            unsafe { block.run(simd) };
        }
        for (row, (sums, total)) in sums.chunks_exact_mut(head_dim).zip(&totals).enumerate() {
            sums.iter_mut().for_each(|sum| *sum /= total);
            // SAFETY: only this task writes these rows of this head.
            unsafe { self.out.write(self.out_offset + row * self.out_stride, sums) };
        }
    }
}

/// The maximum of the values and `start`.
#[inline(always)]
pub(super) fn lane_max<S: Simd>(simd: S, values: &[f32], start: f32) -> f32 {
    let mut lanes = [start; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder().iter().fold(start, |a, &b| if b > a { b } else { a });
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let (lanes, _) = S::as_simd_f32s(&lanes);
    let highest = lanes.iter().fold(simd.splat_f32s(rest), |a, b| simd.max_f32s(a, *b));
    simd.reduce_max_f32s(highest)
}

/// Replaces each value by `2^(factor · (value − shift))` and returns their sum. `shift` must be finite.
///
/// The lanes are added one after the other: golden gradients of small models depend on the last bit of this sum.
#[inline(always)]
pub(super) fn exp_and_sum<S: Simd>(values: &mut [f32], factor: f32, shift: f32) -> f32 {
    let (chunks, rest) = values.as_chunks_mut();
    let mut sum = exp_and_sum_lanes::<S>(chunks, factor, shift).iter().sum::<f32>();
    for value in rest {
        *value = exp2::<S>(mul_add::<S>(*value, factor, -factor * shift));
        sum += *value;
    }
    sum
}

/// [`exp_and_sum`] for each of 16 lanes.
#[inline(always)]
pub(super) fn exp_and_sum_lanes<S: Simd>(chunks: &mut [[f32; 16]], factor: f32, shift: f32) -> [f32; 16] {
    let summand = -factor * shift;
    let mut lanes = [0f32; 16];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp2::<S>(mul_add::<S>(*value, factor, summand));
            *lane += *value;
        }
    }
    lanes
}

/// `query` (queries of all spans, width); `key`, `value` (keys of all spans, width); `bias` (keys of all spans).
pub(crate) fn attention(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    bias: Option<&[f32]>,
    heads: Heads,
    spans: &[Span],
) -> Vec<f32> {
    let (width, head_dim) = (heads.width(), heads.dim);
    check(query, key, value, bias, width, spans);
    if spans.iter().any(|span| span.keys == 0) {
        return vec![0f32; query.len()];
    }
    let arch = arch();
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let pack = |Span { first_key, keys, .. }: Span, head: usize| {
            let first = first_key * width + head * head_dim;
            let key_strides = Strides { tap: 0, depth: 1, column: width };
            let value_strides = Strides { tap: 0, depth: width, column: 1 };
            let key = Panels::pack(&key[first..], 1, head_dim, keys, key_strides);
            let value = Panels::pack(&value[first..], 1, keys, head_dim, value_strides);
            (key, value)
        };
        for_each_head(heads, spans, QUERIES, pack, |(keys, values), span, head, rows| {
            let Span { first_query, first_key, keys: count, .. } = span;
            let offset = |row: usize| (first_query + row) * width + head * head_dim;
            let starts: Vec<*const f32> = rows.clone().map(|row| query[offset(row)..].as_ptr()).collect();
            arch.dispatch(AttentionTask {
                heads,
                first_query: rows.start,
                queries: &starts,
                count,
                keys,
                values,
                bias: bias.map(|bias| &bias[first_key..][..count]),
                out,
                out_offset: offset(rows.start),
                out_stride: width,
            });
        });
    };
    // SAFETY: the tasks write every query's row of every head.
    unsafe { written(query.len(), write) }
}

/// Packs the keys and values of every head of every span, and calls `task` with them for a few queries at a time, on
/// all threads.
pub(super) fn for_each_head<P: Sync>(
    heads: Heads,
    spans: &[Span],
    queries_per_task: usize,
    pack: impl Fn(Span, usize) -> P + Sync,
    task: impl Fn(&P, Span, usize, Range<usize>) + Sync,
) {
    (0..spans.len() * heads.count).into_par_iter().with_max_len(1).for_each(|pair| {
        let (span, head) = (spans[pair / heads.count], pair % heads.count);
        let packed = pack(span, head);
        // Short sequences are not split over threads.
        let least = PRODUCTS_PER_TASK / (queries_per_task * span.keys * heads.dim) + 1;
        let tasks = (0..span.queries.div_ceil(queries_per_task)).into_par_iter();
        tasks.with_min_len(least).with_max_len(least).for_each(|index| {
            let first = index * queries_per_task;
            task(&packed, span, head, first..span.queries.min(first + queries_per_task));
        });
    });
}

/// Checks that the spans cover all rows in order, which the `unsafe` of the kernels relies on.
pub(super) fn check(
    query: &[f32],
    key: &[f32],
    value: &[f32],
    bias: Option<&[f32]>,
    width: usize,
    spans: &[Span],
) {
    let (mut queries, mut keys) = (0, 0);
    for span in spans {
        assert_eq!((span.first_query, span.first_key), (queries, keys));
        queries += span.queries;
        keys += span.keys;
    }
    assert_eq!(query.len(), queries * width);
    assert_eq!(key.len(), keys * width);
    assert_eq!(value.len(), keys * width);
    assert!(bias.is_none_or(|bias| bias.len() == keys));
}
