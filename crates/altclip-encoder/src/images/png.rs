//! Decodes PNG to 8 bits per channel as its rows are unpacked, so that 16 bits take no more memory.

use std::fmt::Display;
use std::io::Cursor;

use ::png::{ColorType as FileColor, Decoder, DecodingError, Limits, Transformations};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage};

use super::samples::Samples;
use super::{TOO_MUCH_MEMORY, check_size};

/// Decodes a PNG file, or the first frame of an animation, and returns its orientation.
///
/// # Errors
/// What is wrong with the file, in one line.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<(DynamicImage, Orientation), String> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // They are not used, and a few bytes can unpack to a large profile.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let (width, height) = decoder.read_header_info().map_err(one_line)?.size();
    check_size(width, height, max_pixels)?;
    // A row, and other chunks.
    let most_bytes = usize::try_from(4 * u64::from(width) + (1 << 26)).map_err(unusual)?;
    decoder.set_limits(Limits { bytes: most_bytes });
    let mut reader = decoder.read_info().map_err(one_line)?;

    // Damaged Exif data count as none.
    let orientation = reader.info().exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
    let color = match reader.output_color_type().0 {
        FileColor::Grayscale => ColorType::L8,
        FileColor::GrayscaleAlpha => ColorType::La8,
        FileColor::Rgb => ColorType::Rgb8,
        FileColor::Rgba => ColorType::Rgba8,
        FileColor::Indexed => return Err(unusual("its palette cannot be applied")),
    };
    let mut samples = Samples::new((width, height), color).map_err(unusual)?;
    reader.next_frame(samples.room()).map_err(one_line)?;
    let image = samples.into_image().map_err(unusual)?;
    Ok((image, orientation.unwrap_or(Orientation::NoTransforms)))
}

fn one_line(error: DecodingError) -> String {
    match error {
        DecodingError::LimitsExceeded => unusual(TOO_MUCH_MEMORY),
        error => unusual(error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

fn unusual(problem: impl Display) -> String {
    format!("a damaged or unusual PNG image: {problem}")
}
