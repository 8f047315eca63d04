//! Computes the gradients of attention for training. Attention weights are recomputed for a few queries at a time, so
//! that the whole matrix never exists.

use super::attention::{check, exp_and_sum, lane_max};
use super::microkernel::{Block, Left, PANEL};
use super::output::SharedOutput;
use super::pack::{Panels, Strides};
use super::simd::arch;
use crate::shapes::{Heads, Span};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::f32::consts::LOG2_E;

/// Queries whose weights exist at the same time.
const QUERIES: usize = 48;

/// The forward pass's tensors, in its layout, with the gradient of its result.
#[derive(Clone, Copy)]
pub(crate) struct AttentionInputs<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) out: &'a [f32],
    pub(crate) grad: &'a [f32],
}

/// The gradients of query, key and value.
///
/// With `P` the attention weights: `dV = Pᵀ dO`, `dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O))`, `dQ = dS K` and `dK = dSᵀ Q`.
pub(crate) fn attention_gradients(inputs: AttentionInputs, heads: Heads, spans: &[Span]) -> [Vec<f32>; 3] {
    let AttentionInputs { query, key, value, bias, out, grad } = inputs;
    let width = heads.width();
    check(query, key, value, bias, width, spans);
    assert!([out, grad].iter().all(|x| x.len() == query.len()));
    let mut gradients = [query, key, value].map(|x| vec![0f32; x.len()]);
    let targets = gradients.each_mut().map(|gradient| SharedOutput::of_values(gradient));
    let arch = arch();
    (0..spans.len() * heads.count).into_par_iter().for_each(|pair| {
        let (span, head) = (spans[pair / heads.count], pair % heads.count);
        if span.queries == 0 || span.keys == 0 {
            return;
        }
        let first_query = span.first_query * width + head * heads.dim;
        let first_key = span.first_key * width + head * heads.dim;
        let across = Strides { tap: 0, depth: 1, column: width };
        let along = Strides { tap: 0, depth: width, column: 1 };
        arch.dispatch(Head {
            heads,
            span,
            query: &query[first_query..],
            out: &out[first_query..],
            grad: &grad[first_query..],
            key_columns: &Panels::pack(&key[first_key..], 1, heads.dim, span.keys, across),
            value_columns: &Panels::pack(&value[first_key..], 1, heads.dim, span.keys, across),
            key_rows: &Panels::pack(&key[first_key..], 1, span.keys, heads.dim, along),
            bias: bias.map(|bias| &bias[span.first_key..][..span.keys]),
            grad_query: targets[0].at(first_query),
            grad_key: targets[1].at(first_key),
            grad_value: targets[2].at(first_key),
        });
    });
    gradients
}

/// One head of one image or text. Its rows are `heads · head_dim` values apart, in inputs and outputs.
struct Head<'a> {
    heads: Heads,
    span: Span,
    query: &'a [f32],
    out: &'a [f32],
    grad: &'a [f32],
    /// (head_dim, keys)
    key_columns: &'a Panels,
    /// (head_dim, keys)
    value_columns: &'a Panels,
    /// (keys, head_dim)
    key_rows: &'a Panels,
    bias: Option<&'a [f32]>,
    grad_query: *mut f32,
    grad_key: *mut f32,
    grad_value: *mut f32,
}

impl WithSimd for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Span { queries, keys, .. } = self.span;
        let (width, head_dim) = (self.heads.width(), self.heads.dim);
        let scale = 1. / (head_dim as f32).sqrt();
        let mut weights = vec![0f32; QUERIES.min(queries) * keys];
        let mut grad_scores = weights.clone();
        for first in (0..queries).step_by(QUERIES) {
            let rows = QUERIES.min(queries - first);
            let row = |x: &'_ [f32], i: usize| x[(first + i) * width..][..head_dim].as_ptr();
            let query_rows: Vec<*const f32> = (0..rows).map(|i| row(self.query, i)).collect();
            let grad_rows: Vec<*const f32> = (0..rows).map(|i| row(self.grad, i)).collect();
            self.scores(simd, &query_rows, self.key_columns, &mut weights);
            self.scores(simd, &grad_rows, self.value_columns, &mut grad_scores);
            let rows_of_both = weights.chunks_exact_mut(keys).zip(grad_scores.chunks_exact_mut(keys));
            for (i, (weights, grad_scores)) in rows_of_both.take(rows).enumerate() {
                self.softmax(simd, weights, scale, self.heads.seen_keys(keys, first + i));
                let start = (first + i) * width;
                let (out, grad) = (&self.out[start..][..head_dim], &self.grad[start..][..head_dim]);
                let correction: f32 = out.iter().zip(grad).map(|(out, grad)| out * grad).sum();
                grad_scores
                    .iter_mut()
                    .zip(weights.iter())
                    .for_each(|(grad, weight)| *grad = weight * (*grad - correction) * scale);
            }
            let starts: Vec<*const f32> = grad_scores.chunks_exact(keys).map(<[f32]>::as_ptr).collect();
            let block = Block {
                left: Left::Rows { starts: &starts[..rows], taps: 1, depth: keys },
                right: self.key_rows.right(),
                rows,
                panels: 0..head_dim.div_ceil(PANEL),
                columns: head_dim,
                accumulate: false,
                out: self.grad_query.wrapping_add(first * width),
                out_stride: width,
            };
            // SAFETY: there is a row of `keys` scores for each query, and as many rows of keys; the head's columns of the
            // queries' gradients are this task's alone.
            unsafe { block.run(simd) };
            self.add_transposed(simd, &weights[..rows * keys], self.grad, first, self.grad_value);
            self.add_transposed(simd, &grad_scores[..rows * keys], self.query, first, self.grad_key);
        }
    }
}

impl Head<'_> {
    /// `scores[row] = left[row] · right`, (rows, keys).
    #[inline(always)]
    fn scores<S: Simd>(&self, simd: S, left: &[*const f32], right: &Panels, scores: &mut [f32]) {
        let (keys, head_dim) = (self.span.keys, self.heads.dim);
        assert!(scores.len() >= left.len() * keys);
        let block = Block {
            left: Left::Rows { starts: left, taps: 1, depth: head_dim },
            right: right.right(),
            rows: left.len(),
            panels: 0..keys.div_ceil(PANEL),
            columns: keys,
            accumulate: false,
            out: scores.as_mut_ptr(),
            out_stride: keys,
        };
        // SAFETY: the left rows have `head_dim` values, to which depth the keys are packed, and the scores have room.
        unsafe { block.run(simd) };
    }

    /// Converts the scores of one query, which sees the first `seen` keys, to weights in place.
    #[inline(always)]
    fn softmax<S: Simd>(&self, simd: S, scores: &mut [f32], scale: f32, seen: usize) {
        match self.bias {
            Some(bias) => {
                scores.iter_mut().zip(bias).for_each(|(score, bias)| *score = *score * scale + bias);
            }
            None => scores.iter_mut().for_each(|score| *score *= scale),
        }
        scores.iter_mut().skip(seen).for_each(|score| *score = f32::NEG_INFINITY);
        let highest = lane_max(simd, scores, f32::NEG_INFINITY);
        let shift = if highest == f32::NEG_INFINITY { 0. } else { highest };
        let factor = 1. / exp_and_sum::<S>(scores, LOG2_E, shift);
        scores.iter_mut().for_each(|score| *score *= factor);
    }

    /// `out[key] += Σ_row left[row, key] · right[first + row]`, for the gradients of keys and values.
    #[inline(always)]
    fn add_transposed<S: Simd>(&self, simd: S, left: &[f32], right: &[f32], first: usize, out: *mut f32) {
        let (keys, width, head_dim) = (self.span.keys, self.heads.width(), self.heads.dim);
        let strides = Strides { tap: 0, depth: width, column: 1 };
        let right = Panels::pack(&right[first * width..], 1, left.len() / keys, head_dim, strides);
        let starts: Vec<*const f32> = left.chunks_exact(keys).map(<[f32]>::as_ptr).collect();
        let block = Block {
            left: Left::Columns { starts: &starts },
            right: right.right(),
            rows: keys,
            panels: 0..head_dim.div_ceil(PANEL),
            columns: head_dim,
            accumulate: true,
            out,
            out_stride: width,
        };
        // SAFETY: a left row has a value for each key, and there are as many rows of the right factor; the head's columns of
        // these gradients are this task's alone.
        unsafe { block.run(simd) };
    }
}
