//! Multiplies a gathered left factor by a packed weight in bf16: linear layers and convolutions.

use super::engine::{Engine, Prepared};
use super::left::LeftRows;
use super::line::{LINE, Line};
use super::rows::{Products, Rows};
use super::weight::Bf16Weight;
use crate::cpu::elementwise::gelu;
use crate::cpu::epilogue::SliceEpilogue;
use crate::cpu::matmul::Parts;
use crate::cpu::microkernel::PANEL;
use crate::cpu::output::{SharedOutput, written};
use crate::cpu::pack::{Factor, FactorSize};
use crate::cpu::simd::vectorized;
use crate::cpu::window::Window;
use std::mem::MaybeUninit;
use std::ops::Range;

/// [`gather_product`](crate::cpu::matmul::gather_product) in bf16.
pub(crate) fn product(
    engine: Engine,
    left: &[f32],
    rows: usize,
    window: &Window,
    weight: &Bf16Weight,
    epilogue: &SliceEpilogue,
) -> Vec<f32> {
    let columns = weight.size().columns;
    epilogue.check(rows, columns);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let panels = columns.div_ceil(PANEL);
        for_each_part(engine, left, rows, window, weight, panels, |mut part, rows, panels| {
            for first in panels.clone().step_by(2) {
                let all = [first, first + 1];
                let products = part.multiply(&all[..2.min(panels.end - first)]);
                let first = first * PANEL;
                let count = (2 * PANEL).min(columns - first);
                vectorized(
                    #[inline(always)]
                    || {
                        for (row, products) in rows.clone().zip(products.iter_mut()) {
                            let values = &mut products.as_flattened_mut()[..count];
                            epilogue.finish(row, first, columns, values);
                            // SAFETY: only this part writes these columns of its rows.
                            unsafe { out.write(row * columns + first, values) };
                        }
                    },
                );
            }
        });
    };
    // SAFETY: the parts cover the result.
    unsafe { written(rows * columns, write) }
}

/// [`linear_geglu`](crate::cpu::linear_geglu::linear_geglu) in bf16.
pub(crate) fn linear_geglu(
    engine: Engine,
    left: &[f32],
    rows: usize,
    weight: &Bf16Weight,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let FactorSize { taps, columns: both, .. } = weight.size();
    let columns = both / 2;
    assert!(taps == 1 && both.is_multiple_of(2 * PANEL));
    assert!(bias.is_none_or(|bias| bias.len() == both));
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let panels = columns / PANEL;
        for_each_part(engine, left, rows, &Window::Same, weight, panels, |mut part, rows, panels| {
            for panel in panels {
                let products = part.multiply(&[panel, columns / PANEL + panel]);
                let first = panel * PANEL;
                vectorized(
                    #[inline(always)]
                    || {
                        for (row, [values, gates]) in rows.clone().zip(products.iter_mut()) {
                            if let Some(bias) = bias {
                                let (for_values, for_gates) = bias.split_at(columns);
                                add(values, &for_values[first..]);
                                add(gates, &for_gates[first..]);
                            }
                            values.iter_mut().zip(gates).for_each(|(value, gate)| *value *= gelu(*gate));
                            // SAFETY: only this part writes these columns of its rows.
                            unsafe { out.write(row * columns + first, values) };
                        }
                    },
                );
            }
        });
    };
    // SAFETY: the parts cover the result.
    unsafe { written(rows * columns, write) }
}

#[inline(always)]
fn add(values: &mut [f32; PANEL], more: &[f32]) {
    values.iter_mut().zip(more).for_each(|(value, more)| *value += more);
}

/// Some rows of the left factor, multiplied by one pair of panels after the other.
struct Part<'a> {
    engine: Engine,
    left: Prepared<'a>,
    weight: &'a Bf16Weight,
    products: Vec<Products>,
}

impl Part<'_> {
    /// The products of all rows with one or two panels. Rows past the last are unspecified.
    fn multiply(&mut self, panels: &[usize]) -> &mut [Products] {
        let mut right: [&[Line]; 2] = [&[]; 2];
        right.iter_mut().zip(panels).for_each(|(right, panel)| *right = self.weight.panel(*panel));
        // SAFETY: `for_each_part` prepared the rows for this weight, with space for their products.
        unsafe { self.engine.multiply(&self.left, &right[..panels.len()], &mut self.products, 1) };
        &mut self.products
    }
}

/// Rounds the left factor, splits the result into parts, and calls `part` for each on all threads, with its rows and
/// panels.
fn for_each_part(
    engine: Engine,
    left: &[f32],
    rows: usize,
    window: &Window,
    weight: &Bf16Weight,
    panel_count: usize,
    part: impl Fn(Part, Range<usize>, Range<usize>) + Sync,
) {
    let FactorSize { taps, depth, .. } = weight.size();
    let left = LeftRows::round(left, depth);
    let (lines, pairs) = (depth.div_ceil(LINE), depth.div_ceil(2));
    let zeros = vec![Line::ZERO; lines];
    Parts { rows, panels: panel_count, rows_per_task: Bf16Weight::ROWS_PER_TASK }.for_each(|rows, panels| {
        let mut starts = Vec::with_capacity(rows.len() * taps);
        window.gather(rows.clone(), |row| {
            starts.push(row.map_or(zeros.as_slice(), |row| left.row(row)).as_ptr());
        });
        let products = vec![[[0f32; PANEL]; 2]; rows.len().next_multiple_of(32)];
        // SAFETY: these are the starts of all taps of these rows, with this many lines each.
        let left = unsafe { engine.prepare(Rows { starts: &starts, taps, lines, pairs }) };
        part(Part { engine, left, weight, products }, rows, panels);
    });
}
