//! Pictures as latents, computed once for each resolution.

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::pairs::{PicturePairs, Skipped};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{Device, Tensor};
use image::DynamicImage;
use image::imageops::FilterType;
use std::collections::BTreeMap;
use std::path::Path;

const LATENTS: &str = "latents";
const KEPT: &str = "kept";

/// Latents of the pictures that can be read.
pub(super) struct Latents {
    /// (n, channels, height, width), scaled, on the CPU.
    pub latents: Tensor,
    /// The row of the data that each comes from.
    pub kept: Vec<u32>,
    pub skipped: Skipped,
}

impl Latents {
    /// The means of the latents of square pictures of `resolution` pixels: each picture is resized to it by its shorter
    /// side, and cut in its middle. The posterior's deviation is so small that sampling would change little.
    ///
    /// # Errors
    /// If no picture can be read, or the file cannot be written.
    pub fn of(
        pairs: &PicturePairs,
        resolution: usize,
        vae: &AutoencoderKl,
        model: &str,
        cache: &Path,
        device: &Device,
    ) -> Result<Self> {
        let downscale = vae.downscale();
        if resolution == 0 || !resolution.is_multiple_of(downscale) {
            let problem = format!("expected a multiple of {downscale}, found {resolution}");
            return Err(Error::Setting(format!("resolution: {problem}")));
        }
        let count = pairs.captions.len();
        let key = format!("{count} pictures {:016x} at {resolution} by {model}", pairs.key);
        let mut skipped = Skipped::default();
        let make = || {
            let (mut latents, mut kept) = (Vec::new(), Vec::new());
            for (row, file) in (0u32..).zip(pairs.pictures()) {
                match file.decode() {
                    Ok(picture) => {
                        let pixels = pixels(&picture, resolution, device)?;
                        let mean = vae.encode(&pixels)?.mean;
                        latents.push((mean * vae.scaling_factor())?.to_device(&Device::Cpu)?.detach());
                        kept.push(row);
                    }
                    Err(error) => skipped.add(|| error.to_string()),
                }
            }
            if kept.is_empty() {
                return Err(Error::Setting(format!("data: expected pictures: {skipped}")));
            }
            let kept = Tensor::new(kept, &Device::Cpu)?;
            Ok(BTreeMap::from([(LATENTS.to_owned(), Tensor::cat(&latents, 0)?), (KEPT.to_owned(), kept)]))
        };
        let cache = Cache::at(cache);
        let tensors = cache.of(&key, make)?;
        let kept = cache.tensor(tensors.clone(), KEPT)?.to_vec1()?;
        Ok(Self { latents: cache.tensor(tensors, LATENTS)?, kept, skipped })
    }
}

/// A picture as (1, 3, resolution, resolution) from −1 to 1.
fn pixels(picture: &DynamicImage, resolution: usize, device: &Device) -> Result<Tensor> {
    let side = resolution as u32;
    let square = picture.resize_to_fill(side, side, FilterType::Lanczos3).into_rgb8();
    let values: Vec<f32> = square.as_raw().iter().map(|&value| f32::from(value) / 127.5 - 1.).collect();
    let pixels = Tensor::from_vec(values, (1, resolution, resolution, 3), device)?;
    Ok(pixels.permute((0, 3, 1, 2))?.contiguous()?)
}
