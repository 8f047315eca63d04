//! Arranges several images in one, in rows and columns.

#[cfg(feature = "captions")]
mod captions;

#[cfg(feature = "captions")]
use std::sync::OnceLock;

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

#[cfg(feature = "captions")]
use captions::{Captions, LINE_HEIGHT};

use crate::{Error, Result};

/// The white margin around each image, in pixels.
const MARGIN: u64 = 2;

/// Arranges images of one size on white, `columns` to a row.
///
/// # Errors
/// If there are none, or the sheet would be larger than an image can be.
pub fn contact_sheet(images: &[RgbImage], columns: usize) -> Result<RgbImage> {
    let Some(first) = images.first() else {
        return Err(Error::option("contact sheet", "no images, expected at least one"));
    };
    let columns = columns.clamp(1, images.len());
    let size = (first.width() as usize, first.height() as usize);
    ContactSheet::with_columns(size, images.len(), columns).draw_in_grid(images)
}

/// The layout of a run's images. A single image is its own sheet, without a margin.
#[derive(Debug)]
pub struct ContactSheet {
    /// The size of each image, (width, height) in pixels.
    cell: (u64, u64),
    columns: u64,
    images: u64,
    /// The caption of each row of this many images; none if all share a prompt.
    #[cfg(feature = "captions")]
    captions: Vec<String>,
    /// The sheet before images are drawn into it.
    #[cfg(feature = "captions")]
    empty: OnceLock<RgbImage>,
}

impl ContactSheet {
    /// Lays out `images` images of `size` (width, height) in about as many rows as columns.
    pub fn new(size: (usize, usize), images: usize) -> Self {
        Self::with_columns(size, images, (images as f64).sqrt().ceil() as usize)
    }

    /// Lays them out in `columns` columns.
    pub fn with_columns((width, height): (usize, usize), images: usize, columns: usize) -> Self {
        Self {
            cell: (width as u64, height as u64),
            columns: columns.max(1) as u64,
            images: images as u64,
            #[cfg(feature = "captions")]
            captions: Vec::new(),
            #[cfg(feature = "captions")]
            empty: OnceLock::new(),
        }
    }

    /// Lays out the images of several prompts: a row per prompt, with the prompt above it in the system's fonts. For
    /// a single prompt, like [`new`](Self::new).
    #[cfg(feature = "captions")]
    pub fn with_prompts(size: (usize, usize), images: usize, prompts: &[String]) -> Self {
        if prompts.len() < 2 || !images.is_multiple_of(prompts.len()) {
            return Self::new(size, images);
        }
        let sheet = match images / prompts.len() {
            0 | 1 => Self::new(size, images),
            each => Self::with_columns(size, images, each),
        };
        Self { captions: prompts.to_vec(), ..sheet }
    }

    /// The size of each image, (width, height) in pixels.
    pub fn cell(&self) -> (u64, u64) {
        self.cell
    }

    /// The size of the sheet, (width, height) in pixels.
    pub fn size(&self) -> (u64, u64) {
        if self.images == 1 { self.cell } else { self.grid_size() }
    }

    fn grid_size(&self) -> (u64, u64) {
        let side = |count: u64, pixels: u64| count * (pixels + MARGIN) + MARGIN;
        (side(self.columns, self.cell.0), side(self.images.div_ceil(self.columns), self.cell.1 + self.line()))
    }

    /// The height of the caption above each row, in pixels.
    fn line(&self) -> u64 {
        #[cfg(feature = "captions")]
        if !self.captions.is_empty() {
            return LINE_HEIGHT.into();
        }
        0
    }

    /// The upper left corner of an image, below its caption.
    fn corner(&self, place: u64) -> (u64, u64) {
        let (column, row) = (place % self.columns, place / self.columns);
        let (width, height) = self.cell;
        (MARGIN + column * (width + MARGIN), MARGIN + row * (height + self.line() + MARGIN) + self.line())
    }

    /// Draws the sheet, resizing the images to their cells.
    ///
    /// # Errors
    /// If the number of images is not the expected one, or the sheet is larger than an image can be.
    pub fn draw(&self, images: &[RgbImage]) -> Result<RgbImage> {
        match images {
            [image] if self.images == 1 => self.fitted(image),
            _ => self.draw_in_grid(images),
        }
    }

    /// Draws the sheet with margins, even for a single image.
    fn draw_in_grid(&self, images: &[RgbImage]) -> Result<RgbImage> {
        if images.len() as u64 != self.images {
            let problem = format!("of {} images, found {}", self.images, images.len());
            return Err(Error::option("contact sheet", problem));
        }
        let (width, height) = self.grid_size();
        let mut sheet = self.empty(pixels(width)?, pixels(height)?);
        for (place, image) in (0..).zip(images) {
            let (left, top) = self.corner(place);
            replace(&mut sheet, &self.fitted(image)?, left as i64, top as i64);
        }
        Ok(sheet)
    }

    /// Resizes an image to its cell.
    fn fitted(&self, image: &RgbImage) -> Result<RgbImage> {
        let (width, height) = (pixels(self.cell.0)?, pixels(self.cell.1)?);
        Ok(match image.dimensions() == (width, height) {
            true => image.clone(),
            false => resize(image, width, height, FilterType::Triangle),
        })
    }

    /// An empty sheet of this size.
    fn empty(&self, width: u32, height: u32) -> RgbImage {
        #[cfg(feature = "captions")]
        return self.empty.get_or_init(|| self.draw_captions(width, height)).clone();
        #[cfg(not(feature = "captions"))]
        white(width, height)
    }

    /// A sheet of this size with its captions.
    #[cfg(feature = "captions")]
    fn draw_captions(&self, width: u32, height: u32) -> RgbImage {
        let mut sheet = white(width, height);
        if self.captions.is_empty() {
            return sheet;
        }
        let Some(mut captions) = Captions::new() else {
            tracing::warn!("no fonts were found, so the sheet has no captions");
            return sheet;
        };
        let each = (self.images / self.captions.len() as u64).max(1);
        let room = each.min(self.columns) * (self.cell.0 + MARGIN) - MARGIN;
        for (caption, place) in self.captions.iter().zip((0..).step_by(each as usize)) {
            let (left, top) = self.corner(place);
            // The sides of the sheet fit u32, and so does this.
            let corner = (left as u32, (top - self.line()) as u32);
            if !captions.draw(&mut sheet, caption, corner, room as u32) {
                tracing::warn!("no system font can draw \"{caption}\", so the sheet omits it");
            }
        }
        sheet
    }
}

fn white(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, Rgb([255; 3]))
}

/// Converts the side of an image to u32.
fn pixels(side: u64) -> Result<u32> {
    u32::try_from(side).map_err(|_| {
        Error::option(
            "contact sheet",
            format!("{side} pixels wide or high, expected a side that an image can have"),
        )
    })
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
    #[cfg(feature = "captions")]
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
                let sheet =
                    ContactSheet::with_prompts(size, count.into(), &vec!["a cat".to_owned(); prompts]);
                let drawn = sheet.draw(&images)?;
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
        let sheet = ContactSheet::new((24, 16), 2);
        assert_eq!(sheet.draw(&shaded(2, 3, 2))?.dimensions(), (54, 20));
        assert!(sheet.draw(&shaded(3, 3, 2)).is_err());
        Ok(())
    }

    #[test]
    fn rows_have_as_many_columns_as_asked_for() -> Result<()> {
        let images = shaded(5, 4, 6);
        assert_eq!(contact_sheet(&images, 3)?.dimensions(), (3 * 6 + 2, 2 * 8 + 2));
        assert_eq!(contact_sheet(&images[..1], 3)?.dimensions(), (8, 10));
        assert_eq!(contact_sheet(&images, 0)?.dimensions(), (8, 5 * 8 + 2));
        assert!(contact_sheet(&[], 3).is_err());
        Ok(())
    }
}
