//! Enlarges drawn images: by the model's upscaler, if it has one, and by interpolation.

use image::RgbImage;
use image::imageops::{self, FilterType};

use super::model::AltDiffusion;
use crate::images::to_images;
use crate::options::GenerateOptions;
use crate::{Error, Result, image_input};

impl AltDiffusion {
    /// Enlarges images along each side: by the model's upscaler to its own factor, and from there, or without one, by
    /// Lanczos interpolation. A scale of 1 leaves them as they are.
    ///
    /// # Errors
    /// If the scale is not from 1 to [`GenerateOptions::LARGEST_SCALE`], or the upscaler has to be loaded and that
    /// fails.
    pub fn enlarge(&self, images: Vec<RgbImage>, scale: usize) -> Result<Vec<RgbImage>> {
        check_scale(scale)?;
        if scale == 1 {
            return Ok(images);
        }
        let upscaler = self.upscaler()?;
        let enlarge = |image: RgbImage| -> Result<RgbImage> {
            let (width, height) = image.dimensions();
            let side = |side: u32| side.saturating_mul(scale as u32);
            let enlarged = match &upscaler {
                Some(upscaler) => {
                    let pixels = image_input::colours(&image)?.affine(2.0, -1.0)?;
                    let pixels = upscaler.enlarge(&pixels.to_device(&self.device)?)?;
                    to_images(&pixels)?.into_iter().next().unwrap_or(image)
                }
                None => image,
            };
            Ok(match enlarged.dimensions() == (side(width), side(height)) {
                true => enlarged,
                false => imageops::resize(&enlarged, side(width), side(height), FilterType::Lanczos3),
            })
        };
        images.into_iter().map(enlarge).collect()
    }
}

/// Checks how many times larger images shall be.
pub(super) fn check_scale(scale: usize) -> Result<()> {
    let largest = GenerateOptions::LARGEST_SCALE;
    match (1..=largest).contains(&scale) {
        true => Ok(()),
        false => {
            let problem = format!("{scale}, expected a whole number from 1 to {largest}");
            Err(Error::option("scale", problem))
        }
    }
}
