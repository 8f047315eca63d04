//! Reads large images of the data set's emoji, from which the upscaler learns.

use std::path::Path;

use super::images::{IMAGE_SIZE, decode_on_white};
use super::prepared::Dataset;
use crate::error::{Error, Result};

/// The side of every large image, in pixels.
pub const LARGE_SIZE: usize = 4 * IMAGE_SIZE;

/// Large images of some emoji: Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0), as `scripts/large-emoji.py` draws them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LargeImages {
    /// For each large image, the row of its small one among those of the vendors, in the order of the concepts.
    pub rows: Vec<u32>,
    /// (images, 256, 256, 3), RGB on white.
    pub pixels: Vec<u8>,
}

impl LargeImages {
    /// Reads the files `VENDOR/CONCEPT.png` of a folder that are there, for the images of these vendors.
    ///
    /// # Errors
    /// If one is damaged or of another size, or there is none.
    pub fn read(folder: &Path, data: &Dataset, vendors: &[String]) -> Result<Self> {
        let mut large = Self::default();
        let all = data.concepts().iter().flat_map(|concept| {
            let styles = concept.images.iter().filter(move |image| vendors.contains(&image.vendor));
            styles.map(move |image| (concept, image))
        });
        for (row, (concept, image)) in (0u32..).zip(all) {
            let path = folder.join(&image.vendor).join(format!("{}.png", concept.id));
            if path.is_file() {
                let png = std::fs::read(&path).map_err(Error::io(&path))?;
                large.pixels.extend(decode_on_white(&path, &png, LARGE_SIZE)?);
                large.rows.push(row);
            }
        }
        match large.rows.is_empty() {
            true => {
                Err(Error::data(folder, "expected images of the data set, VENDOR/CONCEPT.png, found none"))
            }
            false => Ok(large),
        }
    }
}
