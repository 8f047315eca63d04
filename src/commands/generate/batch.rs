//! Decides how many images to draw, of which prompts and with which options.

use std::path::Path;

use altdiffusion_pipeline::random::{BatchPosition, Seeds};
use altdiffusion_pipeline::{GenerateOptions, PromptReading};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};

use super::options::Generate;
use crate::option_values::MOST_IMAGES;
use crate::{shipped, standard_input};

impl Generate {
    /// Reads the prompt from standard input, if requested.
    ///
    /// # Errors
    /// If it is empty, or not UTF-8.
    pub(super) fn read_prompts(&mut self) -> Result<()> {
        for prompt in self.prompt.iter_mut().chain(&mut self.prompt_option) {
            if standard_input::is_named_by(Path::new(prompt)) {
                *prompt = standard_input::read_text("PROMPT")?;
            }
        }
        Ok(())
    }

    /// The prompts, however they were given.
    pub(super) fn prompts(&self) -> Vec<String> {
        [&self.prompt[..], &self.prompt_option].concat()
    }

    /// The prompt of image `index` in a batch of `images`.
    pub(super) fn prompt_of(&self, index: usize, images: usize) -> Vec<String> {
        let prompts = self.prompts();
        let place = index * prompts.len() / images.max(1);
        prompts.into_iter().nth(place).into_iter().collect()
    }

    pub(super) fn seeds(&self) -> Seeds {
        self.seeds.unwrap_or(Seeds::Consecutive)
    }

    /// The number of images in the batch, over all prompts.
    pub(super) fn images_in_batch(&self, initial_latents: Option<&Tensor>) -> Result<usize> {
        let prompts = self.prompts().len();
        let each = match (self.num_images, self.batch_count) {
            (None, None) => None,
            (images, batches) => Some(images.unwrap_or(1).saturating_mul(batches.unwrap_or(1))),
        };
        let given = initial_latents.and_then(|latents| latents.dims().first().copied());
        let images = each.map(|each| each.saturating_mul(prompts)).or(given).unwrap_or(prompts);
        ensure!(
            images <= MOST_IMAGES,
            "--num-images: {images} images of all prompts, expected at most {MOST_IMAGES}"
        );
        if let Some(only) = self.only {
            ensure!(
                only <= images,
                "--only {only}: expected the number of one of the images, of which there are {images}"
            );
        }
        Ok(images)
    }

    /// The options for the whole batch.
    pub(super) fn options(
        &self,
        seed: u64,
        images: usize,
        initial_latents: Option<&Tensor>,
    ) -> GenerateOptions {
        let negative_prompt = self.negative_prompt.as_deref().unwrap_or_default();
        let mut options = GenerateOptions::new("").negative_prompt(negative_prompt).seed(seed);
        options = options.seeds(self.seeds()).steps(self.step_count()).guidance_scale(self.guidance());
        options = self.sampling.apply(options);
        options = options.clip_skip(self.clip_skip.unwrap_or_default());
        if self.prompt_weights {
            options = options.prompt_reading(PromptReading::Weighted);
        }
        if let Some(width) = self.width {
            options = options.width(width);
        }
        if let Some(height) = self.height {
            options = options.height(height);
        }
        options = options.scale(self.enlargement());
        options = options.prompts(self.prompts());
        if self.num_images.or(self.batch_count).is_some() {
            options = options.images(images / self.prompts().len().max(1));
        }
        match initial_latents {
            Some(latents) => options.initial_latents(latents.clone()),
            None => options,
        }
    }

    /// Splits the batch of `options` into runs, or selects the one image requested.
    ///
    /// On the CPU each image is drawn separately: it takes the same time and the memory of one, and the pixels equal
    /// those of the image alone, while a batch rounds differently.
    pub(super) fn runs(
        &self,
        options: GenerateOptions,
        device: &Device,
        images: usize,
        initial_latents: Option<&Tensor>,
    ) -> Result<Vec<GenerateOptions>> {
        let alone = |index: usize| -> Result<GenerateOptions> {
            let position = BatchPosition { index, images };
            let options = options.clone().prompts(self.prompt_of(index, images)).images(1);
            let options = options.batch_position(position);
            Ok(match initial_latents {
                Some(latents) => options.initial_latents(latents.narrow(0, index, 1)?),
                None => options,
            })
        };
        match self.only {
            Some(only) => Ok(vec![alone(only - 1)?]),
            None if images > 1 && device.is_cpu() => (0..images).map(alone).collect(),
            None => Ok(vec![options]),
        }
    }

    pub(super) fn step_count(&self) -> usize {
        let default = if self.model.is_shipped() { shipped::STEPS } else { GenerateOptions::STEPS };
        self.steps.or(self.sampling.listed_steps()).unwrap_or(default)
    }

    /// How many times the images' sides are enlarged.
    pub(super) fn enlargement(&self) -> usize {
        self.scale.unwrap_or(if self.model.is_shipped() { shipped::SCALE } else { 1 })
    }

    pub(super) fn guidance(&self) -> f64 {
        let default =
            if self.model.is_shipped() { shipped::GUIDANCE_SCALE } else { GenerateOptions::GUIDANCE_SCALE };
        self.guidance_scale.unwrap_or(default)
    }
}
