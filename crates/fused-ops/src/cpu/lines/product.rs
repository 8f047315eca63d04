//! Multiplies a gathered left factor by a packed weight: linear layers and convolutions.

use super::kernel::{Kernel, Prepared, Products, Rows};
use super::left::LeftRows;
use super::line::{Group, Line};
use super::weight::{Encoding, LineWeight};
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

/// [`gather_product`](crate::cpu::matmul::gather_product) in the weight's arithmetic.
pub(crate) fn product<E: Encoding>(
    kernel: &Kernel<E::Group>,
    left: &[f32],
    rows: usize,
    window: &Window,
    weight: &LineWeight<E>,
    epilogue: &SliceEpilogue,
) -> Vec<f32> {
    let FactorSize { depth, columns, .. } = weight.size();
    let left = LeftRows::encode(&weight.encoding, left, depth);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        for_each_result(
            kernel,
            &left,
            rows,
            window,
            weight,
            epilogue,
            #[inline(always)]
            |row, first, values| {
                // SAFETY: nothing else writes these columns of the row.
                unsafe { out.write(row * columns + first, values) };
            },
        );
    };
    // SAFETY: the results cover the output.
    unsafe { written(rows * columns, write) }
}

/// [`product`] with one weight and then with another, each with its epilogue. What is between them is encoded as soon as
/// it is computed, which gives the same bits and moves less memory.
pub(crate) fn two_products<E: Encoding<RowScale = ()>>(
    kernel: &Kernel<E::Group>,
    left: &[f32],
    rows: usize,
    (weight, epilogue): (&LineWeight<E>, &SliceEpilogue),
    (next, next_epilogue): (&LineWeight<E>, &SliceEpilogue),
) -> Vec<f32> {
    // A pair of panels fills a line.
    const { assert!(Line::<E::Group>::VALUES == 2 * PANEL) };
    let FactorSize { depth, columns: inner, .. } = weight.size();
    let FactorSize { taps, depth: next_depth, columns } = next.size();
    assert!(taps == 1 && next_depth == inner);
    let left = LeftRows::encode(&weight.encoding, left, depth);
    let mut between = LeftRows::<E>::zeros(rows, inner);
    let (lines, stride) = between.shared();
    for_each_result(
        kernel,
        &left,
        rows,
        &Window::Same,
        weight,
        epilogue,
        #[inline(always)]
        |row, first, values| {
            let mut line = [Line::<E::Group>::ZERO];
            next.encoding.encode_row(values, &mut Vec::new(), &mut line);
            // SAFETY: nothing else writes these columns of the row, which are a line.
            unsafe { lines.write(row * stride + first / (2 * PANEL), &line) };
        },
    );
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        for_each_result(
            kernel,
            &between,
            rows,
            &Window::Same,
            next,
            next_epilogue,
            #[inline(always)]
            |row, first, values| {
                // SAFETY: nothing else writes these columns of the row.
                unsafe { out.write(row * columns + first, values) };
            },
        );
    };
    // SAFETY: the results cover the output.
    unsafe { written(rows * columns, write) }
}

/// Calls `write` on all threads for each row of a product and each pair of panels: with the row, the first column, and
/// the results.
fn for_each_result<E: Encoding>(
    kernel: &Kernel<E::Group>,
    left: &LeftRows<E>,
    rows: usize,
    window: &Window,
    weight: &LineWeight<E>,
    epilogue: &SliceEpilogue,
    write: impl Fn(usize, usize, &[f32]) + Sync,
) {
    let columns = weight.size().columns;
    epilogue.check(rows, columns);
    for_each_part(kernel, left, rows, window, weight, columns.div_ceil(PANEL), |mut part, panels| {
        for panel in panels.clone().step_by(2) {
            let first = panel * PANEL;
            let width = (2 * PANEL).min(columns - first);
            part.multiply(
                [panel, panel + 1],
                2.min(panels.end - panel),
                #[inline(always)]
                |row, values| {
                    let values = &mut values.as_flattened_mut()[..width];
                    epilogue.finish(row, first, columns, values);
                    write(row, first, values);
                },
            );
        }
    });
}

/// [`linear_geglu`](crate::cpu::linear_geglu::linear_geglu) in the weight's arithmetic.
pub(crate) fn linear_geglu<E: Encoding>(
    kernel: &Kernel<E::Group>,
    left: &[f32],
    rows: usize,
    weight: &LineWeight<E>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let FactorSize { taps, depth, columns: both } = weight.size();
    let columns = both / 2;
    assert!(taps == 1 && both.is_multiple_of(2 * PANEL));
    assert!(bias.is_none_or(|bias| bias.len() == both));
    let left = LeftRows::encode(&weight.encoding, left, depth);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let panels = columns / PANEL;
        for_each_part(kernel, &left, rows, &Window::Same, weight, panels, |mut part, panels| {
            for panel in panels {
                let first = panel * PANEL;
                part.multiply(
                    [panel, columns / PANEL + panel],
                    2,
                    #[inline(always)]
                    |row, [values, gates]| {
                        if let Some(bias) = bias {
                            let (for_values, for_gates) = bias.split_at(columns);
                            add(values, &for_values[first..]);
                            add(gates, &for_gates[first..]);
                        }
                        values.iter_mut().zip(gates).for_each(|(value, gate)| *value *= gelu(*gate));
                        // SAFETY: only this part writes these columns of its rows.
                        unsafe { out.write(row * columns + first, values) };
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
struct Part<'a, E: Encoding> {
    rows: Range<usize>,
    left: Prepared<'a, E::Group>,
    /// What each row's values are multiplied by.
    scales: &'a [E::RowScale],
    weight: &'a LineWeight<E>,
    products: Vec<Products<E::Group>>,
}

impl<E: Encoding> Part<'_, E> {
    /// Multiplies all rows by the first `count` panels of a pair, and calls `finish` for each row with its products;
    /// without a second panel, its products are unspecified.
    #[inline(always)]
    fn multiply(&mut self, pair: [usize; 2], count: usize, finish: impl Fn(usize, &mut [[f32; PANEL]; 2])) {
        let mut right: [&[Line<E::Group>]; 2] = [&[]; 2];
        right.iter_mut().zip(pair).take(count).for_each(|(right, panel)| *right = self.weight.panel(panel));
        // SAFETY: `for_each_part` prepared the rows for this weight, with space for their products.
        unsafe { self.left.multiply(&right[..count], &mut self.products, 1) };
        let scales = pair.map(|panel| self.weight.encoding.panel_scale(panel));
        let mut values = [[0f32; PANEL]; 2];
        vectorized(
            #[inline(always)]
            || {
                for ((row, products), scale) in self.rows.clone().zip(&self.products).zip(self.scales) {
                    for panel in 0..2 {
                        E::decode_sums(&products[panel], *scale, &scales[panel], &mut values[panel]);
                    }
                    finish(row, &mut values);
                }
            },
        );
    }
}

/// Splits a product into parts, and calls `part` for each on all threads, with its panels.
fn for_each_part<E: Encoding>(
    kernel: &Kernel<E::Group>,
    left: &LeftRows<E>,
    rows: usize,
    window: &Window,
    weight: &LineWeight<E>,
    panel_count: usize,
    part: impl Fn(Part<E>, Range<usize>) + Sync,
) {
    let FactorSize { taps, depth, .. } = weight.size();
    let (lines, groups) = (depth.div_ceil(Line::<E::Group>::VALUES), depth.div_ceil(E::Group::LEN));
    let zeros = vec![Line([E::ZEROS; PANEL]); lines];
    let rows_per_task = LineWeight::<E>::ROWS_PER_TASK;
    Parts { rows, panels: panel_count, rows_per_task }.for_each(|rows, panels| {
        let count = rows.len() * taps;
        let (mut starts, mut scales) = (Vec::with_capacity(count), Vec::with_capacity(count));
        window.gather(rows.clone(), |row| {
            starts.push(row.map_or(zeros.as_slice(), |row| left.row(row)).as_ptr());
            scales.push(row.map(|row| left.scale(row)).unwrap_or_default());
        });
        let zero = [[<E::Group as Group>::Sum::default(); PANEL]; 2];
        let products = vec![zero; rows.len().next_multiple_of(32)];
        // SAFETY: these are the starts of all taps of these rows, with this many lines each.
        let left = unsafe { kernel.prepare(Rows { starts: &starts, taps, lines, groups }) };
        part(Part { rows, left, scales: &scales, weight, products }, panels);
    });
}
