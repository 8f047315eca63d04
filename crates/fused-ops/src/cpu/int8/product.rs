//! Multiplies a left factor by a packed weight in int8: linear layers and 1 × 1 convolutions.

use super::engine::{Engine, Prepared};
use super::left::LeftRows;
use super::line::{LINE, Line, SHIFT};
use super::rows::{Products, Rows};
use super::weight::Int8Weight;
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

/// [`gather_product`](crate::cpu::matmul::gather_product) in int8.
pub(crate) fn product(
    engine: Engine,
    left: &[f32],
    rows: usize,
    window: &Window,
    weight: &Int8Weight,
    epilogue: &SliceEpilogue,
) -> Vec<f32> {
    let columns = weight.size().columns;
    epilogue.check(rows, columns);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let panels = columns.div_ceil(PANEL);
        for_each_part(engine, left, rows, window, weight, panels, |mut part, rows, panels| {
            let mut values = [[0f32; PANEL]; 2];
            for panel in panels.clone().step_by(2) {
                let pair = [panel, panel + 1];
                part.multiply(&pair[..2.min(panels.end - panel)]);
                let scaled = part.scaled(pair);
                let first = panel * PANEL;
                let count = (2 * PANEL).min(columns - first);
                vectorized(
                    #[inline(always)]
                    || {
                        for (i, row) in rows.clone().enumerate() {
                            scaled.write_row(i, &mut values);
                            let values = &mut values.as_flattened_mut()[..count];
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

/// [`linear_geglu`](crate::cpu::linear_geglu::linear_geglu) in int8.
pub(crate) fn linear_geglu(
    engine: Engine,
    left: &[f32],
    rows: usize,
    weight: &Int8Weight,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let both = weight.size().columns;
    let columns = both / 2;
    assert!(both.is_multiple_of(2 * PANEL));
    assert!(bias.is_none_or(|bias| bias.len() == both));
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let panels = columns / PANEL;
        for_each_part(engine, left, rows, &Window::Same, weight, panels, |mut part, rows, panels| {
            let mut both = [[0f32; PANEL]; 2];
            for panel in panels {
                let pair = [panel, columns / PANEL + panel];
                part.multiply(&pair);
                let scaled = part.scaled(pair);
                let first = panel * PANEL;
                vectorized(
                    #[inline(always)]
                    || {
                        for (i, row) in rows.clone().enumerate() {
                            scaled.write_row(i, &mut both);
                            let [values, gates] = &mut both;
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
    /// What each row's integers are multiplied by.
    scales: &'a [f32],
    weight: &'a Int8Weight,
    products: Vec<Products>,
}

impl Part<'_> {
    /// Multiplies all rows by one or two panels.
    fn multiply(&mut self, panels: &[usize]) {
        let mut right: [&[Line]; 2] = [&[]; 2];
        right.iter_mut().zip(panels).for_each(|(right, panel)| *right = self.weight.panel(*panel));
        // SAFETY: `for_each_part` prepared the rows for this weight, with space for their products.
        unsafe { self.engine.multiply(&self.left, &right[..panels.len()], &mut self.products) };
    }

    /// The last products, with these panels, as real numbers.
    fn scaled(&self, panels: [usize; 2]) -> Scaled<'_> {
        let [first, second] = panels.map(|panel| self.weight.panel_scales(panel));
        Scaled {
            products: &self.products,
            row_scales: self.scales,
            scales: [first.0, second.0],
            excess: [first.1, second.1],
        }
    }
}

/// Products with what turns them into real numbers.
struct Scaled<'a> {
    products: &'a [Products],
    row_scales: &'a [f32],
    scales: [[f32; PANEL]; 2],
    excess: [[i32; PANEL]; 2],
}

impl Scaled<'_> {
    #[inline(always)]
    fn write_row(&self, row: usize, out: &mut [[f32; PANEL]; 2]) {
        let (products, row_scale) = (&self.products[row], self.row_scales[row]);
        for panel in 0..2 {
            for lane in 0..PANEL {
                let product = products[panel][lane].wrapping_sub(self.excess[panel][lane]);
                out[panel][lane] = product as f32 * (row_scale * self.scales[panel][lane]);
            }
        }
    }
}

/// Quantizes the left factor, splits the result into parts, and calls `part` for each on all threads, with its rows and
/// panels.
fn for_each_part(
    engine: Engine,
    left: &[f32],
    rows: usize,
    window: &Window,
    weight: &Int8Weight,
    panel_count: usize,
    part: impl Fn(Part, Range<usize>, Range<usize>) + Sync,
) {
    let FactorSize { depth, .. } = weight.size();
    let left = LeftRows::quantize(left, depth, weight.factors());
    let (lines, quads) = (depth.div_ceil(LINE), depth.div_ceil(4));
    let zeros = vec![Line([SHIFT; LINE]); lines];
    Parts { rows, panels: panel_count, rows_per_task: Int8Weight::ROWS_PER_TASK }.for_each(|rows, panels| {
        let (mut starts, mut scales) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        window.gather(rows.clone(), |row| {
            starts.push(row.map_or(zeros.as_slice(), |row| left.row(row)).as_ptr());
            scales.push(row.map_or(0., |row| left.scale(row)));
        });
        let products = vec![[[0i32; PANEL]; 2]; rows.len().next_multiple_of(32)];
        // SAFETY: these are the starts of these rows, with this many lines each.
        let left = unsafe { engine.prepare(Rows { starts: &starts, lines, quads }) };
        part(Part { engine, left, scales: &scales, weight, products }, rows, panels);
    });
}
