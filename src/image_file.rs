//! Writes images to files.

use std::fs;
use std::path::Path;

use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use anyhow::{Context, Result};
use image::RgbImage;
use model_files::write_whole;

use crate::progress::warn;

/// Writes an image, with how it was made if the format has a place for that.
///
/// # Errors
/// When the format does not take an image of this size, or the file cannot be written.
pub fn write_image(
    path: &Path,
    format: ImageFileFormat,
    image: &RgbImage,
    parameters: Option<&str>,
) -> Result<()> {
    if parameters.is_some_and(|parameters| !format.has_room_for(parameters)) {
        warn("the prompt is too long for a .jpg to say how it was drawn; .png has no such limit");
    }
    let bytes = format.encode(image, parameters).with_context(|| path.display().to_string())?;
    write_whole(path, |temporary| fs::write(temporary, bytes)).context("--output")
}
