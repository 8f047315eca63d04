//! Prepares images for the image tower, as `preprocessor_config.json` says.
//!
//! Like transformers' `CLIPImageProcessor` with Pillow: resizes the short side, crops the centre, rescales and
//! normalises. The pixels equal the reference's, byte for byte; [`crate::images`] reads image files.

mod config;
mod resample;

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};
use image::{DynamicImage, GenericImage, GenericImageView, RgbImage};
use rayon::prelude::*;

pub use config::{CropTo, ImageProcessorConfig, Resampling, ResizeTo};

use crate::images::{Background, flatten};

/// The longest side of an image before resizing: above all images, below where the filters' coefficients, several per
/// pixel of a side, exhaust memory.
const MAX_SOURCE_SIDE: u32 = 1 << 20;
/// The longest side after resizing and before cropping. Only the part that is kept is computed.
const MAX_RESIZED_SIDE: u32 = 1 << 28;
/// The most pixels after cropping, and of the rows between the two passes of resizing.
const MAX_PIXELS: u64 = 1 << 28;

/// The error for an image that cannot be used, which is the caller's.
fn unusable(problem: String) -> candle_core::Error {
    candle_core::Error::from(crate::Error::Input(problem))
}

/// Resizes an image exactly like Pillow's `Image.resize`.
///
/// # Errors
/// If a side of the image or of the result is 0 or unreasonably long.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Resampling) -> Result<RgbImage> {
    let (from_width, from_height) = image.dimensions();
    let sides = [from_width, from_height, width, height];
    let rows = u64::from(from_height.max(height)) * u64::from(from_width.max(width));
    if sides.contains(&0) || sides.into_iter().any(|side| side > MAX_SOURCE_SIDE) || rows > MAX_PIXELS {
        return Err(unusable(format!(
            "an image of {from_width}×{from_height} pixels cannot be resized to {width}×{height}"
        )));
    }
    Ok(resample::resize(image, (width, height), filter, 0..width, 0..height))
}

/// Converts images to the image tower's input.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
}

impl ImageProcessor {
    /// # Errors
    /// Names the invalid field of the configuration.
    pub fn new(config: ImageProcessorConfig) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        Ok(Self { config })
    }

    /// Overrides the configured background for transparent images.
    #[must_use]
    pub fn with_background(mut self, background: Background) -> Self {
        self.config.background = background;
        self
    }

    /// How it prepares images.
    pub fn config(&self) -> &ImageProcessorConfig {
        &self.config
    }

    /// The background of transparent images.
    pub fn background(&self) -> Background {
        self.config.background
    }

    /// Converts an image to (3, height, width), f32, on the CPU. A transparent one is flattened before it is resized.
    ///
    /// # Errors
    /// If the image is empty, or so long and thin that resizing its short side is unreasonable.
    pub fn preprocess(&self, image: &DynamicImage) -> Result<Tensor> {
        let pixels = self.resize_and_crop(image)?;
        let shape = (3, pixels.height() as usize, pixels.width() as usize);
        Tensor::from_vec(self.values(&pixels), shape, &Device::Cpu)
    }

    /// Converts images to (images, 3, height, width), f32, on the CPU, in parallel on rayon's threads.
    ///
    /// # Errors
    /// Like [`preprocess`](Self::preprocess); also if there is no image, or they differ in size, which is possible
    /// without cropping.
    pub fn preprocess_batch(&self, images: &[DynamicImage]) -> Result<Tensor> {
        if images.is_empty() {
            bail!("no images: expected at least one")
        }
        let pixels: Vec<Tensor> =
            images.par_iter().map(|image| self.preprocess(image)).collect::<Result<_>>()?;
        let expected = pixels[0].dims();
        if let Some((number, other)) = pixels.iter().enumerate().find(|(_, other)| other.dims() != expected) {
            let (expected, found) = (&expected[1..], &other.dims()[1..]);
            bail!(
                "image {number} of the batch is {found:?} (height, width), expected {expected:?} as the first"
            )
        }
        Tensor::stack(&pixels, 0)
    }

    /// The bytes that the values are computed from.
    fn resize_and_crop(&self, image: &DynamicImage) -> Result<RgbImage> {
        let config = &self.config;
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            return Err(unusable(format!("the image is empty ({width}×{height} pixels)")));
        }
        let size = if config.do_resize { self.resized_dimensions(width, height)? } else { (width, height) };
        let crop = if config.do_center_crop { config.crop_size.dimensions() } else { size };
        // Between the passes an image is as wide as the result and as high as the source.
        let most_rows = crop.1.max(height);
        if u64::from(crop.0) * u64::from(most_rows) > MAX_PIXELS {
            bail!(
                "the image is too large: {}×{most_rows} pixels to compute, expected at most {MAX_PIXELS} in all",
                crop.0
            )
        }
        let ((columns, x), (rows, y)) = (centre(size.0, crop.0), centre(size.1, crop.1));
        let image = flatten(image, config.background);
        let kept = if size == image.dimensions() {
            image.view(columns.start, rows.start, columns.len() as u32, rows.len() as u32).to_image()
        } else {
            resample::resize(&image, size, config.resample, columns, rows)
        };
        if kept.dimensions() == crop {
            return Ok(kept);
        }
        let mut filled = RgbImage::new(crop.0, crop.1);
        filled.copy_from(&kept, x, y).map_err(candle_core::Error::wrap)?;
        Ok(filled)
    }

    /// (width, height) after resizing; the longer side is rounded down (`get_resize_output_image_size` of
    /// transformers).
    fn resized_dimensions(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        let (short, long) = (width.min(height), width.max(height));
        let resized = match self.config.size {
            ResizeTo::Exactly { height, width } | ResizeTo::Pair([height, width]) => Some((width, height)),
            ResizeTo::ShortestEdge { shortest_edge } | ResizeTo::Number(shortest_edge) => {
                let resized = u64::from(shortest_edge) * u64::from(long) / u64::from(short);
                let resized = u32::try_from(resized).ok().filter(|&resized| resized <= MAX_RESIZED_SIDE);
                resized
                    .map(|long| if width <= height { (shortest_edge, long) } else { (long, shortest_edge) })
            }
        };
        match resized.filter(|_| long <= MAX_SOURCE_SIDE) {
            Some(resized) => Ok(resized),
            None => Err(unusable(format!(
                "the image is too long and thin to be resized ({width}×{height} pixels)"
            ))),
        }
    }

    /// Converts bytes to values, channel by channel.
    fn values(&self, pixels: &RgbImage) -> Vec<f32> {
        let config = &self.config;
        // The factor is applied in f64 and the rest in f32, as in transformers.
        let scale = if config.do_rescale { config.rescale_factor } else { 1. };
        let (mean, std) =
            if config.do_normalize { (config.image_mean, config.image_std) } else { ([0.; 3], [1.; 3]) };
        let mut values = Vec::with_capacity(pixels.as_raw().len());
        for (channel, (mean, std)) in mean.into_iter().zip(std).enumerate() {
            let value = |byte: u8| ((f64::from(byte) * scale) as f32 - mean) / std;
            let table: [f32; 256] = std::array::from_fn(|byte| value(byte as u8));
            let bytes = pixels.as_raw().iter().skip(channel).step_by(3);
            values.extend(bytes.map(|&byte| table[usize::from(byte)]));
        }
        values
    }
}

/// The range that a crop to `want` pixels keeps of `have`, and its offset in the result: smaller images are padded
/// with black. Half of an odd difference is rounded down when cropping and up when padding (transformers'
/// `center_crop`).
fn centre(have: u32, want: u32) -> (Range<u32>, u32) {
    if have >= want {
        let start = (have - want) / 2;
        (start..start + want, 0)
    } else {
        (0..have, (want - have).div_ceil(2))
    }
}
