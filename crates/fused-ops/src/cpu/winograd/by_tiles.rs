//! Convolves many tiles, or by weights transformed in advance: each task transforms some tiles and multiplies them by
//! all weights.

use super::layer::Layer;
use super::tile::{COLUMNS, places};
use super::transforms::transform_weights;
use crate::cpu::microkernel::{Block, Left, PANEL, Right};
use crate::cpu::pack::{Factor, FactorSize, Panels};
use crate::cpu::simd::arch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Tiles per task: they share each read of the weights, and their products should fit the L2 cache.
const TILES: usize = 24;

/// Transforms some panels of the direct convolution's weights (9 taps) into right factors of the products.
pub(super) fn transformed<F: Factor, const DOUBLED: bool>(weights: &F, panels: Range<usize>) -> Panels {
    let FactorSize { taps, depth, columns } = weights.size();
    assert_eq!(taps, 9);
    let columns = columns.min(panels.end * PANEL) - panels.start * PANEL;
    let arch = arch();
    Panels::by_panel(places(DOUBLED), depth, columns, |panel, out: &mut [f32]| {
        arch.dispatch(WeightTask::<F, DOUBLED> { weights, panel: panels.start + panel, depth, out });
    })
}

/// One panel of weights.
struct WeightTask<'a, F, const DOUBLED: bool> {
    weights: &'a F,
    panel: usize,
    depth: usize,
    out: &'a mut [f32],
}

impl<F: Factor, const DOUBLED: bool> WithSimd for WeightTask<'_, F, DOUBLED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut scratch = Vec::new();
        for first in (0..self.depth).step_by(self.weights.depth_per_part()) {
            let channels = first..self.depth.min(first + self.weights.depth_per_part());
            let count = channels.len();
            let weights = self.weights.part(&[self.panel], channels, &mut scratch);
            transform_weights::<S, _, DOUBLED>(
                simd,
                weights,
                count,
                self.depth,
                &mut self.out[first * PANEL..],
            );
        }
    }
}

/// Computes the layer's columns from `first_column` on, as many as `weights`, which are transformed, have.
pub(super) fn convolution<const DOUBLED: bool>(layer: &Layer, weights: &Panels, first_column: usize) {
    assert!(weights.depth == layer.depth && first_column + weights.columns <= layer.columns);
    let tiles = layer.images.tiles();
    let blocks = tiles.div_ceil(TILES);
    // With few tiles, tasks also split the columns and repeat the transform of their tiles.
    let pairs = weights.columns.div_ceil(COLUMNS);
    let splits = (4 * rayon::current_num_threads()).div_ceil(blocks).clamp(1, pairs.div_ceil(4));
    let pairs_per_task = pairs.div_ceil(splits);
    let column_tasks = pairs.div_ceil(pairs_per_task);
    let arch = arch();
    (0..blocks * column_tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (block, column_task) = (task / column_tasks, task % column_tasks);
        let first_pair = column_task * pairs_per_task;
        arch.dispatch(TileTask::<DOUBLED> {
            layer,
            tiles: block * TILES..((block + 1) * TILES).min(tiles),
            weights,
            pairs: first_pair..(first_pair + pairs_per_task).min(pairs),
            first_column,
        });
    });
}

/// Some tiles, and some pairs of panels of the columns.
struct TileTask<'a, const DOUBLED: bool> {
    layer: &'a Layer<'a>,
    tiles: Range<usize>,
    weights: &'a Panels,
    pairs: Range<usize>,
    /// The layer's column at which the weights begin.
    first_column: usize,
}

impl<const DOUBLED: bool> WithSimd for TileTask<'_, DOUBLED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let places = places(DOUBLED);
        let Panels { depth, columns, .. } = *self.weights;
        let tiles = self.tiles.len();
        let stride = self.layer.stride();
        let mut transformed = Box::<[f32]>::new_uninit_slice(places * tiles * stride);
        let transformed: *mut f32 = transformed.as_mut_ptr().cast();
        for (index, tile) in self.tiles.clone().enumerate() {
            // SAFETY: a row of a place is long enough for the panels of all channels.
            unsafe {
                self.layer.transform_input::<S, DOUBLED>(
                    simd,
                    tile,
                    transformed.add(index * stride),
                    tiles * stride,
                );
            }
        }
        let mut products = Box::<[f32]>::new_uninit_slice(places * tiles * COLUMNS);
        let products: *mut f32 = products.as_mut_ptr().cast();
        let right = self.weights.right();
        let mut starts = Vec::with_capacity(tiles);
        for pair in self.pairs.clone() {
            let first = pair * COLUMNS;
            for place in 0..places {
                starts.clear();
                let row = |tile| transformed.wrapping_add((place * tiles + tile) * stride).cast_const();
                starts.extend((0..tiles).map(row));
                let block = Block {
                    left: Left::Rows { starts: &starts, taps: 1, depth },
                    right: Right { data: right.data.wrapping_add(place * depth * PANEL), ..right },
                    rows: tiles,
                    panels: 2 * pair..(2 * pair + 2).min(columns.div_ceil(PANEL)),
                    // Whole panels, zero-padded after the last column.
                    columns: columns.next_multiple_of(PANEL),
                    accumulate: false,
                    // A block writes column c at out + c.
                    out: products.wrapping_add(place * tiles * COLUMNS).wrapping_sub(first),
                    out_stride: COLUMNS,
                };
                // SAFETY: all tiles were transformed, the weights are packed to the same depth for each place, and the
                // products have room for two panels' columns of every place and tile.
                unsafe { block.run(simd) };
            }
            let columns = self.first_column + first..self.first_column + columns.min(first + COLUMNS);
            for (index, tile) in self.tiles.clone().enumerate() {
                // SAFETY: the blocks have written these columns of every place and tile.
                unsafe {
                    let products = products.add(index * COLUMNS);
                    self.layer.transform_output::<S, DOUBLED>(
                        simd,
                        tile,
                        products,
                        tiles * COLUMNS,
                        columns.clone(),
                    );
                }
            }
        }
    }
}
