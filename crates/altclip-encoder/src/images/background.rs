//! Flattens transparent images onto a background, and converts colours to grey.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use image::buffer::ConvertBuffer;
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Pixel, Rgb, RgbImage, Rgba, RgbaImage};
use model_files::source::ModelSource;
use serde::{Deserialize, Serialize};

use super::samples::without_alpha;
use crate::error::Result;

/// The background of transparent images.
///
/// Written as `none`, `white`, `black` or `#rrggbb`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Background {
    /// None: transparency is ignored and the hidden colours are used, as in Pillow's `convert("RGB")` and so in the
    /// reference implementations. They are whatever the program that wrote the image left there.
    #[default]
    None,
    /// A colour: red, green, blue.
    Color([u8; 3]),
}

impl Background {
    /// White.
    pub const WHITE: Self = Self::Color([255; 3]);

    /// Reads the field `background` of a model's `preprocessor_config.json`, which only this project's models have.
    ///
    /// # Errors
    /// If the file cannot be read, or does not name a colour.
    pub fn of_model(source: &ModelSource) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            background: Background,
        }
        let files =
            ["feature_extractor/preprocessor_config.json", "preprocessor_config.json"].map(str::to_owned);
        match source.first_of(&files) {
            Ok(Some(file)) => Ok(source.read_json::<Config>(&file)?.background),
            // A hub that cannot be reached only has models without the field.
            Ok(None) | Err(_) => Ok(Self::None),
        }
    }
}

/// The message about images whose hidden colours were used.
pub fn transparency_note(count: usize) -> String {
    let images = if count == 1 { "1 image has".to_owned() } else { format!("{count} images have") };
    format!("{images} transparency; the colours under it are used, as the reference implementations do")
}

impl FromStr for Background {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let expected =
            || "expected white, black, #rrggbb, or none for the colours under the transparency".to_owned();
        match text {
            "none" => Ok(Self::None),
            "white" => Ok(Self::WHITE),
            "black" => Ok(Self::Color([0; 3])),
            _ => {
                let digits =
                    text.strip_prefix('#').filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let number = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| expected());
                match digits {
                    Some(digits) if digits.len() == 6 => {
                        let [_, red, green, blue] = number(digits)?.to_be_bytes();
                        Ok(Self::Color([red, green, blue]))
                    }
                    // As in CSS, each digit is doubled.
                    Some(digits) if digits.len() == 3 => {
                        let number = number(digits)?;
                        Ok(Self::Color([8, 4, 0].map(|shift| 17 * (number >> shift & 0xF) as u8)))
                    }
                    _ => Err(expected()),
                }
            }
        }
    }
}

impl TryFrom<String> for Background {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse().map_err(|expected| format!("background is {text:?}, {expected}"))
    }
}

impl fmt::Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Color([255, 255, 255]) => f.write_str("white"),
            Self::Color([0, 0, 0]) => f.write_str("black"),
            Self::Color([red, green, blue]) => write!(f, "#{red:02x}{green:02x}{blue:02x}"),
        }
    }
}

impl From<Background> for String {
    fn from(background: Background) -> Self {
        background.to_string()
    }
}

/// Converts an image to 8-bit RGB on a background.
///
/// Blended values are rounded to the nearest, giving the bytes of Pillow's `alpha_composite`.
pub fn flatten(image: &DynamicImage, background: Background) -> Cow<'_, RgbImage> {
    let image = match image {
        DynamicImage::ImageRgb8(image) => return Cow::Borrowed(image),
        DynamicImage::ImageRgba8(image) => Cow::Borrowed(image),
        other => match eight_bits(other.clone()) {
            DynamicImage::ImageRgba8(image) => Cow::Owned(image),
            other => return Cow::Owned(other.into_rgb8()),
        },
    };
    Cow::Owned(match background {
        Background::None => image.convert(),
        Background::Color(below) => {
            let mut flat = RgbImage::new(image.width(), image.height());
            for (to, from) in flat.pixels_mut().zip(image.pixels()) {
                *to = Rgb(blended(from.0, below));
            }
            flat
        }
    })
}

/// Like [`flatten`], in the memory of the image.
pub(crate) fn flattened(image: DynamicImage, background: Background) -> RgbImage {
    match (eight_bits(image), background) {
        (DynamicImage::ImageRgba8(mut image), Background::Color(below)) => {
            for pixel in image.pixels_mut() {
                let [red, green, blue] = blended(pixel.0, below);
                *pixel = Rgba([red, green, blue, u8::MAX]);
            }
            without_alpha(image)
        }
        (DynamicImage::ImageRgba8(image), Background::None) => without_alpha(image),
        (image, _) => image.into_rgb8(),
    }
}

/// A pixel on a background.
fn blended([red, green, blue, alpha]: [u8; 4], below: [u8; 3]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    let mix = |above: u8, below: u8| {
        ((u32::from(above) * alpha + u32::from(below) * (255 - alpha) + 127) / 255) as u8
    };
    [mix(red, below[0]), mix(green, below[1]), mix(blue, below[2])]
}

/// Converts an image to grey like Pillow's `convert("L")`, by ITU-R 601-2.
pub fn grey(image: &RgbImage) -> GrayImage {
    let mut grey = GrayImage::new(image.width(), image.height());
    for (to, from) in grey.pixels_mut().zip(image.pixels()) {
        let [red, green, blue] = from.0.map(u32::from);
        *to = Luma([((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16) as u8]);
    }
    grey
}

/// Reduces an image to 8 bits per channel, keeping the high byte of wider ones: RGB, or RGBA if a pixel is not
/// opaque.
pub(super) fn eight_bits(image: DynamicImage) -> DynamicImage {
    let image = match image {
        DynamicImage::ImageRgb8(_) => return image,
        DynamicImage::ImageLuma16(image) => return DynamicImage::ImageRgb8(high_bytes(&image).convert()),
        DynamicImage::ImageRgb16(image) => return DynamicImage::ImageRgb8(high_bytes(&image).convert()),
        DynamicImage::ImageLumaA16(image) => high_bytes(&image),
        DynamicImage::ImageRgba16(image) => high_bytes(&image),
        image if image.color().has_alpha() => image.into_rgba8(),
        image => return DynamicImage::ImageRgb8(image.into_rgb8()),
    };
    match image.pixels().all(|pixel| pixel.0[3] == u8::MAX) {
        true => DynamicImage::ImageRgb8(without_alpha(image)),
        false => DynamicImage::ImageRgba8(image),
    }
}

fn high_bytes<P: Pixel<Subpixel = u16>>(image: &ImageBuffer<P, Vec<u16>>) -> RgbaImage {
    let mut bytes = RgbaImage::new(image.width(), image.height());
    for (to, from) in bytes.pixels_mut().zip(image.pixels()) {
        *to = Rgba(from.to_rgba().0.map(|channel| (channel >> 8) as u8));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flattening_in_place_gives_the_same_pixels() {
        let transparent =
            RgbaImage::from_fn(90, 60, |x, y| Rgba([x, y, x * y, x + 2 * y].map(|value| value as u8)));
        let opaque = RgbaImage::from_fn(90, 60, |x, y| Rgba([x as u8, y as u8, 7, u8::MAX]));
        for image in [transparent, opaque] {
            for background in [Background::None, Background::WHITE, Background::Color([9, 99, 199])] {
                let image = DynamicImage::ImageRgba8(image.clone());
                let copied = flatten(&image, background).into_owned();
                assert!(copied == flattened(image, background), "{background}");
            }
        }
    }

    #[test]
    fn colours_are_read_as_css_writes_them() {
        for (text, shown, background) in [
            ("none", "none", Background::None),
            ("white", "white", Background::WHITE),
            ("#FFFFFF", "white", Background::WHITE),
            ("#000", "black", Background::Color([0; 3])),
            ("#1a8", "#11aa88", Background::Color([0x11, 0xAA, 0x88])),
            ("#11aa88", "#11aa88", Background::Color([0x11, 0xAA, 0x88])),
        ] {
            assert_eq!(text.parse(), Ok(background), "{text}");
            assert_eq!(background.to_string(), shown);
        }
        for text in ["", "None", "#12345", "#+12345", "ffffff", "#ggg", "transparent", "#猫"] {
            assert!(text.parse::<Background>().is_err(), "{text}");
        }
    }
}
