//! Converts the caller's images and masks to tensors.

use altclip_encoder::image_processor::{Resampling, resize};
use candle_core::{Device, Tensor};
use image::buffer::ConvertBuffer;
use image::{GrayImage, RgbImage};

use crate::{Error, Result};

/// Converts an image to pixels (1, 3, height, width), −1 to 1, resized like diffusers' `VaeImageProcessor`.
pub(crate) fn pixels(image: &RgbImage, width: usize, height: usize) -> Result<Tensor> {
    let image = resized(image, width, height)?;
    let values: Vec<f32> = image.as_raw().iter().map(|&byte| 2.0 * (f32::from(byte) / 255.0) - 1.0).collect();
    Ok(Tensor::from_vec(values, (1, height, width, 3), &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?)
}

/// Converts an image of the right size to pixels (1, 3, height, width), 0 to 1.
pub(crate) fn colours(image: &RgbImage) -> Result<Tensor> {
    let (width, height) = image.dimensions();
    let values: Vec<f32> = image.as_raw().iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let shape = (1, height as usize, width as usize, 3);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?)
}

/// Converts a mask to (1, 1, height, width), 1 where it is at least half white and 0 elsewhere, resized like an
/// image.
pub(crate) fn mask(mask: &GrayImage, width: usize, height: usize) -> Result<Tensor> {
    // Three equal channels, since each is filtered separately.
    let mask: RgbImage = mask.convert();
    let mask = resized(&mask, width, height)?;
    let values: Vec<f32> = mask.pixels().map(|pixel| if pixel.0[0] >= 128 { 1.0 } else { 0.0 }).collect();
    Ok(Tensor::from_vec(values, (1, 1, height, width), &Device::Cpu)?)
}

/// Reduces a mask of pixels to one of latents: each takes the first of its `factor` × `factor` pixels.
pub(crate) fn mask_of_latents(mask: &Tensor, factor: usize) -> Result<Tensor> {
    let (_, _, height, width) = mask.dims4()?;
    let every = |count: usize| -> candle_core::Result<Tensor> {
        let places: Vec<u32> = (0..count / factor).map(|place| (place * factor) as u32).collect();
        Tensor::new(places, mask.device())
    };
    Ok(mask.index_select(&every(height)?, 2)?.index_select(&every(width)?, 3)?)
}

fn resized(image: &RgbImage, width: usize, height: usize) -> Result<RgbImage> {
    let (have_width, have_height) = image.dimensions();
    if have_width == 0 || have_height == 0 {
        let problem = format!("{have_width} × {have_height} pixels, expected some");
        return Err(Error::option("image", problem));
    }
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    Ok(resize(image, side(width), side(height), Resampling::Lanczos)?)
}
