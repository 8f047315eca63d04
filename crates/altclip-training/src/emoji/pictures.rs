//! Emoji pictures as plain RGB pixels.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, ImageReader, Limits};

use super::error::{Error, Result};

/// Width and height of every picture of the data set, in pixels.
pub const PICTURE_SIZE: usize = 64;
/// Bytes of one picture: rows of pixels, each red, green, blue.
pub const PICTURE_BYTES: usize = PICTURE_SIZE * PICTURE_SIZE * 3;

/// Decodes a 64 × 64 PNG and lays it on white; rows of RGB pixels, [`PICTURE_BYTES`] bytes. `path` is for the error.
pub(super) fn decode_on_white(path: &Path, png: &[u8]) -> Result<Vec<u8>> {
    let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_image_width = Some(4096);
    limits.max_image_height = Some(4096);
    reader.limits(limits);
    let picture = reader
        .decode()
        .map_err(|e| Error::data(path, format!("expected a PNG picture: {e}")))?
        .into_rgba8();
    let size = PICTURE_SIZE as u32;
    if picture.dimensions() != (size, size) {
        let (width, height) = picture.dimensions();
        return Err(Error::data(
            path,
            format!("expected {size} × {size} pixels, found {width} × {height}"),
        ));
    }
    let over_white = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    Ok(picture
        .pixels()
        .flat_map(|&image::Rgba([r, g, b, a])| [r, g, b].map(|colour| over_white(colour, a)))
        .collect())
}
