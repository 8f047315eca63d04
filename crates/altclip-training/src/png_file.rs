//! Writes PNG files atomically.

use crate::error::{Error, Result};
use image::{ImageFormat, RgbImage};
use model_files::write_whole;
use std::io::Cursor;
use std::path::Path;

/// Writes an image to a PNG file.
///
/// # Errors
/// If the image is empty, or the file cannot be written.
pub fn save_png(path: &Path, image: &RgbImage) -> Result<()> {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::format(path, e))?;
    Ok(write_whole(path, |temporary| std::fs::write(temporary, png.get_ref()))?)
}
