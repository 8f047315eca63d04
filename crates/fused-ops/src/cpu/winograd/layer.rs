//! Transforms a convolution's pixels to tiles, and products to pixels.

use super::tile::{IN, OUT, side};
use super::transforms::{input_transform, output_transform, read, write};
use crate::cpu::epilogue::SliceEpilogue;
use crate::cpu::microkernel::PANEL;
use crate::cpu::output::SharedOutput;
use crate::cpu::window::Window;
use pulp::Simd;
use std::ops::Range;

/// The images of a convolution whose output is as large as its (upsampled) input.
#[derive(Clone, Copy)]
pub(crate) struct Images {
    pub(crate) batch: usize,
    /// Height of the output.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether they are doubled by nearest neighbour before the convolution.
    pub(crate) doubled: bool,
}

impl Images {
    fn tile_rows(&self) -> usize {
        self.height.div_ceil(OUT)
    }

    fn tile_columns(&self) -> usize {
        self.width.div_ceil(OUT)
    }

    pub(crate) fn tiles(&self) -> usize {
        self.batch * self.tile_rows() * self.tile_columns()
    }

    /// Image, first row and first column of a tile's output.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.tile_columns(), tile % self.tile_columns());
        (row / self.tile_rows(), row % self.tile_rows() * OUT, column * OUT)
    }
}

/// A convolution without its weights.
pub(super) struct Layer<'a> {
    /// Pixels of `depth` channels.
    pub(crate) x: &'a [f32],
    pub(crate) depth: usize,
    /// What pixels outside the images read.
    pub(crate) zeros: Vec<f32>,
    pub(crate) images: Images,
    pub(crate) window: &'a Window,
    pub(crate) epilogue: &'a SliceEpilogue<'a>,
    /// Columns of the output.
    pub(crate) columns: usize,
    pub(crate) out: SharedOutput<'a>,
}

impl Layer<'_> {
    /// The stride between rows of transformed tiles, padded so that they do not compete for cache sets.
    pub(crate) fn stride(&self) -> usize {
        self.depth.next_multiple_of(PANEL) + PANEL
    }

    /// Writes a tile's channels at each of its places, which are `distance` apart, in whole panels with arbitrary
    /// padding.
    ///
    /// # Safety
    /// `out` must be valid for that.
    #[inline(always)]
    pub(crate) unsafe fn transform_input<S: Simd, const DOUBLED: bool>(
        &self,
        simd: S,
        tile: usize,
        out: *mut f32,
        distance: usize,
    ) {
        let depth = self.depth;
        let (image, y, x) = self.images.place(tile);
        // Of two copies of a pixel one is enough.
        let offsets: &[usize] = if DOUBLED { &[0, 1, 3, 5] } else { &[0, 1, 2, 3, 4, 5] };
        let mut pixels: [[&[f32]; IN]; IN] = [[self.zeros.as_slice(); IN]; IN];
        for (row, dy) in pixels.iter_mut().zip(offsets) {
            for (pixel, dx) in row.iter_mut().zip(offsets) {
                if let Some(place) = self.window.source(image, y + dy, x + dx) {
                    *pixel = &self.x[place * depth..][..depth];
                }
            }
        }
        for panel in (0..depth).step_by(PANEL) {
            let width = PANEL.min(depth - panel);
            let mut partial = [[[0f32; PANEL]; IN]; IN];
            for first in (0..width).step_by(S::F32_LANES) {
                let mut half = [[simd.splat_f32s(0.); IN]; IN];
                for y in 0..offsets.len() {
                    let mut row = [simd.splat_f32s(0.); IN];
                    for x in 0..offsets.len() {
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
                    half[y] = input_transform::<S, DOUBLED>(simd, row);
                }
                for x in 0..side(DOUBLED) {
                    let mut column = [simd.splat_f32s(0.); IN];
                    for y in 0..offsets.len() {
                        column[y] = half[y][x];
                    }
                    let column = input_transform::<S, DOUBLED>(simd, column);
                    for y in 0..side(DOUBLED) {
                        // SAFETY: the caller guarantees the panel.
                        unsafe {
                            let out = out.add((y * side(DOUBLED) + x) * distance + panel + first);
                            out.cast::<S::f32s>().write_unaligned(column[y]);
                        }
                    }
                }
            }
        }
    }

    /// Converts a tile's products at its places, `distance` apart, into pixel values of the columns `columns`.
    ///
    /// # Safety
    /// The products of these columns must have been written.
    #[inline(always)]
    pub(crate) unsafe fn transform_output<S: Simd, const DOUBLED: bool>(
        &self,
        simd: S,
        tile: usize,
        products: *const f32,
        distance: usize,
        columns: Range<usize>,
    ) {
        let Images { height, width, .. } = self.images;
        let (image, top, left) = self.images.place(tile);
        for panel in columns.clone().step_by(PANEL) {
            let count = PANEL.min(columns.end - panel);
            let mut pixels = [[[0f32; PANEL]; OUT]; OUT];
            for part in (0..count).step_by(S::F32_LANES) {
                let mut half = [[simd.splat_f32s(0.); IN]; OUT];
                for x in 0..side(DOUBLED) {
                    let mut column = [simd.splat_f32s(0.); IN];
                    for y in 0..side(DOUBLED) {
                        let place = (y * side(DOUBLED) + x) * distance + panel - columns.start + part;
                        // SAFETY: the caller guarantees the products, of which there are whole panels.
                        column[y] = unsafe { products.add(place).cast::<S::f32s>().read_unaligned() };
                    }
                    let column = output_transform::<S, DOUBLED>(simd, column);
                    for y in 0..OUT {
                        half[y][x] = column[y];
                    }
                }
                for y in 0..OUT {
                    let row = output_transform::<S, DOUBLED>(simd, half[y]);
                    for x in 0..OUT {
                        write::<S>(&mut pixels[y][x], part, row[x]);
                    }
                }
            }
            for (y, pixels) in pixels.iter_mut().enumerate().take(height - top) {
                for (x, lanes) in pixels.iter_mut().enumerate().take(width - left) {
                    let row = (image * height + top + y) * width + left + x;
                    let values = &mut lanes[..count];
                    self.epilogue.finish(row, panel, self.columns, values);
                    // SAFETY: this task alone writes these columns of the row.
                    unsafe { self.out.write(row * self.columns + panel, values) };
                }
            }
        }
    }
}
