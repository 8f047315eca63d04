//! 3 × 3 convolutions of stride 1 by Winograd's minimal filtering, F(4×4, 3×3): 36 products make 16 outputs, where the
//! direct way takes 144 (Lavin & Gray, arXiv 1509.09308).
//!
//! A tile of 6 × 6 pixels is transformed to 36 values per channel; for each of these places the tiles, times the
//! transformed weights, are one matrix product over the channels; and the 36 results are transformed back to 4 × 4 pixels.
//! Of a picture that was doubled by nearest neighbour before, tiles have 4 × 4 pixels of their own, and 25 products are
//! enough.

#![allow(clippy::needless_range_loop)] // y and x are places of squares here, not of slices

mod by_columns;
mod by_tiles;
mod layer;
mod transforms;

pub(crate) use layer::Pictures;

use super::epilogue::Epilogue;
use super::kernel::PANEL;
use super::pack::{Factor, FactorSize, Panels};
use super::window::Window;
use super::{Shared, written};
use layer::Layer;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Pixels along a side of what a tile reads.
const IN: usize = 6;
/// Pixels along a side of what a tile makes.
const OUT: usize = 4;

/// Places along a side of a transformed tile, of a picture that was doubled or of one as it is.
const fn side(doubled: bool) -> usize {
    if doubled { 5 } else { IN }
}

/// Places of a transformed tile.
const fn places(doubled: bool) -> usize {
    side(doubled) * side(doubled)
}

/// Columns whose products are in work at a time.
const COLUMNS: usize = 2 * PANEL;

/// Most values of a layer's transformed weights that are there at a time, 16 MiB: those of a layer that has no more are
/// kept from one call to the next, of others so many panels are made, used and made anew, while the cache has them.
const MOST_TRANSFORMED_WEIGHTS: usize = 4 << 20;

/// Ways to have the transformed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// With weights that are transformed once and kept.
    Kept,
    /// With weights that are transformed so many panels at a time.
    Parts { panels: usize },
    /// With weights that each task transforms for itself.
    ByColumns,
}

impl Way {
    /// The way that is faster than the direct convolution, if one is, by counts of multiply-adds: those of the products,
    /// and for each value that is transformed what that takes as long as.
    /// Weights are kept only where they may be.
    pub fn faster(pictures: Pictures, depth: usize, columns: usize, may_keep: bool) -> Option<Self> {
        const OF_TILES: usize = 60;
        const OF_PARTS: usize = 80;
        const OF_COLUMNS: usize = 10;
        /// Beyond these, the tiles are read from memory too often.
        const MOST_TILES: usize = 256;

        let tiles = pictures.tiles();
        let places = places(pictures.doubled);
        let panels = MOST_TRANSFORMED_WEIGHTS / (places * depth * PANEL).max(1);
        let (way, of_weights) = if may_keep && columns.div_ceil(PANEL) <= panels {
            (Self::Kept, 0)
        } else if tiles <= MOST_TILES {
            (Self::ByColumns, OF_COLUMNS)
        } else if panels >= 2 {
            (Self::Parts { panels }, OF_PARTS)
        } else {
            return None;
        };
        let products = (tiles + of_weights) * depth * columns;
        let transforms = tiles * (depth + columns) * OF_TILES;
        let rows = pictures.batch * pictures.height * pictures.width;
        (places * (products + transforms) < 9 * rows * depth * columns).then_some(way)
    }
}

/// A convolution of `x`, pixels of as many channels as the weights' depth, with weights of 9 taps, in one of Winograd's
/// ways: (pixels, the weights' columns). `kept` is where the layer keeps its transformed weights.
pub(crate) fn convolution<F: Factor>(
    way: Way,
    x: &[f32],
    pictures: Pictures,
    window: &Window,
    weights: &F,
    kept: &OnceLock<Panels>,
    epilogue: &Epilogue,
) -> Vec<f32> {
    let FactorSize { depth, columns, .. } = weights.size();
    let rows = pictures.batch * pictures.height * pictures.width;
    epilogue.check(rows, columns);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let zeros = vec![0f32; depth.next_multiple_of(PANEL)];
        let out = Shared::new(out);
        let layer = Layer { x, depth, zeros, pictures, window, epilogue, columns, out };
        if pictures.doubled {
            compute::<F, true>(way, &layer, weights, kept);
        } else {
            compute::<F, false>(way, &layer, weights, kept);
        }
    };
    // SAFETY: every way writes all columns of every pixel.
    unsafe { written(rows * columns, write) }
}

fn compute<F: Factor, const DOUBLED: bool>(way: Way, layer: &Layer, weights: &F, kept: &OnceLock<Panels>) {
    let all = layer.columns.div_ceil(PANEL);
    match way {
        Way::Kept => {
            let weights = kept.get_or_init(|| by_tiles::transformed::<F, DOUBLED>(weights, 0..all));
            by_tiles::convolution::<DOUBLED>(layer, weights, 0);
        }
        Way::Parts { panels } => {
            for first in (0..all).step_by(panels) {
                let part = by_tiles::transformed::<F, DOUBLED>(weights, first..all.min(first + panels));
                by_tiles::convolution::<DOUBLED>(layer, &part, first * PANEL);
            }
        }
        Way::ByColumns => by_columns::convolution::<F, DOUBLED>(layer, weights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d::{Conv2dOptions, Padding};
    use crate::cpu::convolution::Geometry;
    use rand::{RngExt, SeedableRng};

    /// The largest difference of any way from the direct convolution, in units of its root mean square.
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
        let scale = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
        let pictures = geometry.pictures();
        let source = geometry.source();
        let mut worst = 0f32;
        for way in [Way::Kept, Way::Parts { panels: 2 }, Way::ByColumns] {
            let kept = OnceLock::new();
            let found = convolution(way, &x, pictures, &source, &weights, &kept, &epilogue);
            assert_eq!(found.len(), expected.len());
            for (expected, found) in expected.iter().zip(&found) {
                worst = worst.max((expected - found).abs() / scale);
            }
        }
        worst
    }

    /// The transforms' largest factors, 10² · 10² / 24² for a corner, multiply the rounding of a sum, which for n terms one
    /// after the other is about 2⁻²⁴ √n of it; the largest of thousands of differences is a few times that.
    #[test]
    fn is_the_direct_convolution() {
        for (batch, height, width, channels, upsample) in [
            (1, 1, 1, (1, 1), false),
            (1, 4, 4, (16, 16), false),
            (2, 5, 3, (3, 7), false),
            (3, 13, 10, (33, 50), false),
            (1, 9, 8, (20, 65), true),
            (1, 1, 1, (1, 1), true),
            (2, 5, 3, (3, 7), true),
            (1, 8, 8, (150, 70), true),
            (2, 32, 31, (40, 32), false),
            (1, 8, 8, (150, 70), false),
        ] {
            let error = error(batch, height, width, channels, upsample);
            let tolerance = 5e-6 * (channels.0 as f32).sqrt();
            assert!(error < tolerance, "{batch}, {height} × {width}, {channels:?}: {error}");
        }
    }
}
