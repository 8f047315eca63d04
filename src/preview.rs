//! Shows images in the terminal, two pixels per character: `▀` in the upper one's colour on the lower one's.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use anyhow::Result;
use image::imageops::{FilterType, resize};
use image::{GenericImage, Rgb, RgbImage};
use terminal_size::{Height, Width, terminal_size_of};

use crate::standard_streams::print;

/// The most images shown side by side.
const MOST_IMAGES: usize = 4;

/// Terminal lines left free around the image.
const OTHER_LINES: u16 = 4;

/// The colours of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    /// Every colour.
    True,
    /// xterm's palette of 256 colours, with 6 × 6 × 6 of them evenly spaced.
    Palette,
}

impl Colours {
    /// Detects the terminal's colours from the variables that terminals set.
    fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if variable("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            return None;
        }
        if variable("COLORTERM").is_some_and(|value| value == "truecolor" || value == "24bit") {
            return Some(Self::True);
        }
        variable("TERM").filter(|terminal| terminal.contains("256color")).map(|_| Self::Palette)
    }

    /// Writes the parameters of a colour's control sequence. `layer` is 38 for the foreground, 48 for the background.
    fn write(self, text: &mut String, layer: u8, Rgb([red, green, blue]): Rgb<u8>) -> fmt::Result {
        match self {
            Self::True => write!(text, "\x1b[{layer};2;{red};{green};{blue}m"),
            Self::Palette => {
                let level = |value: u8| (u16::from(value) * 5 + 127) / 255;
                let colour = 16 + 36 * level(red) + 6 * level(green) + level(blue);
                write!(text, "\x1b[{layer};5;{colour}m")
            }
        }
    }
}

/// Shows the first few images on standard output, if it is a suitable terminal.
///
/// # Errors
/// If standard output cannot be written to.
pub fn show(images: &[RgbImage]) -> Result<()> {
    let stdout = io::stdout();
    let colours = Colours::of_environment(|name| std::env::var(name).ok());
    let (true, Some(colours), Some((Width(columns), Height(lines)))) =
        (stdout.is_terminal(), colours, terminal_size_of(&stdout))
    else {
        return Ok(());
    };
    let pixels = (u32::from(columns), 2 * u32::from(lines.saturating_sub(OTHER_LINES)));
    let Some(strip) = strip(images, pixels) else { return Ok(()) };
    print(&half_blocks(&strip, colours)?)
}

/// Arranges images side by side, scaled down to fit `(width, height)`. `None` if nothing fits.
fn strip(images: &[RgbImage], (width, height): (u32, u32)) -> Option<RgbImage> {
    let images = &images[..images.len().min(MOST_IMAGES)];
    let (image_width, image_height) = images.first()?.dimensions();
    let width = width / images.len() as u32;
    let scale = (f64::from(width) / f64::from(image_width)).min(f64::from(height) / f64::from(image_height));
    let scaled = |side: u32| (f64::from(side) * scale.min(1.0)) as u32;
    let (width, height) = (scaled(image_width), scaled(image_height));
    if width == 0 || height == 0 {
        return None;
    }
    let mut strip = RgbImage::new(width * images.len() as u32, height);
    let mut left = 0;
    for image in images {
        let small = resize(image, width, height, FilterType::Triangle);
        strip.copy_from(&small, left, 0).ok()?;
        left += width;
    }
    Some(strip)
}

/// Converts an image to text. If the number of rows is odd, the last has the terminal's background below it.
fn half_blocks(image: &RgbImage, colours: Colours) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for row in (0..image.height()).step_by(2) {
        for column in 0..image.width() {
            colours.write(&mut text, 38, *image.get_pixel(column, row))?;
            if let Some(lower) = image.get_pixel_checked(column, row + 1) {
                colours.write(&mut text, 48, *lower)?;
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_two_pixels() -> fmt::Result {
        let image = RgbImage::from_raw(1, 3, vec![255, 0, 0, 0, 128, 255, 1, 2, 3]).unwrap_or_default();
        assert_eq!(
            half_blocks(&image, Colours::True)?,
            "\x1b[38;2;255;0;0m\x1b[48;2;0;128;255m▀\x1b[0m\n\x1b[38;2;1;2;3m▀\x1b[0m\n"
        );
        // 16 + 36 · 5, and 16 + 6 · 3 + 5.
        assert!(half_blocks(&image, Colours::Palette)?.starts_with("\x1b[38;5;196m\x1b[48;5;39m▀"));
        Ok(())
    }

    #[test]
    fn images_stand_side_by_side_and_fit() {
        let images = vec![RgbImage::new(64, 32); 6];
        let size = |count: usize, space| strip(&images[..count], space).map(|strip| strip.dimensions());
        assert_eq!(size(1, (80, 50)), Some((64, 32)));
        assert_eq!(size(1, (80, 16)), Some((32, 16)));
        assert_eq!(size(2, (80, 50)), Some((80, 20)));
        assert_eq!(size(6, (80, 50)), Some((80, 10)));
        assert_eq!(size(0, (80, 50)), None);
        assert_eq!(size(1, (80, 0)), None);
    }

    #[test]
    fn terminals_say_what_they_can_show() {
        let colours = |variables: &[(&str, &str)]| {
            Colours::of_environment(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(colours(&[("COLORTERM", "truecolor"), ("TERM", "xterm-256color")]), Some(Colours::True));
        assert_eq!(colours(&[("TERM", "xterm-256color")]), Some(Colours::Palette));
        assert_eq!(colours(&[("TERM", "dumb")]), None);
        assert_eq!(colours(&[]), None);
        assert_eq!(colours(&[("COLORTERM", "truecolor"), ("NO_COLOR", "1")]), None);
    }
}
