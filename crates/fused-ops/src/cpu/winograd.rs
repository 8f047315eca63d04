//! 3 × 3 convolutions of stride 1 by Winograd's minimal filtering, F(4×4, 3×3): 36 products make 16 outputs, where the
//! direct way takes 144 (Lavin & Gray, arXiv 1509.09308).
//!
//! A tile of 6 × 6 pixels is transformed to 36 values per channel; for each of these positions the tiles of a task, times
//! the transformed weights, are one matrix product over the channels; and the 36 results are transformed back to 4 × 4
//! pixels. Interpolated at 0, ±1, ±2 and ∞.

#![allow(clippy::needless_range_loop)] // y and x are places of squares here, not of slices

use super::epilogue::Epilogue;
use super::kernel::{Block, Left, PANEL, Right, Stored};
use super::pack::Panels;
use super::window::Window;
use super::{Shared, arch};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Pixels along a side of what a tile reads.
const IN: usize = 6;
/// Pixels along a side of what a tile makes.
const OUT: usize = 4;
/// Places of a transformed tile.
pub(crate) const PLACES: usize = IN * IN;
/// Tiles of one task: they share each read of the weights, and their 36 products should stay in the L2 cache.
const TILES: usize = 24;
/// Columns whose products are in work at a time.
const COLUMNS: usize = 2 * PANEL;

/// Values of one channel panel.
type Lanes = [f32; PANEL];

/// `Bᵀ d` of six vectors.
#[inline(always)]
fn input_transform<S: Simd>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN] {
    let [d0, d1, d2, d3, d4, d5] = d;
    let times = |factor: f32, x, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), x, plus);
    let (a, b) = (times(-4., d2, d4), times(-4., d1, d3));
    let (c, e) = (simd.sub_f32s(d4, d2), simd.sub_f32s(d3, d1));
    [
        times(4., d0, times(-5., d2, d4)),
        simd.add_f32s(a, b),
        simd.sub_f32s(a, b),
        times(2., e, c),
        times(-2., e, c),
        times(4., d1, times(-5., d3, d5)),
    ]
}

/// `Aᵀ m` of six vectors.
#[inline(always)]
fn output_transform<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT] {
    let [m0, m1, m2, m3, m4, m5] = m;
    let times = |factor: f32, x, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), x, plus);
    let (sum12, difference12) = (simd.add_f32s(m1, m2), simd.sub_f32s(m1, m2));
    let (sum34, difference34) = (simd.add_f32s(m3, m4), simd.sub_f32s(m3, m4));
    [
        simd.add_f32s(m0, simd.add_f32s(sum12, sum34)),
        times(2., difference34, difference12),
        times(4., sum34, sum12),
        simd.add_f32s(m5, times(8., difference34, difference12)),
    ]
}

/// `G g` of three vectors.
#[inline(always)]
fn weight_transform<S: Simd>(simd: S, g: [S::f32s; 3]) -> [S::f32s; IN] {
    let [g0, g1, g2] = g;
    let times = |factor: f32, x| simd.mul_f32s(simd.splat_f32s(factor), x);
    let near = simd.add_f32s(g0, g2);
    let far = simd.mul_add_e_f32s(simd.splat_f32s(4.), g2, g0);
    let twice = simd.add_f32s(g1, g1);
    [
        times(1. / 4., g0),
        times(-1. / 6., simd.add_f32s(near, g1)),
        times(-1. / 6., simd.sub_f32s(near, g1)),
        times(1. / 24., simd.add_f32s(far, twice)),
        times(1. / 24., simd.sub_f32s(far, twice)),
        g2,
    ]
}

#[inline(always)]
fn read<S: Simd>(lanes: &Lanes, first: usize) -> S::f32s {
    assert!(first + S::F32_LANES <= PANEL);
    // SAFETY: the vector lies within the lanes.
    unsafe { lanes.as_ptr().add(first).cast::<S::f32s>().read_unaligned() }
}

#[inline(always)]
fn write<S: Simd>(lanes: &mut Lanes, first: usize, values: S::f32s) {
    assert!(first + S::F32_LANES <= PANEL);
    // SAFETY: the vector lies within the lanes.
    unsafe { lanes.as_mut_ptr().add(first).cast::<S::f32s>().write_unaligned(values) }
}

/// Some panels of the weights of a direct convolution, which has 9 taps, as right factors of the 36 products.
pub(crate) fn transform_weights<T: Stored>(weights: &Panels<T>, panels: Range<usize>) -> Panels {
    assert_eq!(weights.taps, 9);
    let depth = weights.depth;
    let columns = weights.columns.min(panels.end * PANEL) - panels.start * PANEL;
    let arch = arch();
    Panels::by_panel(PLACES, depth, columns, |panel, out: &mut [f32]| {
        arch.dispatch(WeightTask { weights: weights.panel(panels.start + panel), depth, out });
    })
}

/// One panel of weights.
struct WeightTask<'a, T> {
    weights: &'a [T],
    depth: usize,
    out: &'a mut [f32],
}

impl<T: Stored> WithSimd for WeightTask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (weights, depth) = (self.weights.as_chunks::<PANEL>().0, self.depth);
        let out = self.out.as_chunks_mut::<PANEL>().0;
        for k in 0..depth {
            let mut taps = [[0f32; PANEL]; 9];
            for (tap, lanes) in taps.iter_mut().enumerate() {
                for (lane, value) in lanes.iter_mut().zip(&weights[tap * depth + k]) {
                    *lane = value.widen();
                }
            }
            for first in (0..PANEL).step_by(S::F32_LANES) {
                let load = |y: usize, x: usize| read::<S>(&taps[3 * y + x], first);
                let mut store =
                    |y: usize, x: usize, v| write::<S>(&mut out[(y * IN + x) * depth + k], first, v);
                let mut half = [[simd.splat_f32s(0.); IN]; 3];
                for (y, half) in half.iter_mut().enumerate() {
                    *half = weight_transform(simd, [load(y, 0), load(y, 1), load(y, 2)]);
                }
                for x in 0..IN {
                    let column = weight_transform(simd, [half[0][x], half[1][x], half[2][x]]);
                    for (y, values) in column.into_iter().enumerate() {
                        store(y, x, values);
                    }
                }
            }
        }
    }
}

/// The pictures of one convolution, whose output is as large as its input (after any upsampling).
#[derive(Clone, Copy)]
pub(crate) struct Pictures {
    pub batch: usize,
    /// Of the output.
    pub height: usize,
    pub width: usize,
}

impl Pictures {
    fn tile_rows(&self) -> usize {
        self.height.div_ceil(OUT)
    }

    fn tile_columns(&self) -> usize {
        self.width.div_ceil(OUT)
    }

    pub fn tiles(&self) -> usize {
        self.batch * self.tile_rows() * self.tile_columns()
    }

    /// Picture, and first row and column of the output, of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.tile_columns(), tile % self.tile_columns());
        (row / self.tile_rows(), row % self.tile_rows() * OUT, column * OUT)
    }
}

/// Whether this way is faster than the direct one, by counts of multiply-adds: those of the products, and for each value
/// that is transformed what that takes as long as.
pub(crate) fn pays(pictures: Pictures, depth: usize, columns: usize, weights_ready: bool) -> bool {
    const OF_TILES: usize = 60;
    const OF_WEIGHTS: usize = 80;
    let rows = pictures.batch * pictures.height * pictures.width;
    let of_weights = if weights_ready { 0 } else { OF_WEIGHTS };
    let products = (pictures.tiles() + of_weights) * depth * columns;
    let transforms = pictures.tiles() * (depth + columns) * OF_TILES;
    PLACES * (products + transforms) < 9 * rows * depth * columns
}

/// A convolution of `x`, pixels of `weights.depth` channels, with transformed weights: those of `weights.columns` of the
/// `columns` of `out`, from `first_column` on.
#[allow(clippy::too_many_arguments)] // all that a convolution is
pub(crate) fn convolution(
    x: &[f32],
    pictures: Pictures,
    window: &Window,
    weights: &Panels,
    first_column: usize,
    epilogue: &Epilogue,
    columns: usize,
    out: &mut [MaybeUninit<f32>],
) {
    let depth = weights.depth;
    let rows = pictures.batch * pictures.height * pictures.width;
    assert_eq!(out.len(), rows * columns);
    assert!(first_column + weights.columns <= columns);
    epilogue.check(rows, columns);
    let shared = Shared::new(out);
    let tiles = pictures.tiles();
    let zeros = vec![0f32; depth.next_multiple_of(PANEL)];
    let blocks = tiles.div_ceil(TILES);
    // Where blocks are few, tasks also divide the columns, and transform their tiles again.
    let pairs = weights.columns.div_ceil(COLUMNS);
    let splits = (4 * rayon::current_num_threads()).div_ceil(blocks).clamp(1, pairs.div_ceil(4));
    let pairs_per_task = pairs.div_ceil(splits);
    let column_tasks = pairs.div_ceil(pairs_per_task);
    let arch = arch();
    (0..blocks * column_tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (block, column_task) = (task / column_tasks, task % column_tasks);
        let first_pair = column_task * pairs_per_task;
        arch.dispatch(Task {
            x,
            zeros: &zeros,
            pictures,
            window,
            tiles: block * TILES..((block + 1) * TILES).min(tiles),
            weights,
            pairs: first_pair..(first_pair + pairs_per_task).min(pairs),
            first_column,
            epilogue,
            columns,
            out: shared,
        });
    });
}

/// Some tiles of a convolution, and some pairs of panels of its columns.
struct Task<'a> {
    x: &'a [f32],
    /// What pixels outside the pictures have.
    zeros: &'a [f32],
    pictures: Pictures,
    window: &'a Window,
    tiles: Range<usize>,
    weights: &'a Panels,
    pairs: Range<usize>,
    first_column: usize,
    epilogue: &'a Epilogue<'a>,
    /// Of the output, all together.
    columns: usize,
    out: Shared,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Panels { depth, columns, .. } = *self.weights;
        let tiles = self.tiles.len();
        // Rows a little apart do not push each other out of the cache.
        let stride = depth.next_multiple_of(PANEL) + PANEL;
        let mut transformed = vec![0f32; PLACES * tiles * stride];
        for (index, tile) in self.tiles.clone().enumerate() {
            self.transform_input(simd, tile, &mut transformed[index * stride..], tiles * stride);
        }
        let mut products = vec![0f32; PLACES * tiles * COLUMNS];
        let right = self.weights.right();
        let mut starts = Vec::with_capacity(tiles);
        for pair in self.pairs.clone() {
            let first = pair * COLUMNS;
            for place in 0..PLACES {
                starts.clear();
                let rows = &transformed[place * tiles * stride..][..tiles * stride];
                starts.extend(rows.chunks_exact(stride).map(<[f32]>::as_ptr));
                Block {
                    left: Left::Rows { starts: &starts, taps: 1, depth },
                    right: Right { data: right.data.wrapping_add(place * depth * PANEL), ..right },
                    rows: tiles,
                    panels: 2 * pair..(2 * pair + 2).min(columns.div_ceil(PANEL)),
                    columns,
                    accumulate: false,
                    // A block writes column c at out + c.
                    out: products[place * tiles * COLUMNS..].as_mut_ptr().wrapping_sub(first),
                    out_stride: COLUMNS,
                }
                .with_simd(simd);
            }
            for (index, tile) in self.tiles.clone().enumerate() {
                self.transform_output(simd, tile, &products[index * COLUMNS..], tiles * COLUMNS, first);
            }
        }
    }
}

impl Task<'_> {
    /// Writes a tile's channels at each place, which are `distance` apart.
    #[inline(always)]
    fn transform_input<S: Simd>(&self, simd: S, tile: usize, out: &mut [f32], distance: usize) {
        let depth = self.weights.depth;
        let (picture, y, x) = self.pictures.place(tile);
        let mut pixels: [[&[f32]; IN]; IN] = [[self.zeros; IN]; IN];
        for (dy, row) in pixels.iter_mut().enumerate() {
            for (dx, pixel) in row.iter_mut().enumerate() {
                if let Some(place) = self.window.source(picture, y + dy, x + dx) {
                    *pixel = &self.x[place * depth..][..depth];
                }
            }
        }
        for panel in (0..depth).step_by(PANEL) {
            let width = PANEL.min(depth - panel);
            let mut partial = [[[0f32; PANEL]; IN]; IN];
            for first in (0..width).step_by(S::F32_LANES) {
                let mut half = [[simd.splat_f32s(0.); IN]; IN];
                for y in 0..IN {
                    let mut row = [simd.splat_f32s(0.); IN];
                    for x in 0..IN {
                        let values = &pixels[y][x][panel..];
                        let lanes = match values.first_chunk::<PANEL>() {
                            Some(lanes) => lanes,
                            None => {
                                partial[y][x][..width].copy_from_slice(&values[..width]);
                                &partial[y][x]
                            }
                        };
                        row[x] = read::<S>(lanes, first);
                    }
                    half[y] = input_transform(simd, row);
                }
                for x in 0..IN {
                    let mut column = [simd.splat_f32s(0.); IN];
                    for y in 0..IN {
                        column[y] = half[y][x];
                    }
                    let column = input_transform(simd, column);
                    for y in 0..IN {
                        let out = &mut out[(y * IN + x) * distance + panel..];
                        if let Some(lanes) = out.first_chunk_mut::<PANEL>() {
                            write::<S>(lanes, first, column[y]);
                        }
                    }
                }
            }
        }
    }

    /// Turns a tile's products, `distance` apart, into pixels, from column `first` on.
    #[inline(always)]
    fn transform_output<S: Simd>(
        &self,
        simd: S,
        tile: usize,
        products: &[f32],
        distance: usize,
        first: usize,
    ) {
        let columns = self.weights.columns;
        let Pictures { height, width, .. } = self.pictures;
        let (picture, top, left) = self.pictures.place(tile);
        for panel in (first..columns.min(first + COLUMNS)).step_by(PANEL) {
            let count = PANEL.min(columns - panel);
            let mut pixels = [[[0f32; PANEL]; OUT]; OUT];
            for part in (0..count).step_by(S::F32_LANES) {
                let mut half = [[simd.splat_f32s(0.); IN]; OUT];
                for x in 0..IN {
                    let mut column = [simd.splat_f32s(0.); IN];
                    for y in 0..IN {
                        let products = &products[(y * IN + x) * distance + panel - first..];
                        if let Some(lanes) = products.first_chunk::<PANEL>() {
                            column[y] = read::<S>(lanes, part);
                        }
                    }
                    let column = output_transform(simd, column);
                    for y in 0..OUT {
                        half[y][x] = column[y];
                    }
                }
                for y in 0..OUT {
                    let row = output_transform(simd, half[y]);
                    for x in 0..OUT {
                        write::<S>(&mut pixels[y][x], part, row[x]);
                    }
                }
            }
            for (y, pixels) in pixels.iter_mut().enumerate().take(height - top) {
                for (x, lanes) in pixels.iter_mut().enumerate().take(width - left) {
                    let row = (picture * height + top + y) * width + left + x;
                    let values = &mut lanes[..count];
                    let column = self.first_column + panel;
                    self.epilogue.finish(row, column, self.columns, values);
                    // SAFETY: the row is one of the output's, and this task alone writes these columns of it.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(self.out.at(row * self.columns + column), count)
                    };
                    out.copy_from_slice(values);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d::{Conv2dOptions, Padding};
    use crate::cpu::convolution::Geometry;
    use crate::cpu::written;
    use rand::{RngExt, SeedableRng};

    /// The largest difference from the direct convolution, in units of its root mean square.
    fn error(batch: usize, height: usize, width: usize, channels: (usize, usize), upsample: bool) -> f32 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1f32..1.)).collect() };
        let options = Conv2dOptions { stride: 1, padding: Padding::same(1), upsample };
        let (in_channels, out_channels) = channels;
        let geometry = Geometry { batch, height, width, in_channels, out_channels, kernel: 3, options };
        let x = random(batch * height * width * in_channels);
        let weights = geometry.pack(&random(9 * in_channels * out_channels));
        let (bias, residual) = (random(out_channels), random(geometry.out_pixels() * out_channels));
        let epilogue = Epilogue { residual: Some(&residual), ..Epilogue::bias(Some(&bias)) };
        let expected = geometry.forward(&x, &weights, &epilogue);
        let pictures = Pictures { batch, height: geometry.out_height(), width: geometry.out_width() };
        // In two parts, as weights come that are too large to be kept.
        let panels = out_channels.div_ceil(PANEL);
        let write = |found: &mut [MaybeUninit<f32>]| {
            for panels in [0..panels / 2, panels / 2..panels].into_iter().filter(|panels| !panels.is_empty())
            {
                let part = transform_weights(&weights, panels.clone());
                let (source, first) = (geometry.source(), panels.start * PANEL);
                convolution(&x, pictures, &source, &part, first, &epilogue, out_channels, found);
            }
        };
        // SAFETY: the two parts cover all columns.
        let found = unsafe { written(expected.len(), write) };
        let scale = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
        expected.iter().zip(&found).fold(0., |worst: f32, (a, b)| worst.max((a - b).abs())) / scale
    }

    /// The transforms' largest factors, 10² · 10² / 24² for a corner, multiply the rounding of a sum, which is a few units
    /// of 2⁻²⁴ of it.
    #[test]
    fn is_the_direct_convolution() {
        for (batch, height, width, channels, upsample) in [
            (1, 1, 1, (1, 1), false),
            (1, 4, 4, (16, 16), false),
            (2, 5, 3, (3, 7), false),
            (3, 13, 10, (33, 50), false),
            (1, 9, 8, (20, 65), true),
            (2, 32, 31, (40, 32), false),
        ] {
            let error = error(batch, height, width, channels, upsample);
            assert!(error < 3e-5, "{batch}, {height} × {width}, {channels:?}: {error}");
        }
    }
}
