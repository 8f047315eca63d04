//! Decodes in overlapping tiles, to fit large images into limited memory.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::AutoencoderKl;
use crate::cancellation::Cancellation;
use crate::{Error, Result};

/// How to cut latents into tiles (diffusers' `enable_tiling`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub struct Tiling {
    /// The side of a tile, in latents.
    pub side: usize,
    /// The fraction of a tile that overlaps its neighbour, and over which the two are blended: from 0 to less than 1.
    pub overlap: f64,
}

impl Tiling {
    /// Tiles of this side with diffusers' overlap.
    pub fn of_side(side: usize) -> Self {
        Self { side, overlap: 0.25 }
    }

    /// Sets the fraction of a tile that overlaps its neighbour.
    pub fn overlap(self, overlap: f64) -> Self {
        Self { overlap, ..self }
    }
}

impl AutoencoderKl {
    /// Like [`decode`](Self::decode), in tiles if the latents are larger than one. Tiles are independent, so colours
    /// may differ a little from decoding in one piece; blending hides the seams.
    ///
    /// # Errors
    /// Like [`decode`](Self::decode); also if nothing of a tile is left between its overlaps.
    pub fn decode_tiled(&self, latents: &Tensor, tiling: Tiling) -> Result<Tensor> {
        self.decode_tiled_unless(latents, tiling, &Cancellation::default())
    }

    /// Like [`decode_tiled`](Self::decode_tiled), but can be cancelled between tiles and levels.
    pub(crate) fn decode_tiled_unless(
        &self,
        latents: &Tensor,
        tiling: Tiling,
        cancellation: &Cancellation,
    ) -> Result<Tensor> {
        self.check_shape("latents", latents, self.config().latent_channels, 1)?;
        let (_, _, height, width) = latents.dims4()?;
        let Tiling { side, overlap } = tiling;
        if height <= side && width <= side {
            return self.decode_unless(latents, cancellation);
        }
        // Rounded as in diffusers.
        let step = (side as f64 * (1.0 - overlap)) as usize;
        let pixels = side * self.downscale();
        let fade = (pixels as f64 * overlap) as usize;
        if !(0.0..1.0).contains(&overlap) || step == 0 {
            return Err(Error::option(
                "tiles",
                format!("{side} latents with {overlap} shared, expected more"),
            ));
        }
        let mut rows: Vec<Tensor> = Vec::new();
        let mut above: Vec<Tensor> = Vec::new();
        for top in (0..height).step_by(step) {
            let tiles = (0..width).step_by(step).map(|left| {
                let tile = latents.narrow(2, top, side.min(height - top))?;
                let tile = tile.narrow(3, left, side.min(width - left))?.contiguous()?;
                self.decode_unless(&tile, cancellation)
            });
            let mut row: Vec<Tensor> = tiles.collect::<Result<_>>()?;
            for index in 0..row.len() {
                let mut tile = row[index].clone();
                if let Some(above) = above.get(index) {
                    tile = faded(above, &tile, 2, fade)?;
                }
                if let Some(left) = index.checked_sub(1).and_then(|left| row.get(left)) {
                    tile = faded(left, &tile, 3, fade)?;
                }
                row[index] = tile;
            }
            let kept = row
                .iter()
                .map(|tile| {
                    let (_, _, height, width) = tile.dims4()?;
                    tile.narrow(2, 0, height.min(pixels - fade))?.narrow(3, 0, width.min(pixels - fade))
                })
                .collect::<candle_core::Result<Vec<_>>>()?;
            rows.push(Tensor::cat(&kept, 3)?);
            above = row;
        }
        Ok(Tensor::cat(&rows, 2)?)
    }
}

/// Blends the first `extent` places of `after` along `dim` with the last of `before`.
fn faded(before: &Tensor, after: &Tensor, dim: usize, extent: usize) -> Result<Tensor> {
    let (have, len) = (before.dim(dim)?, after.dim(dim)?);
    let extent = extent.min(have).min(len);
    if extent == 0 {
        return Ok(after.clone());
    }
    let mut shape = [1; 4];
    shape[dim] = extent;
    let weights: Vec<f32> = (0..extent).map(|place| place as f32 / extent as f32).collect();
    let weights = Tensor::from_vec(weights, &shape, &Device::Cpu)?.to_device(after.device())?;
    let weights = weights.to_dtype(after.dtype())?;
    let old = before.narrow(dim, have - extent, extent)?.broadcast_mul(&weights.affine(-1.0, 1.0)?)?;
    let both = (old + after.narrow(dim, 0, extent)?.broadcast_mul(&weights)?)?;
    Ok(Tensor::cat(&[&both, &after.narrow(dim, extent, len - extent)?], dim)?)
}
