//! Several images in one, in rows and columns.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

use crate::caption::{Captions, LINE_HEIGHT};
use crate::progress::warn;

/// Pixels of white around each image.
const MARGIN: u64 = 2;

/// Where the images of a run stand in their sheet. An image alone is its own sheet, without a margin.
#[derive(Debug)]
pub struct Sheet {
    /// Pixels of each image, width and height.
    cell: (u64, u64),
    columns: u64,
    images: u64,
    /// What stands above the first of so many images each; none where all are of one prompt.
    captions: Vec<String>,
    /// The sheet before there are images in it.
    empty: OnceLock<RgbImage>,
}

impl Sheet {
    /// A sheet of so many images of this width and height: in about as many rows as columns, or, where several prompts have
    /// several images each, in a row for each prompt. Where there are several, each stands above its images.
    pub fn new((width, height): (usize, usize), images: usize, prompts: &[String]) -> Self {
        let is_of_prompts = prompts.len() > 1 && images.is_multiple_of(prompts.len());
        let columns = match images.checked_div(prompts.len()) {
            Some(each) if is_of_prompts && each > 1 => each,
            _ => (images as f64).sqrt().ceil() as usize,
        };
        Self {
            cell: (width as u64, height as u64),
            columns: columns.max(1) as u64,
            images: images as u64,
            captions: if is_of_prompts { prompts.to_vec() } else { Vec::new() },
            empty: OnceLock::new(),
        }
    }

    /// Pixels of each image, width and height.
    pub fn cell(&self) -> (u64, u64) {
        self.cell
    }

    /// Pixels of the sheet, width and height.
    pub fn size(&self) -> (u64, u64) {
        if self.images == 1 {
            return self.cell;
        }
        let side = |count: u64, pixels: u64| count * (pixels + MARGIN) + MARGIN;
        (side(self.columns, self.cell.0), side(self.images.div_ceil(self.columns), self.cell.1 + self.line()))
    }

    /// Pixels of the line of text above each row.
    fn line(&self) -> u64 {
        if self.captions.is_empty() { 0 } else { LINE_HEIGHT.into() }
    }

    /// The upper left corner of an image, below its line of text.
    fn corner(&self, place: u64) -> (u64, u64) {
        let (column, row) = (place % self.columns, place / self.columns);
        let (width, height) = self.cell;
        (MARGIN + column * (width + MARGIN), MARGIN + row * (height + self.line() + MARGIN) + self.line())
    }

    /// The sheet of this size with its captions alone.
    fn draw_captions(&self, width: u32, height: u32) -> RgbImage {
        let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        if self.captions.is_empty() {
            return sheet;
        }
        let Some(mut captions) = Captions::new() else {
            warn("this system has no fonts, so that the sheet has no captions");
            return sheet;
        };
        let each = (self.images / self.captions.len() as u64).max(1);
        let room = each.min(self.columns) * (self.cell.0 + MARGIN) - MARGIN;
        for (caption, place) in self.captions.iter().zip((0..).step_by(each as usize)) {
            let (left, top) = self.corner(place);
            // No larger than the sheet, whose sides fit.
            let corner = (left as u32, (top - self.line()) as u32);
            if !captions.draw(&mut sheet, caption, corner, room as u32) {
                warn(&format!(
                    "no font of this system has the letters of {caption:?}, which the sheet leaves out"
                ));
            }
        }
        sheet
    }

    /// The sheet of these images, which are made as large as they stand in it.
    ///
    /// # Errors
    /// When there are not as many as expected, or the sheet is larger than an image can be.
    pub fn of(&self, images: &[RgbImage]) -> Result<RgbImage> {
        ensure!(
            images.len() as u64 == self.images,
            "a sheet of {} images, found {}",
            self.images,
            images.len()
        );
        let pixels = |side: u64| u32::try_from(side).context("a sheet that is larger than an image can be");
        let (width, height) = (pixels(self.cell.0)?, pixels(self.cell.1)?);
        let fitted = |image: &RgbImage| match image.dimensions() == (width, height) {
            true => image.clone(),
            false => resize(image, width, height, FilterType::Triangle),
        };
        if let [image] = images {
            return Ok(fitted(image));
        }
        let (sheet_width, sheet_height) = self.size();
        let (sheet_width, sheet_height) = (pixels(sheet_width)?, pixels(sheet_height)?);
        let mut sheet = self.empty.get_or_init(|| self.draw_captions(sheet_width, sheet_height)).clone();
        for (place, image) in (0..).zip(images) {
            let (left, top) = self.corner(place);
            replace(&mut sheet, &fitted(image), left as i64, top as i64);
        }
        Ok(sheet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaded(count: u8, width: u32, height: u32) -> Vec<RgbImage> {
        let image =
            |shade| RgbImage::from_fn(width, height, |x, y| Rgb([shade, (x * 3) as u8, (y * 5) as u8]));
        (0..count).map(image).collect()
    }

    /// Wider than high, higher than wide, and square.
    #[test]
    fn images_that_are_not_square_keep_their_pixels() -> Result<()> {
        for (width, height) in [(12, 5), (5, 12), (7, 7)] {
            for (count, prompts, (columns, rows), line) in [
                (1, 1, (1, 1), 0),
                (2, 1, (2, 1), 0),
                (3, 1, (2, 2), 0),
                (6, 2, (3, 2), LINE_HEIGHT),
                (6, 3, (2, 3), LINE_HEIGHT),
                (4, 4, (2, 2), LINE_HEIGHT),
            ] {
                let images = shaded(count, width, height);
                let size = (width as usize, height as usize);
                let sheet = Sheet::new(size, count.into(), &vec!["a cat".to_owned(); prompts]);
                let drawn = sheet.of(&images)?;
                let found = (u64::from(drawn.width()), u64::from(drawn.height()));
                assert_eq!(found, sheet.size());
                if count == 1 {
                    assert_eq!(drawn, images[0]);
                    continue;
                }
                assert_eq!(drawn.dimensions(), (columns * (width + 2) + 2, rows * (height + line + 2) + 2));
                for (place, image) in (0u32..).zip(&images) {
                    let left = 2 + place % columns * (width + 2);
                    let top = 2 + line + place / columns * (height + line + 2);
                    let found = image::imageops::crop_imm(&drawn, left, top, width, height).to_image();
                    assert_eq!(&found, image, "{count} of {width} × {height}: {place}");
                }
                assert_eq!(drawn.get_pixel(1, 1).0, [255; 3]);
            }
        }
        Ok(())
    }

    #[test]
    fn small_images_are_made_as_large_as_the_others() -> Result<()> {
        let sheet = Sheet::new((24, 16), 2, &["a cat".to_owned()]);
        assert_eq!(sheet.of(&shaded(2, 3, 2))?.dimensions(), (54, 20));
        assert!(sheet.of(&shaded(3, 3, 2)).is_err());
        Ok(())
    }
}
