//! Decodes emoji images to RGB pixels.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result};

/// The side of every image of the data set, in pixels.
pub const IMAGE_SIZE: usize = 64;
/// Bytes per image: rows of RGB pixels.
pub const IMAGE_BYTES: usize = IMAGE_SIZE * IMAGE_SIZE * 3;

/// Decodes a square PNG of this side on white to rows of RGB pixels. `path` is used in errors.
pub(super) fn decode_on_white(path: &Path, png: &[u8], side: usize) -> Result<Vec<u8>> {
    let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_image_width = Some(4096);
    limits.max_image_height = Some(4096);
    reader.limits(limits);
    let image =
        reader.decode().map_err(|e| Error::data(path, format!("expected a PNG image: {e}")))?.into_rgba8();
    let (width, height) = image.dimensions();
    if (width as usize, height as usize) != (side, side) {
        return Err(Error::data(path, format!("expected {side} × {side} pixels, found {width} × {height}")));
    }
    let over_white = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    Ok(image
        .pixels()
        .flat_map(|&image::Rgba([r, g, b, a])| [r, g, b].map(|colour| over_white(colour, a)))
        .collect())
}
