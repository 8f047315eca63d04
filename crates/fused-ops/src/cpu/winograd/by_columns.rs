//! Convolves few tiles by large weights. The tiles are transformed once; each task transforms the weights of some
//! columns, a few input channels at a time, and multiplies all tiles by them while they are in the L2 cache.
//! Transformed weights are never written to memory, where they would take four times the space of the weights.

use super::layer::Layer;
use super::tile::{COLUMNS, places};
use super::transforms::transform_weights;
use crate::cpu::microkernel::{Block, Left, PANEL, Right};
use crate::cpu::output::{SharedOutput, written};
use crate::cpu::pack::{Factor, FactorSize};
use crate::cpu::simd::arch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Input channels whose transformed weights exist at the same time: those of two panels of columns take 293 KiB.
const CHANNELS: usize = 64;
/// Rows of a place's transformed weights. With 64, places would be 4 KiB apart and all map to the same set of the L1
/// cache.
const ROWS: usize = CHANNELS + 1;

/// The whole layer, from the direct convolution's weights (9 taps).
pub(super) fn convolution<F: Factor, const DOUBLED: bool>(layer: &Layer, weights: &F) {
    assert_eq!(weights.size(), FactorSize { taps: 9, depth: layer.depth, columns: layer.columns });
    let (tiles, stride) = (layer.images.tiles(), layer.stride());
    let arch = arch();
    let transform = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        (0..tiles)
            .into_par_iter()
            .for_each(|tile| arch.dispatch(InputTask::<DOUBLED> { layer, tile, tiles, out }));
    };
    // SAFETY: each tile's task writes its row of every place.
    let transformed = unsafe { written(places(DOUBLED) * tiles * stride, transform) };
    (0..layer.columns.div_ceil(COLUMNS)).into_par_iter().with_max_len(1).for_each(|pair| {
        arch.dispatch(ColumnTask::<F, DOUBLED> { layer, weights, transformed: &transformed, pair });
    });
}

/// Transforms one tile into its rows of `out`, (places, tiles, stride).
struct InputTask<'a, const DOUBLED: bool> {
    layer: &'a Layer<'a>,
    tile: usize,
    tiles: usize,
    out: SharedOutput<'a>,
}

impl<const DOUBLED: bool> WithSimd for InputTask<'_, DOUBLED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let stride = self.layer.stride();
        let distance = self.tiles * stride;
        let out = self.out.at(self.tile * stride);
        // SAFETY: a row of a place is long enough for the panels of all channels and what lies between it and the next, and
        // this task alone writes the tile's.
        unsafe {
            self.layer.transform_input::<S, DOUBLED>(simd, self.tile, out, distance);
            for place in 0..places(DOUBLED) {
                out.add(place * distance + stride - PANEL)
                    .cast::<[f32; PANEL]>()
                    .write_unaligned([0.; PANEL]);
            }
        }
    }
}

/// One pair of panels of columns.
struct ColumnTask<'a, F, const DOUBLED: bool> {
    layer: &'a Layer<'a>,
    weights: &'a F,
    transformed: &'a [f32],
    pair: usize,
}

impl<F: Factor, const DOUBLED: bool> WithSimd for ColumnTask<'_, F, DOUBLED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, weights, transformed, pair } = self;
        let (tiles, stride, depth) = (layer.images.tiles(), layer.stride(), layer.depth);
        let first = pair * COLUMNS;
        let columns = first..layer.columns.min(first + COLUMNS);
        let panels = columns.len().div_ceil(PANEL);
        let panel_stride = places(DOUBLED) * ROWS * PANEL;
        let mut right = vec![0f32; panels * panel_stride];
        let mut products = Box::<[f32]>::new_uninit_slice(places(DOUBLED) * tiles * COLUMNS);
        let products: *mut f32 = products.as_mut_ptr().cast();
        let mut starts = Vec::with_capacity(tiles);
        let mut scratch = Vec::new();
        for channel in (0..depth).step_by(CHANNELS) {
            let channels = channel..depth.min(channel + CHANNELS);
            for (panel, out) in right.chunks_exact_mut(panel_stride).enumerate() {
                let weights = weights.part(&[2 * pair + panel], channels.clone(), &mut scratch);
                transform_weights::<S, _, DOUBLED>(simd, weights, channels.len(), ROWS, out);
            }
            for place in 0..places(DOUBLED) {
                starts.clear();
                let rows = &transformed[place * tiles * stride..][..tiles * stride];
                starts.extend(rows.chunks_exact(stride).map(|row| row[channels.clone()].as_ptr()));
                let block = Block {
                    left: Left::Rows { starts: &starts, taps: 1, depth: channels.len() },
                    right: Right {
                        data: right[place * ROWS * PANEL..].as_ptr(),
                        row_stride: PANEL,
                        panel_stride,
                    },
                    rows: tiles,
                    panels: 0..panels,
                    // Whole panels, zero-padded after the last column.
                    columns: panels * PANEL,
                    accumulate: channel > 0,
                    out: products.wrapping_add(place * tiles * COLUMNS),
                    out_stride: COLUMNS,
                };
                // SAFETY: each tile's row has these channels, there are as many rows of transformed weights, and the products
                // have room for two panels' columns of every place and tile.
                unsafe { block.run(simd) };
            }
        }
        for tile in 0..tiles {
            // SAFETY: the blocks have written these columns of every place and tile.
            unsafe {
                let products = products.add(tile * COLUMNS);
                layer.transform_output::<S, DOUBLED>(simd, tile, products, tiles * COLUMNS, columns.clone());
            }
        }
    }
}
