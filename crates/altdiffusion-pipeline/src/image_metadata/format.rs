//! Encodes images as files, with a text that records how they were drawn.

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use super::exif::exif_of;
use super::{KEYWORD, Problem};
use crate::error::{Error, Result};

/// Out of 100, unless another is asked for: the loss is hardly visible.
const JPEG_QUALITY: u8 = 95;

/// The room for EXIF in a JPEG: a segment of 65 533 bytes, less its header.
const LONGEST_JPEG_EXIF: usize = 65_527;

/// How an image is stored in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageFileFormat {
    /// PNG.
    Png,
    /// JPEG at quality 95.
    Jpeg,
    /// Lossless WebP.
    WebP,
}

impl ImageFileFormat {
    /// The format for a file name's ending: `.png`, `.jpg`, `.jpeg` or `.webp`.
    ///
    /// # Errors
    /// If the ending is another.
    pub fn from_path(path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::WebP),
            _ => {
                let problem = "expected a name that ends in .png, .jpg, .jpeg or .webp";
                Err(Error::content(path.display().to_string(), problem))
            }
        }
    }

    /// The largest side that an image can have, in pixels.
    pub fn largest_side(self) -> u64 {
        match self {
            Self::Png => i32::MAX as u64,
            Self::Jpeg => u16::MAX.into(),
            Self::WebP => 16_383,
        }
    }

    /// Whether this text fits: a JPEG holds about 32 000 characters, the others whatever
    /// [`read_parameters_text`](super::read_parameters_text) reads.
    pub fn has_room_for(self, parameters: &str) -> bool {
        // EXIF stores it as UTF-16, after a few headers.
        self != Self::Jpeg || exif_of(parameters).is_ok_and(|exif| exif.len() <= LONGEST_JPEG_EXIF)
    }

    /// Encodes an image, with a text that records how it was drawn if it [fits](Self::has_room_for).
    ///
    /// # Errors
    /// If the format does not support this size.
    pub fn encode(self, image: &RgbImage, parameters: Option<&str>) -> Result<Vec<u8>> {
        self.encode_in_quality(image, parameters, JPEG_QUALITY)
    }

    /// Encodes an image like [`encode`](Self::encode), a JPEG in this quality from 1 to 100.
    ///
    /// # Errors
    /// If the format does not support this size.
    pub fn encode_in_quality(
        self,
        image: &RgbImage,
        parameters: Option<&str>,
        quality: u8,
    ) -> Result<Vec<u8>> {
        let parameters = parameters.filter(|text| self.has_room_for(text));
        self.encode_all(image, parameters, quality).map_err(|problem| {
            let shown = format!("an image of {} × {} pixels", image.width(), image.height());
            Error::content(shown, problem.to_string())
        })
    }

    fn encode_all(
        self,
        image: &RgbImage,
        parameters: Option<&str>,
        quality: u8,
    ) -> std::result::Result<Vec<u8>, Problem> {
        let mut bytes = Cursor::new(Vec::new());
        match self {
            Self::Png => encode_png(image, parameters, bytes.get_mut())?,
            Self::Jpeg => {
                let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
                if let Some(parameters) = parameters {
                    encoder.set_exif_metadata(exif_of(parameters)?)?;
                }
                encoder.encode_image(image)?;
            }
            Self::WebP => {
                let mut encoder = WebPEncoder::new_lossless(&mut bytes);
                if let Some(parameters) = parameters {
                    encoder.set_exif_metadata(exif_of(parameters)?)?;
                }
                encoder.write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)?;
            }
        }
        Ok(bytes.into_inner())
    }
}

fn encode_png(
    image: &RgbImage,
    parameters: Option<&str>,
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), Problem> {
    let mut encoder = png::Encoder::new(bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(parameters) = parameters {
        // Plain text chunks hold Latin-1. Pillow makes the same choice, and other tools read it.
        if parameters.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk(KEYWORD.to_owned(), parameters.to_owned())?;
        } else {
            encoder.add_itxt_chunk(KEYWORD.to_owned(), parameters.to_owned())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_the_ending() {
        let format = |path: &str| ImageFileFormat::from_path(Path::new(path)).ok();
        assert_eq!(format("a.png"), Some(ImageFileFormat::Png));
        assert_eq!(format("a.b.JPEG"), Some(ImageFileFormat::Jpeg));
        assert_eq!(format("a.webp"), Some(ImageFileFormat::WebP));
        for path in ["a", ".png", "a.gif", "a.png.txt"] {
            assert_eq!(format(path), None, "{path}");
        }
    }

    #[test]
    fn how_a_png_was_made_can_be_read_again() -> std::result::Result<(), Problem> {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        for parameters in ["a café\nSteps: 3", "一只猫\nSteps: 3"] {
            let bytes = ImageFileFormat::Png.encode(&image, Some(parameters))?;
            let decoder = png::Decoder::new(Cursor::new(&bytes));
            let info = decoder.read_info()?;
            let plain =
                info.info().uncompressed_latin1_text.iter().map(|chunk| (&chunk.keyword, chunk.text.clone()));
            let wide = info
                .info()
                .utf8_text
                .iter()
                .map(|chunk| (&chunk.keyword, chunk.get_text().unwrap_or_default()));
            let found: Vec<_> = plain.chain(wide).collect();
            assert_eq!(found, [(&KEYWORD.to_owned(), parameters.to_owned())]);
            assert_eq!(image::load_from_memory(&bytes)?.into_rgb8(), image);
        }
        Ok(())
    }
}
