//! Measures how often the emoji model draws what it is asked for.

use crate::captions::evaluation_prompts;
use crate::coverage::Coverage;
use crate::dataset::{Dataset, IMAGE_SIZE};
use crate::error::{Error, Result};
use crate::pixels::{mean_psnr, to_tensor, training_images};
use crate::stages::autoencoder::reconstruct;
use crate::stages::dual_encoder::embed_images;
use altclip_encoder::vision::ClipVisionTower;
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use candle_core::{D, DType, Device};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use serde::Serialize;

/// The settings of an evaluation.
#[derive(Debug, Clone)]
pub struct EmojiEvaluation {
    /// What the model learned to draw.
    pub coverage: Coverage,
    /// Prompts per language.
    pub prompts: usize,
    /// Seed of the choice of prompts, and of the first prompt's noise.
    pub seed: u64,
    /// Steps per image.
    pub steps: usize,
    /// The scale of classifier-free guidance.
    pub guidance_scale: f64,
}

/// The results in a language.
#[derive(Debug, Clone, Serialize)]
pub struct LanguageScore {
    /// The language, by its code.
    pub language: String,
    /// Prompts drawn.
    pub prompts: usize,
    /// Prompts whose image is nearest to an image of the prompted emoji, by the model's own image encoder.
    pub right_by_encoder: usize,
    /// The same, by squared pixel distance.
    pub right_by_pixels: usize,
}

/// The results of an evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct EmojiScore {
    /// The results per language.
    pub languages: Vec<LanguageScore>,
    /// The VAE's mean PSNR on training images, in dB.
    pub vae_psnr: f64,
    /// The number of images compared with.
    pub images: usize,
}

/// A prompt's image, as reported by [`EmojiEvaluation::run`].
pub struct EvaluatedImage<'a> {
    /// The language, by its code.
    pub language: &'a str,
    /// The prompt.
    pub prompt: &'a str,
    /// The image drawn.
    pub image: &'a image::RgbImage,
    /// Whether the nearest image by the encoder is correct.
    pub right_by_encoder: bool,
    /// Whether the nearest image by pixels is correct.
    pub right_by_pixels: bool,
}

impl EmojiEvaluation {
    /// Draws every prompt once with the model of `source`, and finds the nearest training image.
    ///
    /// # Errors
    /// If the model has no image encoder, or a part cannot be read or run.
    pub fn run(
        &self,
        source: &ModelSource,
        data: &Dataset,
        device: &Device,
        mut drawn: impl FnMut(EvaluatedImage),
    ) -> Result<EmojiScore> {
        let pipeline = AltDiffusion::from_source(source, DType::F32, device)?;
        let weights = Checkpoint::open(source, "image_encoder")?.var_builder(DType::F32, device)?;
        let vision = ClipVisionTower::new(&source.read_json("image_encoder/config.json")?, weights)?;

        let all = training_images(data, &self.coverage.vendors, device)?.0;
        let data = data
            .filtered(|concept| self.coverage.includes(concept))
            .ok_or_else(|| Error::Setting("the recipe covers no concept of the data set".to_owned()))?;
        let (originals, owners) = training_images(&data, &self.coverage.vendors, device)?;
        let embeddings = embed_images(&vision, &originals)?;
        let flat = originals.flatten_from(1)?;
        let mut languages = Vec::new();
        for language in &self.coverage.languages {
            let prompts = evaluation_prompts(&data, language, self.prompts, self.seed);
            let mut score = LanguageScore {
                language: language.clone(),
                prompts: prompts.len(),
                right_by_encoder: 0,
                right_by_pixels: 0,
            };
            for (i, (prompt, right)) in prompts.iter().enumerate() {
                let options = GenerateOptions::new(prompt)
                    .steps(self.steps)
                    .guidance_scale(self.guidance_scale)
                    .seed(self.seed + i as u64);
                let images = pipeline.generate(&options)?.images;
                let image = images.first().ok_or_else(|| Error::Setting("no image was drawn".to_owned()))?;
                let pixels = to_tensor(image.as_raw(), IMAGE_SIZE, device)?;
                let by_encoder = embed_images(&vision, &pixels)?.matmul(&embeddings.t()?)?;
                let by_encoder = by_encoder.argmax(D::Minus1)?.to_vec1::<u32>()?;
                let distances = flat.broadcast_sub(&pixels.flatten_from(1)?)?.sqr()?.sum(1)?;
                let by_pixels = distances.argmin(0)?.to_scalar::<u32>()?;
                let is_right = |image: u32| owners.get(image as usize).is_some_and(|o| right.contains(o));
                let right_by_encoder = by_encoder.first().is_some_and(|&p| is_right(p));
                let right_by_pixels = is_right(by_pixels);
                score.right_by_encoder += usize::from(right_by_encoder);
                score.right_by_pixels += usize::from(right_by_pixels);
                drawn(EvaluatedImage { language, prompt, image, right_by_encoder, right_by_pixels });
            }
            languages.push(score);
        }
        let vae_psnr = mean_psnr(&all, &reconstruct(&*pipeline.vae()?, &all)?)?;
        Ok(EmojiScore { languages, vae_psnr, images: owners.len() })
    }
}
