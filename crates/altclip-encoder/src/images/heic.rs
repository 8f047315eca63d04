//! Reads HEIC files with libheif, a system library: no decoder in Rust has a compatible licence.

use image::{DynamicImage, RgbImage, RgbaImage};
use libheif_rs::{ColorSpace, DecodingOptions, HeifContext, HeifError, LibHeif, RgbChroma};

use super::check_size;

/// Decodes the first image of a HEIC file. libheif turns it upright by the file's own properties; Exif data are
/// ignored, as in Pillow's plugin.
///
/// # Errors
/// What is wrong with the file, in one line.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, String> {
    let context = HeifContext::read_from_bytes(bytes).map_err(message)?;
    let handle = context.primary_image_handle().map_err(message)?;
    check_size(handle.width(), handle.height(), max_pixels)?;
    let (chroma, channels) =
        if handle.has_alpha_channel() { (RgbChroma::Rgba, 4) } else { (RgbChroma::Rgb, 3) };
    let mut options = DecodingOptions::new().ok_or("libheif has no memory for it")?;
    options.set_convert_hdr_to_8bit(true);
    options.set_strict_decoding(true);
    let image = LibHeif::new().decode(&handle, ColorSpace::Rgb(chroma), Some(options)).map_err(message)?;
    let plane = image.planes().interleaved.ok_or("libheif gave no pixels")?;
    check_size(plane.width, plane.height, max_pixels)?;
    let row_bytes = plane.width as usize * channels;
    let mut pixels = Vec::with_capacity(row_bytes * plane.height as usize);
    for row in plane.data.chunks(plane.stride.max(1)).take(plane.height as usize) {
        pixels.extend_from_slice(row.get(..row_bytes).ok_or("libheif gave too few pixels")?);
    }
    if channels == 4 && handle.is_premultiplied_alpha() {
        pixels.as_chunks_mut::<4>().0.iter_mut().for_each(divide_by_alpha);
    }
    let (width, height) = (plane.width, plane.height);
    let image = match channels {
        4 => RgbaImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
    };
    image.ok_or_else(|| "libheif gave too few pixels".to_owned())
}

fn divide_by_alpha([red, green, blue, alpha]: &mut [u8; 4]) {
    let opacity = u16::from(*alpha).max(1);
    for part in [red, green, blue] {
        *part = ((u16::from(*part) * 255 + opacity / 2) / opacity).min(255) as u8;
    }
}

fn message(error: HeifError) -> String {
    error.message.split_whitespace().collect::<Vec<_>>().join(" ")
}
