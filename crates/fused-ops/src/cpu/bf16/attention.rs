//! Computes attention with both products in bf16. Scores, softmax and sums are f32.
//!
//! Like the f32 kernel, it streams over tiles of keys, with a running softmax.

use super::line::{Line, Pair, round};
use super::weight::Bf16Weight;
use crate::cpu::attention::{check, exp_and_sum_lanes, for_each_head, lane_max};
use crate::cpu::elementwise::exp2;
use crate::cpu::lines::{Kernel, Products, Rows};
use crate::cpu::microkernel::PANEL;
use crate::cpu::output::{SharedOutput, written};
use crate::cpu::simd::arch;
use crate::shapes::{Heads, Span};
use pulp::{Simd, WithSimd};
use std::f32::consts::LOG2_E;
use std::mem::MaybeUninit;

/// The queries per task and keys per tile: 96 × 128 scores take 48 KiB.
const QUERIES: usize = 96;
const KEYS: usize = 128;
/// The values of a line, and the lines of a tile's keys.
const LINE: usize = Line::VALUES;
const LINES: usize = KEYS / LINE;
/// The kernels write products for a multiple of this many rows.
const ROWS: usize = 32;

/// [`attention`](crate::cpu::attention::attention) in bf16.
pub(crate) fn attention(
    kernel: &Kernel<Pair>,
    [query, key, value]: [&[f32]; 3],
    bias: Option<&[f32]>,
    heads: Heads,
    spans: &[Span],
) -> Vec<f32> {
    let (width, head_dim) = (heads.width(), heads.dim);
    check(query, key, value, bias, width, spans);
    if spans.iter().any(|span| span.keys == 0) {
        return vec![0f32; query.len()];
    }
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let pack = |Span { first_key, keys, .. }: Span, head: usize| {
            let first = first_key * width + head * head_dim;
            let key = Bf16Weight::round_columns(&key[first..], keys, head_dim, width);
            let value = Bf16Weight::round_rows(&value[first..], keys, head_dim, width);
            (key, value)
        };
        for_each_head(heads, spans, QUERIES, pack, |(keys, values), span, head, rows| {
            let offset = (span.first_query + rows.start) * width + head * head_dim;
            let task = Task {
                kernel,
                heads,
                first_query: rows.start,
                rows: rows.len(),
                count: span.keys,
                keys,
                values,
                bias: bias.map(|bias| &bias[span.first_key..][..span.keys]),
            };
            for (row, found) in task.run(&query[offset..]).chunks_exact(head_dim).enumerate() {
                // SAFETY: only this task writes these rows of this head.
                unsafe { out.write(offset + row * width, found) };
            }
        });
    };
    // SAFETY: the tasks write every query's row of every head.
    unsafe { written(query.len(), write) }
}

/// Some queries of one head against all its keys.
struct Task<'a> {
    kernel: &'a Kernel<Pair>,
    heads: Heads,
    /// The index of the first query in its sequence, and the number of queries.
    first_query: usize,
    rows: usize,
    /// The number of keys in the sequence.
    count: usize,
    keys: &'a Bf16Weight,
    values: &'a Bf16Weight,
    bias: Option<&'a [f32]>,
}

impl Task<'_> {
    /// Returns the result of every query, (rows, head_dim).
    fn run(&self, query: &[f32]) -> Vec<f32> {
        let (rows, head_dim) = (self.rows, self.heads.dim);
        let padded_rows = rows.next_multiple_of(ROWS);
        // Skip keys that none of these queries sees.
        let keys = self.heads.seen_keys(self.count, self.first_query + rows - 1);
        let queries = LineRows::round(query, rows, head_dim, self.heads.width());
        let starts = queries.starts();
        // SAFETY: each start is followed by the lines of a query.
        let prepared = unsafe { self.kernel.prepare(queries.rows(&starts, head_dim)) };

        let mut scores = vec![[[0f32; PANEL]; 2]; padded_rows * LINES];
        let mut weights = LineRows::zeros(rows, KEYS);
        let mut products = vec![[[0f32; PANEL]; 2]; padded_rows];
        let mut sums = vec![[[0f32; PANEL]; 2]; head_dim.div_ceil(2 * PANEL) * rows];
        let mut state = Softmax {
            highest: vec![f32::NEG_INFINITY; rows],
            totals: vec![0f32; rows],
            decays: vec![0f32; rows],
        };
        for first in (0..keys).step_by(KEYS) {
            let count = KEYS.min(keys - first);
            let lines = count.div_ceil(LINE);
            for line in 0..lines {
                let keys = self.keys.panels(first / PANEL + 2 * line);
                // SAFETY: queries and keys have the same depth, and there is space for the rows.
                unsafe { prepared.multiply(&keys, &mut scores[line..], LINES) };
            }
            let (scores, weights_of_tile) = (&mut scores, &mut weights);
            arch().dispatch(SoftmaxTask {
                task: self,
                first,
                count,
                scores,
                weights: weights_of_tile,
                state: &mut state,
            });
            let starts = weights.starts();
            // SAFETY: each start is followed by the lines of a query's weights.
            let tile = unsafe { self.kernel.prepare(weights.rows(&starts, count)) };
            for (pair, sums) in sums.chunks_exact_mut(rows).enumerate() {
                let values = self.values.panels(2 * pair).into_iter();
                let values: Vec<_> = values.map(|panel| &panel[first / 2..][..lines * LINE / 2]).collect();
                // SAFETY: the values have as many lines as the weights, and there is space for the rows.
                unsafe { tile.multiply(&values, &mut products, 1) };
                arch().dispatch(SumTask { sums, products: &products, decays: &state.decays });
            }
        }
        let mut out = vec![0f32; rows * head_dim];
        for (row, (out, total)) in out.chunks_exact_mut(head_dim).zip(&state.totals).enumerate() {
            for (pair, out) in out.chunks_mut(2 * PANEL).enumerate() {
                let sums = sums[pair * rows + row].as_flattened();
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / total);
            }
        }
        out
    }
}

/// The running softmax of every query.
struct Softmax {
    highest: Vec<f32>,
    /// The sums of the weights so far.
    totals: Vec<f32>,
    /// The factors for the sums before the last tile.
    decays: Vec<f32>,
}

/// Turns the scores of a tile of keys into weights.
struct SoftmaxTask<'a> {
    task: &'a Task<'a>,
    /// The first key of the tile.
    first: usize,
    count: usize,
    /// (rows, lines)
    scores: &'a mut [Products<Pair>],
    weights: &'a mut LineRows,
    state: &'a mut Softmax,
}

impl WithSimd for SoftmaxTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { task, first, count, scores, weights, state } = self;
        let scale = 1. / (task.heads.dim as f32).sqrt();
        // Without a bias, the scale is applied inside the exponential.
        let factor = if task.bias.is_some() { LOG2_E } else { scale * LOG2_E };
        for (row, scores) in scores.chunks_exact_mut(LINES).enumerate().take(task.rows) {
            // Whole lines; padding keys are masked.
            let scores = &mut scores.as_flattened_mut().as_flattened_mut()[..count.next_multiple_of(LINE)];
            if let Some(bias) = task.bias {
                let bias = &bias[first..][..count];
                scores.iter_mut().zip(bias).for_each(|(score, bias)| *score = *score * scale + bias);
            }
            let seen = task.heads.seen_keys(task.count, task.first_query + row);
            scores[seen.saturating_sub(first).min(count)..].fill(f32::NEG_INFINITY);
            let before = state.highest[row];
            let highest = lane_max(simd, scores, before);
            // Until a visible key is found, there is nothing to weight.
            let shift = if highest == f32::NEG_INFINITY { 0. } else { highest };
            let lanes = exp_and_sum_lanes::<S>(scores.as_chunks_mut().0, factor, shift);
            let (lanes, _) = S::as_simd_f32s(&lanes);
            let total = lanes.iter().fold(simd.splat_f32s(0.), |a, b| simd.add_f32s(a, *b));
            let total = simd.reduce_sum_f32s(total);
            let decay = exp2::<S>((before - shift) * factor);
            state.highest[row] = highest;
            state.totals[row] = state.totals[row] * decay + total;
            state.decays[row] = decay;
            for (line, scores) in weights.row_mut(row).iter_mut().zip(scores.as_chunks::<LINE>().0) {
                let to = line.0.as_flattened_mut().iter_mut();
                to.zip(scores).for_each(|(to, weight)| *to = round(*weight));
            }
        }
    }
}

/// Scales the previous sums by their rows' decay, and adds the products of a tile of keys.
struct SumTask<'a> {
    sums: &'a mut [Products<Pair>],
    products: &'a [Products<Pair>],
    decays: &'a [f32],
}

impl WithSimd for SumTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for ((sums, products), decay) in self.sums.iter_mut().zip(self.products).zip(self.decays) {
            let decay = simd.splat_f32s(*decay);
            let (sums, _) = S::as_mut_simd_f32s(sums.as_flattened_mut());
            let (products, _) = S::as_simd_f32s(products.as_flattened());
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum = simd.mul_add_e_f32s(*sum, decay, *product);
            }
        }
    }
}

/// Rows of whole lines, stored contiguously.
struct LineRows {
    lines: Vec<Line>,
    per_row: usize,
}

impl LineRows {
    fn zeros(rows: usize, width: usize) -> Self {
        let per_row = width.div_ceil(LINE);
        Self { lines: vec![Line::ZERO; rows * per_row], per_row }
    }

    /// Rounds the first `width` values of each of `rows` rows, which are `stride` apart.
    fn round(values: &[f32], rows: usize, width: usize, stride: usize) -> Self {
        let mut all = Self::zeros(rows, width);
        for (row, values) in values.chunks(stride).enumerate().take(rows) {
            for (line, values) in all.row_mut(row).iter_mut().zip(values[..width].chunks(LINE)) {
                let to = line.0.as_flattened_mut().iter_mut();
                to.zip(values).for_each(|(to, value)| *to = round(*value));
            }
        }
        all
    }

    fn row_mut(&mut self, row: usize) -> &mut [Line] {
        &mut self.lines[row * self.per_row..][..self.per_row]
    }

    /// The starts of the rows.
    fn starts(&self) -> Vec<*const Line> {
        self.lines.chunks_exact(self.per_row).map(<[Line]>::as_ptr).collect()
    }

    /// The first `width` values of each row, for a kernel.
    fn rows<'a>(&self, starts: &'a [*const Line], width: usize) -> Rows<'a, Pair> {
        Rows { starts, taps: 1, lines: width.div_ceil(LINE), groups: width.div_ceil(2) }
    }
}
