//! Writes an animation of how an image emerges from noise.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image::codecs::gif::{GifEncoder, Repeat};
use image::imageops::{FilterType, resize};
use image::{Delay, DynamicImage, Frame, RgbImage};
use model_files::write_whole;

const EACH: Duration = Duration::from_millis(120);
const LAST: Duration = Duration::from_secs(2);

/// Frames of one size, shown in sequence, the last one longer.
#[derive(Debug, Default)]
pub struct Animation(Vec<RgbImage>);

impl Animation {
    /// The format's limit for a side.
    pub const LARGEST_SIDE: u64 = u16::MAX as u64;

    /// Checks that a file's name is that of an animation.
    ///
    /// # Errors
    /// If it does not end in .gif.
    pub fn check_name(option: &str, path: &Path) -> Result<()> {
        let is_gif = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gif"));
        ensure!(is_gif, "{option} {}: expected a name that ends in .gif", path.display());
        Ok(())
    }

    pub fn push(&mut self, frame: RgbImage) {
        self.0.push(frame);
    }

    /// Writes all frames, scaled to the size of the last one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(self, option: &'static str, path: &Path) -> Result<()> {
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new_with_speed(&mut bytes, 10);
        encoder.set_repeat(Repeat::Infinite)?;
        let (width, height) = self.0.last().map_or((0, 0), RgbImage::dimensions);
        let last = self.0.len().saturating_sub(1);
        for (index, frame) in self.0.into_iter().enumerate() {
            let frame =
                if index == last { frame } else { resize(&frame, width, height, FilterType::Triangle) };
            let delay = Delay::from_saturating_duration(if index == last { LAST } else { EACH });
            let pixels = DynamicImage::ImageRgb8(frame).into_rgba8();
            encoder.encode_frame(Frame::from_parts(pixels, 0, 0, delay))?;
        }
        drop(encoder);
        write_whole(path, |temporary| fs::write(temporary, bytes)).context(option)
    }
}
