//! Writes images to files.

use std::fs;
use std::path::Path;

use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use anyhow::{Context, Result};
use image::RgbImage;
use model_files::{Target, write_whole};

use crate::progress::warn;
use crate::standard_streams::print_bytes;

/// Whether an option's value means standard output.
pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-") || matches!(Target::of(path), Ok(Target::StandardOutput))
}

/// Writes an image to a file or to standard output, with a record of how it was drawn if the format has room for it.
///
/// # Errors
/// If the format does not support an image of this size, or it cannot be written.
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
    if is_standard_output(path) {
        return print_bytes(&bytes);
    }
    write_whole(path, |temporary| fs::write(temporary, bytes)).context("--output")
}
