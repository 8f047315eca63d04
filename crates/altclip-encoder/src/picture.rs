//! Picture files to RGB pixels, as Pillow reads them.
//!
//! What `load_image` of transformers gives for a file: `PIL.Image.open`, turned upright as its Exif data say, then
//! `convert("RGB")`. PNG, JPEG, WebP, GIF, BMP and TIFF; of an animation, the first frame.
//!
//! WebP and the formats without loss give Pillow's bytes. JPEG leaves some freedom to the decoder: against libjpeg-turbo
//! a few bytes are off by 1 or 2 steps, and by 3 where the colours are subsampled.

mod complete;

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Pixel, Rgb,
    RgbImage,
};

use crate::{Error, Result};

/// Endings, in lower case, of the files that are taken for pictures in a folder. A file that is named itself may have any.
pub const PICTURE_ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

/// Most pixels that a picture may have by default, those where Pillow begins to warn of a decompression bomb: a quarter
/// of a gibibyte as RGB.
pub const MAX_PIXELS: u64 = 89_478_485;

/// Most bytes that a picture file may have.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// How a picture file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most pixels; a picture that says it has more is refused before it is decoded.
    pub max_pixels: u64,
    /// Whether to rotate and flip the picture as its Exif data ask, so that it is upright. `load_image` of transformers
    /// does; `PIL.Image.open` alone does not.
    pub exif_orientation: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_pixels: MAX_PIXELS, exif_orientation: true }
    }
}

/// Reads a picture file; see [`decode`].
///
/// # Errors
/// If the file cannot be read, and as for [`decode`].
pub fn open(path: impl AsRef<Path>, options: DecodeOptions) -> Result<DynamicImage> {
    let name = path.as_ref().display().to_string();
    let file = File::open(&path).map_err(Error::io(&name))?;
    read(&name, file, options)
}

/// Reads a picture that is a part of a file, `length` bytes from `start` on; see [`decode`]. `name` is for the errors.
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
            format!("more than the {MAX_FILE_BYTES} bytes that a picture may have"),
        ));
    }
    decode(name, &bytes, options)
}

/// Decodes a picture file into RGB, 8 bits per channel: the result is a [`DynamicImage::ImageRgb8`] in all cases. `name`
/// is for the errors.
///
/// Transparency is dropped: the colours are those under it. 16-bit channels keep their high byte; so do greyscale
/// ones, where Pillow clips at 255 and leaves white. CMYK is converted by arithmetic, and no colour profile is applied.
/// What the first frame of a GIF leaves uncovered is black.
///
/// # Errors
/// If the file is no picture of a known format, is damaged or cut short, or has more pixels than `options` allow.
pub fn decode(name: &str, bytes: &[u8], options: DecodeOptions) -> Result<DynamicImage> {
    let error = |problem: String| Error::format(name, problem);
    if bytes.is_empty() {
        return Err(error("the file is empty, expected a picture".into()));
    }
    let format = image::guess_format(bytes).ok().filter(|format| FORMATS.contains(format));
    let Some(format) = format else {
        return Err(error("not a picture: expected PNG, JPEG, WebP, GIF, BMP or TIFF".into()));
    };
    let damaged = |source: ImageError| error(describe(format, &source));
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > options.max_pixels {
        let most = options.max_pixels;
        return Err(error(format!("{width}×{height} pixels, expected 1 to {most} in all")));
    }
    if format == ImageFormat::Jpeg && !complete::jpeg(bytes) {
        return Err(error("a JPEG picture cut short: the end of the image is missing".into()));
    }
    let mut limits = Limits::default();
    // Twice the widest pixels, and room for tables.
    limits.max_alloc = Some(16 * pixels + (1 << 26));
    decoder.set_limits(limits).map_err(damaged)?;
    // Damaged Exif data are as good as none.
    let orientation = if options.exif_orientation { decoder.orientation().ok() } else { None };
    let picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let mut picture = DynamicImage::ImageRgb8(to_rgb(&picture).into_owned());
    picture.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(picture)
}

const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

/// One line on what is wrong with a picture file.
fn describe(format: ImageFormat, error: &ImageError) -> String {
    let problem = match error {
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::InsufficientMemory) => {
            "needs more memory than its size explains".into()
        }
        error => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    };
    format!("a damaged or unusual {format:?} picture: {problem}")
}

/// The picture as Pillow's `convert("RGB")` gives it: no alpha, and of 16 bits the high 8.
pub(crate) fn to_rgb(image: &DynamicImage) -> Cow<'_, RgbImage> {
    match image {
        DynamicImage::ImageRgb8(image) => Cow::Borrowed(image),
        DynamicImage::ImageLuma16(image) => Cow::Owned(high_bytes(image)),
        DynamicImage::ImageLumaA16(image) => Cow::Owned(high_bytes(image)),
        DynamicImage::ImageRgb16(image) => Cow::Owned(high_bytes(image)),
        DynamicImage::ImageRgba16(image) => Cow::Owned(high_bytes(image)),
        image => Cow::Owned(image.to_rgb8()),
    }
}

fn high_bytes<P: Pixel<Subpixel = u16>>(image: &ImageBuffer<P, Vec<u16>>) -> RgbImage {
    let mut bytes = RgbImage::new(image.width(), image.height());
    for (to, from) in bytes.pixels_mut().zip(image.pixels()) {
        *to = Rgb(from.to_rgb().0.map(|channel| (channel >> 8) as u8));
    }
    bytes
}
