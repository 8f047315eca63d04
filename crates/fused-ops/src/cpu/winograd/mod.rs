//! Convolves with 3 × 3 taps of stride 1 by Winograd's minimal filtering, F(4×4, 3×3): 36 products for 16 outputs,
//! where the direct convolution takes 144 (Lavin & Gray, arXiv 1509.09308).
//!
//! A tile of 6 × 6 pixels is transformed to 36 values per channel. For each of these places, tiles times transformed
//! weights is one matrix product over the channels, and the 36 results are transformed back to 4 × 4 pixels. For an
//! image that was doubled by nearest neighbour, a tile has only 4 × 4 distinct pixels, and 25 products are enough.

#![allow(clippy::needless_range_loop, reason = "y and x index squares, not slices")]

mod by_columns;
mod by_tiles;
mod layer;
mod tile;
mod transforms;

pub(crate) use layer::Images;

use super::epilogue::SliceEpilogue;
use super::microkernel::PANEL;
use super::output::{SharedOutput, written};
use super::pack::{Factor, FactorSize, Panels};
use super::window::Window;
use layer::Layer;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use tile::places;

/// The limit for transformed weights held at a time, 16 MiB. Layers within it keep theirs between calls; others
/// transform, use and discard as many panels as fit, while they are in the cache.
const MOST_TRANSFORMED_WEIGHTS: usize = 4 << 20;

/// When weights are transformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Once: they are kept.
    Once,
    /// A number of panels at a time, in each call.
    SomePanels { panels: usize },
    /// By each task for itself.
    InEachTask,
}

impl Transform {
    /// What is faster than the direct convolution, if anything is, by counts of multiply-adds: those of the products, and
    /// for each value that is transformed what that takes as long as. Weights are kept only where they may be. A multiply-add
    /// of the direct convolution takes `direct` times as long as one here.
    pub(crate) fn fastest(
        images: Images,
        depth: usize,
        columns: usize,
        may_keep: bool,
        direct: f32,
    ) -> Option<Self> {
        /// The cost of transforming one value of a tile or a weight, in multiply-adds.
        const TILE_COST: usize = 60;
        const PANEL_COST: usize = 80;
        const TASK_COST: usize = 10;
        /// With more, the tiles are read from memory too often.
        const MOST_TILES: usize = 256;

        let tiles = images.tiles();
        let places = places(images.doubled);
        let panels = MOST_TRANSFORMED_WEIGHTS / (places * depth * PANEL).max(1);
        let (transform, weight_cost) = if may_keep && columns.div_ceil(PANEL) <= panels {
            (Self::Once, 0)
        } else if tiles <= MOST_TILES {
            (Self::InEachTask, TASK_COST)
        } else if panels >= 2 {
            (Self::SomePanels { panels }, PANEL_COST)
        } else {
            return None;
        };
        let products = (tiles + weight_cost) * depth * columns;
        let transforms = tiles * (depth + columns) * TILE_COST;
        let rows = images.batch * images.height * images.width;
        let by_transform = places * (products + transforms);
        ((by_transform as f32) < (9 * rows * depth * columns) as f32 * direct).then_some(transform)
    }
}

/// Convolves `x`, pixels of the weights' depth, with weights of 9 taps: (pixels, the weights' columns). `kept` caches
/// the layer's transformed weights.
pub(crate) fn convolution<F: Factor>(
    transform: Transform,
    x: &[f32],
    images: Images,
    window: &Window,
    weights: &F,
    kept: &OnceLock<Panels>,
    epilogue: &SliceEpilogue,
) -> Vec<f32> {
    let FactorSize { depth, columns, .. } = weights.size();
    let rows = images.batch * images.height * images.width;
    epilogue.check(rows, columns);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let zeros = vec![0f32; depth.next_multiple_of(PANEL)];
        let out = SharedOutput::new(out);
        let layer = Layer { x, depth, zeros, images, window, epilogue, columns, out };
        if images.doubled {
            compute::<F, true>(transform, &layer, weights, kept);
        } else {
            compute::<F, false>(transform, &layer, weights, kept);
        }
    };
    // SAFETY: every one of them writes all columns of every pixel.
    unsafe { written(rows * columns, write) }
}

fn compute<F: Factor, const DOUBLED: bool>(
    transform: Transform,
    layer: &Layer,
    weights: &F,
    kept: &OnceLock<Panels>,
) {
    let all = layer.columns.div_ceil(PANEL);
    match transform {
        Transform::Once => {
            // Not in `get_or_init`: while other threads have its tasks, rayon may give this one another image, which
            // would then wait for itself.
            let weights = match kept.get() {
                Some(weights) => weights,
                None => {
                    let transformed = by_tiles::transformed::<F, DOUBLED>(weights, 0..all);
                    kept.get_or_init(|| transformed)
                }
            };
            by_tiles::convolution::<DOUBLED>(layer, weights, 0);
        }
        Transform::SomePanels { panels } => {
            for first in (0..all).step_by(panels) {
                let part = by_tiles::transformed::<F, DOUBLED>(weights, first..all.min(first + panels));
                by_tiles::convolution::<DOUBLED>(layer, &part, first * PANEL);
            }
        }
        Transform::InEachTask => by_columns::convolution::<F, DOUBLED>(layer, weights),
    }
}
