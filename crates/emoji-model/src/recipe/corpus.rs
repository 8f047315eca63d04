//! Collects the emoji model's training data.

use super::settings::EmojiRecipe;
use crate::captions::CaptionSampler;
use crate::dataset::{DataSplit, Dataset, ENGLISH};
use crate::error::{Error, Result};
use crate::pixels::training_images;
use candle_core::{Device, Tensor};
use std::path::{Path, PathBuf};

/// The training data.
pub(super) struct Corpus {
    /// The data set's folder.
    pub folder: PathBuf,
    /// Without held-out data.
    pub data: Dataset,
    pub captions: CaptionSampler,
    /// (n, size, size, 3), channels-last, from −1 to 1.
    pub images: Tensor,
    /// The concept of each image.
    pub owners: Vec<usize>,
    /// The drawing style of each image.
    pub styles: Vec<String>,
}

impl Corpus {
    /// The images and captions in the recipe's styles, without held-out data.
    ///
    /// # Errors
    /// If English is not among the languages, a setting of captions is out of range, or nothing is left.
    pub(super) fn of(
        recipe: &EmojiRecipe,
        folder: &Path,
        whole: &Dataset,
        split: &DataSplit,
        device: &Device,
    ) -> Result<Self> {
        if !recipe.languages.iter().any(|language| language == ENGLISH) {
            return Err(Error::Setting("languages: expected `en` among them, the teacher's".to_owned()));
        }
        let data = split
            .training(whole)
            .ok_or_else(|| Error::Setting("the data set has nothing that is not held out".to_owned()))?;
        let captions = CaptionSampler::with_settings(&data, &recipe.captions)?;
        let (images, owners) = training_images(&data, &recipe.vendors, device)?;
        let all = data.concepts().iter().flat_map(|concept| &concept.images);
        let styles =
            all.map(|image| image.vendor.clone()).filter(|vendor| recipe.vendors.contains(vendor)).collect();
        Ok(Self { folder: folder.to_owned(), data, captions, images, owners, styles })
    }
}
