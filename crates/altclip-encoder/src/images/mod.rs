//! Decodes image files like Pillow.
//!
//! Equals transformers' `load_image`: `PIL.Image.open`, turned upright by its Exif data. [`IMAGE_ENDINGS`] lists the
//! formats; a file is recognized by its content, whatever its name. Animations give their first frame.
//!
//! Lossless formats and WebP give Pillow's bytes. JPEG leaves some freedom to the decoder: compared with
//! libjpeg-turbo a few bytes are off by 1 or 2 steps, and by 3 where colours are subsampled.

#[cfg(feature = "avif")]
mod avif;
mod background;
mod complete;
mod formats;
#[cfg(feature = "heic")]
mod heic;
mod png;
mod samples;
mod tiff;

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits};
use model_files::{foreign, open_file, open_input};

pub use self::background::{Background, flatten, grey, transparency_note};
pub use self::formats::{IMAGE_ENDINGS, UNREADABLE_ENDINGS, advice};

use self::background::eight_bits;
pub(crate) use self::background::flattened;
use self::formats::FileFormat;
use self::samples::Samples;
use crate::{Error, Result};

/// The default limit for pixels, where Pillow begins to warn of a decompression bomb: a quarter of a gibibyte as RGB.
pub const MAX_PIXELS: u64 = 89_478_485;

/// The largest image file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

const TOO_MUCH_MEMORY: &str = "needs more memory than its size explains";

/// How image files are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The most pixels; larger images are refused before they are decoded.
    pub max_pixels: u64,
    /// Whether to rotate and flip the image upright by its Exif data. transformers' `load_image` does;
    /// `PIL.Image.open` alone does not.
    pub exif_orientation: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: MAX_PIXELS, exif_orientation: true }
    }
}

/// Reads an image file; see [`decode`].
///
/// # Errors
/// If the file cannot be read; also like [`decode`].
pub fn open(path: impl AsRef<Path>, options: DecodeOptions) -> Result<DynamicImage> {
    let name = path.as_ref().display().to_string();
    let file = open_input(path.as_ref()).map_err(Error::io(&name))?;
    read(&name, file, options)
}

/// Reads an image that is part of a file, `length` bytes from `start`; see [`decode`]. `name` is used in errors.
///
/// # Errors
/// Like [`open`].
pub fn open_part(
    name: &str,
    path: &Path,
    start: u64,
    length: u64,
    options: DecodeOptions,
) -> Result<DynamicImage> {
    let mut file = open_file(path).map_err(Error::io(name))?;
    file.seek(SeekFrom::Start(start)).map_err(Error::io(name))?;
    read(name, file.take(length), options)
}

fn read(name: &str, file: impl Read, options: DecodeOptions) -> Result<DynamicImage> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(name))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::format(
            name,
            format!("more than the {MAX_FILE_BYTES} bytes that an image may have"),
        ));
    }
    decode(name, &bytes, options)
}

/// Decodes an image file to 8 bits per channel: [`DynamicImage::ImageRgba8`] if a pixel is not opaque, and
/// [`DynamicImage::ImageRgb8`] otherwise. `name` is used in errors, and its ending identifies TGA.
///
/// 16-bit channels keep their high byte, also in greyscale, where Pillow clips at 255 and leaves white. CMYK is
/// converted by arithmetic, without colour profiles. Pixels that the first frame of a GIF does not cover are
/// transparent. [`flatten`] puts an image on a background.
///
/// PNG, BMP and baseline JPEG are decoded in the memory that the result takes, at most 4 bytes per pixel. Other formats
/// take up to 12, because their decoders hold an image in a form of their own. Turning it upright makes a copy.
///
/// # Errors
/// If the file is not an image of a known format, is damaged or truncated, or has more pixels than `options` allow.
pub fn decode(name: &str, bytes: &[u8], options: DecodeOptions) -> Result<DynamicImage> {
    if bytes.is_empty() {
        return Err(Error::format(name, "the file is empty, expected an image"));
    }
    foreign::parse(name, || {
        let format = formats::recognize(name, bytes).map_err(|problem| Error::format(name, problem))?;
        let (image, orientation) = match format {
            #[cfg(feature = "avif")]
            FileFormat::Avif => avif::decode(bytes, options.max_pixels).map_err(|problem| {
                Error::format(name, format!("a damaged or unusual AVIF image: {problem}"))
            })?,
            #[cfg(feature = "heic")]
            FileFormat::Heic => {
                let image = heic::decode(bytes, options.max_pixels).map_err(|problem| {
                    Error::format(name, format!("a damaged or unusual HEIC image: {problem}"))
                })?;
                (image, Orientation::NoTransforms)
            }
            FileFormat::Tiff => tiff::decode(bytes, options.max_pixels).map_err(|problem| {
                Error::format(name, format!("a damaged or unusual TIFF image: {problem}"))
            })?,
            FileFormat::Dib => {
                by_decoder(name, BmpDecoder::new_without_file_header(Cursor::new(bytes)), "BMP", options)?
            }
            FileFormat::Other(ImageFormat::Png) => png::decode(&complete::png(bytes), options.max_pixels)
                .map_err(|problem| Error::format(name, problem))?,
            FileFormat::Other(format) => {
                if format == ImageFormat::Jpeg && !complete::jpeg(bytes) {
                    return Err(Error::format(
                        name,
                        "a JPEG image cut short: the end of the image is missing",
                    ));
                }
                let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder();
                by_decoder(name, decoder, formats::name(format), options)?
            }
        };
        let mut image = eight_bits(image);
        if options.exif_orientation {
            image.apply_orientation(orientation);
        }
        Ok(image)
    })
}

/// The width and height of an image file, upright like [`decode`]'s, or `None` if it is not an image. Only formats whose
/// header does not tell are decoded.
pub fn dimensions(name: &str, bytes: &[u8]) -> Option<(u32, u32)> {
    let from_header = || -> Result<Option<(u32, u32)>> {
        let Ok(FileFormat::Other(format)) = formats::recognize(name, bytes) else { return Ok(None) };
        let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder();
        let mut decoder = decoder.map_err(|error| Error::format(name, error.to_string()))?;
        let (width, height) = decoder.dimensions();
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let is_turned = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        Ok(Some(if is_turned { (height, width) } else { (width, height) }))
    };
    match foreign::parse(name, from_header).ok()? {
        Some(found) => Some(found),
        None => {
            let image = decode(name, bytes, DecodeOptions::default()).ok()?;
            Some((image.width(), image.height()))
        }
    }
}

/// Whether bytes start like an image file, in a supported format or one known by name.
pub fn is_image(bytes: &[u8]) -> bool {
    formats::is_image(bytes)
}

/// Decodes an image with the `image` crate, and returns its orientation.
fn by_decoder(
    name: &str,
    decoder: ImageResult<impl ImageDecoder>,
    format: &str,
    options: DecodeOptions,
) -> Result<(DynamicImage, Orientation)> {
    let damaged = |source: ImageError| Error::format(name, describe(format, &source));
    let mut decoder = decoder.map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, options.max_pixels).map_err(|problem| Error::format(name, problem))?;
    let mut limits = Limits::default();
    // Twice the widest pixels, and room for tables.
    limits.max_alloc = Some(16 * u64::from(width) * u64::from(height) + (1 << 26));
    decoder.set_limits(limits).map_err(damaged)?;
    // Damaged Exif data count as none.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let unusual =
        |problem: String| Error::format(name, format!("a damaged or unusual {format} image: {problem}"));
    let mut samples = Samples::new((width, height), decoder.color_type()).map_err(unusual)?;
    decoder.read_image(samples.room()).map_err(damaged)?;
    Ok((samples.into_image().map_err(unusual)?, orientation))
}

fn check_size(width: u32, height: u32, most: u64) -> std::result::Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > most {
        return Err(format!("{width}×{height} pixels, expected 1 to {most} in all"));
    }
    Ok(())
}

/// Describes an error in one line.
fn describe(format: &str, error: &ImageError) -> String {
    let problem = match error {
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::InsufficientMemory) => {
            TOO_MUCH_MEMORY.to_owned()
        }
        error => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    };
    format!("a damaged or unusual {format} image: {problem}")
}
