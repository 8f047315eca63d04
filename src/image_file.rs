//! Images as files.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use model_files::write_whole;

use crate::image_text::{KEYWORD, exif_of};
use crate::progress::warn;

/// Of 100. What is lost can hardly be seen.
const JPEG_QUALITY: u8 = 95;

/// What EXIF may have in a JPEG: a segment of 65 533 bytes, less its header.
const LONGEST_JPEG_EXIF: usize = 65_527;

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    Png,
    Jpeg,
    /// Without loss.
    WebP,
}

impl OutputFormat {
    /// The format that the ending of a file's name stands for.
    ///
    /// # Errors
    /// When it stands for none of these.
    pub fn of(option: &str, path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::WebP),
            _ => {
                bail!("{option} {}: expected a name that ends in .png, .jpg, .jpeg or .webp", path.display())
            }
        }
    }

    /// The most pixels that a side of an image may have.
    pub fn largest_side(self) -> u64 {
        match self {
            Self::Png => i32::MAX as u64,
            Self::Jpeg => u16::MAX.into(),
            Self::WebP => 16_383,
        }
    }

    fn encode(self, image: &RgbImage, parameters: Option<&str>) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        let exif = parameters.map(exif_of).transpose()?;
        match self {
            Self::Png => encode_png(image, parameters, bytes.get_mut())?,
            Self::Jpeg => {
                let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
                match exif.filter(|exif| exif.len() <= LONGEST_JPEG_EXIF) {
                    Some(exif) => encoder.set_exif_metadata(exif)?,
                    None if parameters.is_some() => {
                        warn(
                            "the prompt is too long for a .jpg to tell how it was drawn; .png has no such limit",
                        );
                    }
                    None => {}
                }
                encoder.encode_image(image)?;
            }
            Self::WebP => {
                let mut encoder = WebPEncoder::new_lossless(&mut bytes);
                if let Some(exif) = exif {
                    encoder.set_exif_metadata(exif)?;
                }
                encoder.write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)?;
            }
        }
        Ok(bytes.into_inner())
    }
}

fn encode_png(image: &RgbImage, parameters: Option<&str>, bytes: &mut Vec<u8>) -> Result<()> {
    let mut encoder = png::Encoder::new(bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(parameters) = parameters {
        // Plain text chunks hold Latin-1; Pillow and the tools that read them make the same choice.
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

/// Writes an image, with how it was made if the format has a place for that.
///
/// # Errors
/// When the format does not take an image of this size, or the file cannot be written.
pub fn write_image(
    path: &Path,
    format: OutputFormat,
    image: &RgbImage,
    parameters: Option<&str>,
) -> Result<()> {
    let bytes = format.encode(image, parameters).with_context(|| path.display().to_string())?;
    write_whole(path, |temporary| fs::write(temporary, bytes)).context("--output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_the_ending() {
        let format = |path: &str| OutputFormat::of("--output", Path::new(path)).ok();
        assert_eq!(format("a.png"), Some(OutputFormat::Png));
        assert_eq!(format("a.b.JPEG"), Some(OutputFormat::Jpeg));
        assert_eq!(format("a.webp"), Some(OutputFormat::WebP));
        for path in ["a", ".png", "a.gif", "a.png.txt"] {
            assert_eq!(format(path), None, "{path}");
        }
    }

    #[test]
    fn how_a_png_was_made_can_be_read_again() -> Result<()> {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        for parameters in ["a café\nSteps: 3", "一只猫\nSteps: 3"] {
            let bytes = OutputFormat::Png.encode(&image, Some(parameters))?;
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
