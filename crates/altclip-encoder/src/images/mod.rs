//! Reads image files into pixels, as Pillow does.
//!
//! What `load_image` of transformers gives for a file: `PIL.Image.open`, turned upright as its Exif data say. The formats
//! are those of [`IMAGE_ENDINGS`]; a file is known by its content, whatever its name. Of an animation it is the first frame.
//!
//! The formats without loss give Pillow's bytes, and so does WebP. JPEG leaves some freedom to the decoder: against
//! libjpeg-turbo a few bytes are off by 1 or 2 steps, and by 3 where the colours are subsampled.

#[cfg(feature = "avif")]
mod avif;
mod background;
mod complete;
mod formats;
#[cfg(feature = "heic")]
mod heic;
mod tiff;

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits};
use model_files::foreign;

pub use self::background::{Background, flatten, grey, transparency_note};
pub use self::formats::{IMAGE_ENDINGS, UNREADABLE_ENDINGS, advice};

use self::background::eight_bits;
use self::formats::FileFormat;
use crate::{Error, Result};

/// Most pixels that an image may have by default, those where Pillow begins to warn of a decompression bomb: a quarter
/// of a gibibyte as RGB.
pub const MAX_PIXELS: u64 = 89_478_485;

/// Most bytes that an image file may have.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// How an image file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most pixels; an image that says it has more is refused before it is decoded.
    pub max_pixels: u64,
    /// Whether to rotate and flip the image as its Exif data ask, so that it is upright. `load_image` of transformers
    /// does; `PIL.Image.open` alone does not.
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
/// If the file cannot be read, and as for [`decode`].
pub fn open(path: impl AsRef<Path>, options: DecodeOptions) -> Result<DynamicImage> {
    let name = path.as_ref().display().to_string();
    let file = File::open(&path).map_err(Error::io(&name))?;
    read(&name, file, options)
}

/// Reads an image that is a part of a file, `length` bytes from `start` on; see [`decode`]. `name` is for the errors.
///
/// # Errors
/// As for [`open`].
pub fn open_part(
    name: &str,
    path: &Path,
    start: u64,
    length: u64,
    options: DecodeOptions,
) -> Result<DynamicImage> {
    let mut file = File::open(path).map_err(Error::io(name))?;
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

/// Decodes an image file into 8 bits per channel: a [`DynamicImage::ImageRgba8`] if a pixel is not opaque, and a
/// [`DynamicImage::ImageRgb8`] in all other cases. `name` is for the errors, and its ending tells TGA, which nothing else
/// does.
///
/// 16-bit channels keep their high byte; so do greyscale ones, where Pillow clips at 255 and leaves white. CMYK is
/// converted by arithmetic, and no colour profile is applied. What the first frame of a GIF leaves uncovered is
/// transparent. [`flatten`] lays an image on a background.
///
/// # Errors
/// If the file is no image of a known format, is damaged or cut short, or has more pixels than `options` allow.
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
            FileFormat::Other(format) => {
                if format == ImageFormat::Jpeg && !complete::jpeg(bytes) {
                    return Err(Error::format(
                        name,
                        "a JPEG image cut short: the end of the image is missing",
                    ));
                }
                let bytes = if format == ImageFormat::Png { complete::png(bytes) } else { bytes.into() };
                let decoder = ImageReader::with_format(Cursor::new(&*bytes), format).into_decoder();
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

/// Whether bytes begin as an image file does, of a format that is read here or one that is known by name.
pub fn is_image(bytes: &[u8]) -> bool {
    formats::is_image(bytes)
}

/// The image of one of the `image` crate's decoders, and how it is to be turned.
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
    // Damaged Exif data are as good as none.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).map_err(damaged)?, orientation))
}

fn check_size(width: u32, height: u32, most: u64) -> std::result::Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > most {
        return Err(format!("{width}×{height} pixels, expected 1 to {most} in all"));
    }
    Ok(())
}

/// One line on what is wrong with an image file.
fn describe(format: &str, error: &ImageError) -> String {
    let problem = match error {
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::InsufficientMemory) => {
            "needs more memory than its size explains".into()
        }
        error => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    };
    format!("a damaged or unusual {format} image: {problem}")
}
