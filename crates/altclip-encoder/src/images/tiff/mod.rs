//! Reads TIFF files in the layouts, bit depths and compressions that Pillow supports and that occur in practice.
//!
//! The `tiff` crate unpacks the samples, and this module interprets them: the crate does not support palettes, leaves
//! YCbCr as it is, and misreads premultiplied alpha.

mod fax;
mod wide;

use std::borrow::Cow;
use std::io::Cursor;

use ::tiff::decoder::{Decoder, Limits};
use ::tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};
use ::tiff::{ColorType, TiffError, TiffUnsupportedError};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};

use super::samples::{HIGH_BYTE, packed};
use super::{TOO_MUCH_MEMORY, check_size};
use wide::WideSamples;

/// Values of `ExtraSamples`, for a sample beyond the colours.
const ASSOCIATED_ALPHA: u16 = 1;
const UNASSOCIATED_ALPHA: u16 = 2;

/// Decodes the first image of a TIFF file, and returns its orientation.
///
/// # Errors
/// What is wrong with the file, in one line.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<(DynamicImage, Orientation), String> {
    let mut file = Decoder::new(Cursor::new(bytes)).map_err(one_line)?;
    let (width, height) = file.dimensions().map_err(one_line)?;
    check_size(width, height, max_pixels)?;
    let orientation = file.find_tag_unsigned::<u16>(Tag::Orientation).ok().flatten();
    let orientation = orientation.and_then(|number| Orientation::from_exif(u8::try_from(number).ok()?));

    let palette = palette_of(&mut file)?;
    // To the crate, palette indices are grey levels.
    let bytes = match palette {
        Some(_) => Cow::Owned(as_grey(bytes)?),
        None => Cow::Borrowed(bytes),
    };
    let mut limits = Limits::default();
    let most_bytes =
        usize::try_from(16 * u64::from(width) * u64::from(height) + (1 << 26)).map_err(|e| e.to_string())?;
    (limits.decoding_buffer_size, limits.intermediate_buffer_size, limits.ifd_value_size) =
        (most_bytes, most_bytes, most_bytes);
    let file = Decoder::new(Cursor::new(&*bytes)).map_err(one_line)?.with_limits(limits);
    let image =
        TiffSamples::read(file, &bytes, (width, height), most_bytes)?.into_image(palette.as_deref())?;
    Ok((image, orientation.unwrap_or(Orientation::NoTransforms)))
}

/// An image's samples, 8 bits each, interleaved by pixel.
struct TiffSamples {
    width: u32,
    height: u32,
    color: ColorType,
    /// Samples per pixel.
    of_pixel: usize,
    /// The meaning of the first sample after the colours.
    extra: Option<u16>,
    bytes: Vec<u8>,
}

impl TiffSamples {
    fn read(
        mut file: Decoder<Cursor<&[u8]>>,
        bytes: &[u8],
        (width, height): (u32, u32),
        most_bytes: usize,
    ) -> Result<Self, String> {
        let color = file.colortype().map_err(one_line)?;
        let extra = file.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(one_line)?;
        let format = file.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).map_err(one_line)?;
        let is_white_zero =
            file.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(one_line)?
                == Some(PhotometricInterpretation::WhiteIsZero.to_u16());
        let wide = WideSamples::of(color, format.as_deref().unwrap_or_default(), is_white_zero)?;
        let compression = file.find_tag_unsigned::<u16>(Tag::Compression).map_err(one_line)?;
        let compression = compression.map(CompressionMethod::from_u16_exhaustive);
        if let ColorType::YCbCr(_) = color
            && compression != Some(CompressionMethod::ModernJPEG)
            && file.find_tag_unsigned_vec::<u16>(Tag::ChromaSubsampling).map_err(one_line)?
                != Some(vec![1, 1])
        {
            return Err("YCbCr with fewer samples of colour than of brightness, and not compressed as JPEG"
                .to_owned());
        }
        let mut samples = Self {
            width,
            height,
            color,
            of_pixel: usize::from(color.num_samples()),
            extra: extra.and_then(|extra| extra.first().copied()),
            bytes: Vec::new(),
        };
        if compression == Some(CompressionMethod::Fax3) {
            samples.bytes = fax::decode(&mut file, bytes, width, height)?;
            return Ok(samples);
        }
        let sample_bytes = match color.bit_depth() {
            0..=8 => 1,
            9..=16 => 2,
            // Only these were not refused above.
            _ => 4,
        };
        let layout = file.image_buffer_layout().map_err(one_line)?;
        if layout.complete_len > most_bytes {
            return Err(TOO_MUCH_MEMORY.to_owned());
        }
        let mut values = vec![0; layout.complete_len];
        file.read_image_bytes(&mut values).map_err(one_line)?;
        if let Some(wide) = wide {
            values = wide.in_eight_bits(&values);
        } else if sample_bytes == 2 {
            let count = values.len() / 2;
            values = packed(values, count, 2, [HIGH_BYTE]);
        }
        samples.bytes = match layout.planes {
            0 | 1 => samples.unpacked(values),
            planes => interleaved(&values, planes),
        };
        let expected = samples.of_pixel as u64 * u64::from(width) * u64::from(height);
        match samples.bytes.len() as u64 == expected {
            true => Ok(samples),
            false => Err(format!("{} samples, expected {expected}", samples.bytes.len())),
        }
    }

    /// Expands samples of fewer than 8 bits to a byte each. Rows start at byte boundaries.
    fn unpacked(&self, packed: Vec<u8>) -> Vec<u8> {
        let bits = usize::from(self.color.bit_depth());
        if bits >= 8 {
            return packed;
        }
        let in_row = self.width as usize * self.of_pixel;
        let mask = (1u8 << bits) - 1;
        let row_bytes = (in_row * bits).div_ceil(8);
        let rows = packed.chunks(row_bytes.max(1)).map(|row| {
            let samples = row
                .iter()
                .flat_map(|byte| (0..8 / bits).rev().map(move |place| byte >> (place * bits) & mask));
            samples.take(in_row)
        });
        rows.flatten().collect()
    }

    fn into_image(self, palette: Option<&[[u8; 3]]>) -> Result<DynamicImage, String> {
        let alpha = self.extra.filter(|extra| [ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA].contains(extra));
        let is_associated = self.extra == Some(ASSOCIATED_ALPHA);
        if let Some(palette) = palette {
            if self.color.bit_depth() > 16 {
                return Err(format!("a palette with indices of {} bits", self.color.bit_depth()));
            }
            let black = [0; 3];
            return self.rgb(|pixel| {
                *pixel.first().and_then(|&index| palette.get(usize::from(index))).unwrap_or(&black)
            });
        }
        match self.color {
            ColorType::Gray(bits) => {
                let scale = if bits < 8 { u8::MAX / ((1 << bits) - 1) } else { 1 };
                self.rgb(|pixel| [pixel[0] * scale; 3])
            }
            ColorType::Multiband { num_samples: 2, bit_depth: 8 | 16 } => match alpha {
                Some(_) => self.rgba(is_associated, |pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]),
                None => self.rgb(|pixel| [pixel[0]; 3]),
            },
            ColorType::RGB(8 | 16) => self.rgb(|pixel| [pixel[0], pixel[1], pixel[2]]),
            // Pillow also takes four unspecified samples for RGBA.
            ColorType::RGBA(8 | 16) => {
                self.rgba(is_associated, |pixel| [pixel[0], pixel[1], pixel[2], pixel[3]])
            }
            ColorType::CMYK(8 | 16) | ColorType::CMYKA(8 | 16) => self.rgb(cmyk_to_rgb),
            ColorType::YCbCr(8) => self.rgb(ycbcr_to_rgb),
            other => Err(format!("colours of the kind {other:?}")),
        }
    }

    fn rgb(&self, color: impl Fn(&[u8]) -> [u8; 3]) -> Result<DynamicImage, String> {
        let bytes = self.bytes.chunks_exact(self.of_pixel).flat_map(color).collect();
        let image = RgbImage::from_raw(self.width, self.height, bytes);
        image.map(DynamicImage::ImageRgb8).ok_or_else(|| "fewer pixels than its size says".to_owned())
    }

    fn rgba(&self, is_associated: bool, color: impl Fn(&[u8]) -> [u8; 4]) -> Result<DynamicImage, String> {
        let pixel = |samples: &[u8]| {
            let [red, green, blue, alpha] = color(samples);
            if !is_associated {
                return [red, green, blue, alpha];
            }
            // Like Pillow's unpacking of RGBa.
            let divided = |color: u8| match alpha {
                0 => 0,
                alpha => u8::try_from(255 * u32::from(color) / u32::from(alpha)).unwrap_or(u8::MAX),
            };
            [divided(red), divided(green), divided(blue), alpha]
        };
        let bytes = self.bytes.chunks_exact(self.of_pixel).flat_map(pixel).collect();
        let image = RgbaImage::from_raw(self.width, self.height, bytes);
        image.map(DynamicImage::ImageRgba8).ok_or_else(|| "fewer pixels than its size says".to_owned())
    }
}

/// Interleaves samples that are stored in planes.
fn interleaved(planes: &[u8], count: usize) -> Vec<u8> {
    let plane = planes.len() / count;
    let pixel =
        |place: usize| (0..count).filter_map(move |number| planes.get(number * plane + place).copied());
    (0..plane).flat_map(pixel).collect()
}

/// Converts CMYK to RGB like Pillow.
fn cmyk_to_rgb(pixel: &[u8]) -> [u8; 3] {
    let white = u32::from(255 - pixel[3]);
    [0, 1, 2].map(|place| {
        // A product divided by 255 and rounded.
        let product = u32::from(pixel[place]) * white + 128;
        (white - ((product + (product >> 8)) >> 8)) as u8
    })
}

/// Converts YCbCr to RGB as JPEG defines it (ITU-T T.871).
fn ycbcr_to_rgb(pixel: &[u8]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(pixel[0]), f32::from(pixel[1]) - 128., f32::from(pixel[2]) - 128.);
    let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    rgb.map(|color| color.round().clamp(0., 255.) as u8)
}

/// The palette's colours, if the image has one.
fn palette_of(file: &mut Decoder<Cursor<&[u8]>>) -> Result<Option<Vec<[u8; 3]>>, String> {
    let kind = file.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(one_line)?;
    if kind != Some(PhotometricInterpretation::RGBPalette.to_u16()) {
        return Ok(None);
    }
    // All reds, then all greens, then all blues.
    let map = file.find_tag_unsigned_vec::<u16>(Tag::ColorMap).map_err(one_line)?.unwrap_or_default();
    let count = map.len() / 3;
    let colour =
        |index: usize| [0, 1, 2].map(|part| (map.get(part * count + index).copied().unwrap_or(0) >> 8) as u8);
    match count {
        0 => Err("a palette without colours".to_owned()),
        count => Ok(Some((0..count).map(colour).collect())),
    }
}

/// The file with the colour type in its first directory changed to grey.
fn as_grey(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let damaged = || "its first directory is damaged".to_owned();
    let is_little = bytes.starts_with(b"II");
    let is_big_tiff = bytes.get(if is_little { 2 } else { 3 }) == Some(&0x2b);
    let number = |at: usize, length: usize| -> Option<usize> {
        let part = bytes.get(at..at.checked_add(length)?)?;
        let digits = |number: usize, byte: &u8| number << 8 | usize::from(*byte);
        Some(if is_little { part.iter().rev().fold(0, digits) } else { part.iter().fold(0, digits) })
    };
    let (at_offset, offset_bytes, count_bytes, entry_bytes) =
        if is_big_tiff { (8, 8, 8, 20) } else { (4, 4, 2, 12) };
    let directory = number(at_offset, offset_bytes).ok_or_else(damaged)?;
    let count = number(directory, count_bytes).ok_or_else(damaged)?;
    let entries = (0..count).map_while(|entry| {
        let at = entry.checked_mul(entry_bytes)?.checked_add(directory)?.checked_add(count_bytes)?;
        Some((at, number(at, 2)?))
    });
    let tag = usize::from(Tag::PhotometricInterpretation.to_u16());
    let (at, _) = entries.into_iter().find(|(_, found)| *found == tag).ok_or_else(damaged)?;
    let value = at + entry_bytes - offset_bytes;
    let mut changed = bytes.to_vec();
    let grey = PhotometricInterpretation::BlackIsZero.to_u16();
    let grey = if is_little { grey.to_le_bytes() } else { grey.to_be_bytes() };
    changed.get_mut(value..value + 2).ok_or_else(damaged)?.copy_from_slice(&grey);
    Ok(changed)
}

fn one_line(error: TiffError) -> String {
    match error {
        TiffError::LimitsExceeded => TOO_MUCH_MEMORY.to_owned(),
        TiffError::UnsupportedError(TiffUnsupportedError::UnsupportedCompressionMethod(method)) => {
            format!("compressed by {method:?}, which is not read here")
        }
        error => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
