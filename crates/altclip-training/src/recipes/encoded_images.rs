//! Encodes images to latents and caches them per resolution.

use super::diffusion_model::DiffusionModel;
use crate::cache::Cache;
use crate::error::{Error, Result};
use altclip_encoder::images::{Background, DecodeOptions, flatten};
use candle_core::{Device, Tensor};
use embedding_index::readers::{ImagePairs, Skipped};
use image::DynamicImage;
use image::imageops::FilterType;
use std::collections::BTreeMap;
use std::path::Path;

const LATENTS: &str = "latents";
const KEPT: &str = "kept";

/// The latents of the readable images.
pub(super) struct EncodedImages {
    /// (n, channels, height, width), scaled, on the CPU.
    pub latents: Tensor,
    /// The row of each image in the data.
    pub kept: Vec<u32>,
    pub skipped: Skipped,
    /// The number of transparent images without a background, among those read in this run.
    pub transparent: usize,
}

impl EncodedImages {
    /// The mean latents of square images of `resolution` pixels: each image is resized by its shorter side and
    /// cropped at the centre. The posterior's deviation is so small that sampling would change little.
    ///
    /// # Errors
    /// If no image can be read, or the file cannot be written.
    pub(super) fn of(
        pairs: &ImagePairs,
        resolution: usize,
        model: &DiffusionModel,
        cache: &Path,
    ) -> Result<Self> {
        let DiffusionModel { vae, background, device, .. } = model;
        let downscale = vae.downscale();
        if resolution == 0 || !resolution.is_multiple_of(downscale) {
            let problem = format!("expected a multiple of {downscale}, found {resolution}");
            return Err(Error::Setting(format!("resolution: {problem}")));
        }
        let count = pairs.captions.len();
        let on = match background {
            Background::None => String::new(),
            color => format!(" on {color}"),
        };
        let key = format!("{count} images {:016x} at {resolution} by {}{on}", pairs.key, model.name);
        let (mut skipped, mut transparent) = (Skipped::default(), 0);
        let make = || {
            let (mut latents, mut kept) = (Vec::new(), Vec::new());
            for (row, file) in (0u32..).zip(pairs.images()) {
                match file.decode(DecodeOptions::default()) {
                    Ok(image) => {
                        let is_bare = *background == Background::None && image.color().has_alpha();
                        transparent += usize::from(is_bare);
                        let image = flatten(&image, *background).into_owned();
                        let pixels = pixels(DynamicImage::ImageRgb8(image), resolution, device)?;
                        let mean = vae.encode(&pixels)?.mean;
                        latents.push((mean * vae.scaling_factor())?.to_device(&Device::Cpu)?.detach());
                        kept.push(row);
                    }
                    Err(error) => skipped.add(|| error.to_string()),
                }
            }
            if kept.is_empty() {
                return Err(Error::Setting(format!("data: expected images: {skipped}")));
            }
            let kept = Tensor::new(kept, &Device::Cpu)?;
            Ok(BTreeMap::from([(LATENTS.to_owned(), Tensor::cat(&latents, 0)?), (KEPT.to_owned(), kept)]))
        };
        let cache = Cache::at(cache);
        let tensors = cache.of(&key, make)?;
        let kept = cache.tensor(tensors.clone(), KEPT)?.to_vec1()?;
        Ok(Self { latents: cache.tensor(tensors, LATENTS)?, kept, skipped, transparent })
    }
}

/// An image as (1, 3, resolution, resolution) from −1 to 1.
fn pixels(image: DynamicImage, resolution: usize, device: &Device) -> Result<Tensor> {
    let side = resolution as u32;
    let square = image.resize_to_fill(side, side, FilterType::Lanczos3).into_rgb8();
    let values: Vec<f32> = square.as_raw().iter().map(|&value| f32::from(value) / 127.5 - 1.).collect();
    let pixels = Tensor::from_vec(values, (1, resolution, resolution, 3), device)?;
    Ok(pixels.permute((0, 3, 1, 2))?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    #[test]
    fn transparent_images_are_learned_on_their_background() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("."))?;
        let is_drawn = |x: u32, y: u32| x + y < 20;
        let opaque =
            RgbImage::from_fn(16, 16, |x, y| Rgb(if is_drawn(x, y) { [200, 30, 30] } else { [255; 3] }));
        let transparent = RgbaImage::from_fn(16, 16, |x, y| match is_drawn(x, y) {
            true => Rgba([200, 30, 30, 255]),
            false => Rgba([x as u8, 0, y as u8, 0]),
        });
        let save = |name: &str, image: DynamicImage| {
            let path = folder.path().join(name);
            image.save(&path).map_err(|error| Error::format(&path, error))
        };
        save("a.png", opaque.into())?;
        save("b.png", transparent.into())?;
        let pairs = ImagePairs::read(folder.path(), None, &[])?;
        let model = test_support::golden("alt_diffusion").display().to_string();
        for (background, alike, count) in
            [(Some(Background::WHITE), true, 0), (Some(Background::None), false, 1), (None, false, 1)]
        {
            let model = DiffusionModel::open(&model, background, &Device::Cpu)?;
            // All share a cache file, which must tell them apart.
            let latents = EncodedImages::of(&pairs, 16, &model, &folder.path().join("latents.safetensors"))?;
            let [first, second] = [0, 1].map(|row| latents.latents.get(row)?.flatten_all()?.to_vec1::<f32>());
            assert_eq!(first? == second?, alike, "{background:?}");
            // Images read from the cache are not counted again.
            assert_eq!(latents.transparent, if background.is_none() { 0 } else { count });
        }
        Ok(())
    }
}
