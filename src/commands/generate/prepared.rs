//! Reads the input files of a drawing, and checks its output files, before the model is loaded.

use altdiffusion_pipeline::latents::read_latents;
use anyhow::{Context, Result};
use candle_core::Tensor;
use image::RgbImage;

use super::files::ImageFiles;
use super::from_image::GivenImages;
use super::options::Generate;
use crate::image_args::ImageReader;

/// The inputs of a drawing.
pub struct Prepared<'a> {
    pub options: &'a Generate,
    pub initial_latents: Option<Tensor>,
    pub reader: ImageReader<'a>,
    pub given_images: GivenImages,
    pub followed_images: Vec<RgbImage>,
    pub prompt_images: Vec<RgbImage>,
    /// The number of images in the batch, over all prompts.
    pub images: usize,
    pub files: ImageFiles,
}

impl Generate {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// If a file cannot be read or written, or options contradict each other.
    pub fn prepare(&self) -> Result<Prepared<'_>> {
        let initial_latents = match &self.initial_latents {
            Some(path) => Some(read_latents(path).context("--initial-latents")?),
            None => None,
        };
        let reader = ImageReader::new(&self.reading, &self.model);
        let given_images = self.from_image.read(&reader)?;
        let followed_images = self.followed.read(&reader)?;
        let prompt_images = self.image_prompts.read(&reader)?;
        let images = self.images_in_batch(initial_latents.as_ref())?;
        let files = self.outputs(if self.only.is_some() { 1 } else { images })?;
        let options = self;
        Ok(Prepared {
            options,
            initial_latents,
            reader,
            given_images,
            followed_images,
            prompt_images,
            images,
            files,
        })
    }
}
