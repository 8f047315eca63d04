//! Measures how often the emoji model draws what it is asked for.

use crate::captions::evaluation_prompts;
use crate::coverage::Coverage;
use crate::dataset::{Dataset, IMAGE_SIZE};
use crate::error::{Error, Result};
use crate::fidelity::edge_energy;
use crate::pixels::{mean_psnr, to_tensor, training_images};
use crate::stages::autoencoder::reconstruct;
use crate::stages::dual_encoder::embed_images;
use altclip_encoder::vision::ClipVisionTower;
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions, LoadOptions, ModelParts};
use candle_core::{D, DType, Device};
use image::RgbImage;
use model_files::Arithmetic;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use serde::Serialize;

/// Prompts that variety is measured with, in the first language.
pub const VARIED_PROMPTS: usize = 20;

/// The settings of an evaluation.
#[derive(Debug, Clone)]
pub struct EmojiEvaluation {
    /// What the model learned to draw.
    pub coverage: Coverage,
    /// Prompts per language.
    pub prompts: usize,
    /// Drawings of each of the first [`VARIED_PROMPTS`] prompts to measure variety with.
    pub seeds: usize,
    /// Seed of the choice of prompts, and of the first prompt's noise.
    pub seed: u64,
    /// Steps per image.
    pub steps: usize,
    /// The scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// What the model computes in. Drawings are compared with the originals in f32.
    pub arithmetic: Arithmetic,
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
    /// The median PSNR of the drawings to the nearest original, in dB.
    pub psnr: f64,
}

/// How much the drawings of a prompt differ from seed to seed, in levels of 255.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Variety {
    /// Drawings of each prompt, each from another seed.
    pub seeds: usize,
    /// The root mean square difference between two drawings of a prompt.
    pub difference: f64,
    /// The same between the originals of a concept, one per drawing style.
    pub between_styles: f64,
}

/// The results of an evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct EmojiScore {
    /// The results per language.
    pub languages: Vec<LanguageScore>,
    /// The energy of the drawings' edges, relative to that of the nearest originals: below 1, they are blurred.
    pub edges: f64,
    /// How much seeds matter; without seeds to compare, absent.
    pub variety: Option<Variety>,
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
        let options = LoadOptions::computing_in(self.arithmetic, device);
        let pipeline = AltDiffusion::load(ModelParts::in_folders(source)?, options)?;
        let weights = Checkpoint::open(source, "image_encoder")?.var_builder(DType::F32, device)?;
        let vision = ClipVisionTower::new(&source.read_json("image_encoder/config.json")?, weights)?;

        let all = training_images(data, &self.coverage.vendors, device)?.0;
        let data = data
            .filtered(|concept| self.coverage.includes(concept))
            .ok_or_else(|| Error::Setting("the recipe covers no concept of the data set".to_owned()))?;
        let (originals, owners) = training_images(&data, &self.coverage.vendors, device)?;
        let embeddings = embed_images(&vision, &originals)?;
        let flat = originals.flatten_from(1)?;
        let draw = |prompt: &str, seed: u64| -> Result<RgbImage> {
            let options = GenerateOptions::new(prompt)
                .steps(self.steps)
                .guidance_scale(self.guidance_scale)
                .seed(self.seed + seed);
            let image = pipeline.generate(&options)?.images.into_iter().next();
            image.ok_or_else(|| Error::Setting("no image was drawn".to_owned()))
        };
        let mut languages = Vec::new();
        // Edges of the drawings and of the originals nearest to them.
        let (mut drawn_edges, mut nearest_edges) = (0., 0.);
        for language in &self.coverage.languages {
            let prompts = evaluation_prompts(&data, language, self.prompts, self.seed);
            let mut score = LanguageScore {
                language: language.clone(),
                prompts: prompts.len(),
                right_by_encoder: 0,
                right_by_pixels: 0,
                psnr: 0.,
            };
            let mut psnr = Vec::new();
            for (i, (prompt, right)) in prompts.iter().enumerate() {
                let image = &draw(prompt, i as u64)?;
                let pixels = to_tensor(image.as_raw(), IMAGE_SIZE, device)?;
                let by_encoder = embed_images(&vision, &pixels)?.matmul(&embeddings.t()?)?;
                let by_encoder = by_encoder.argmax(D::Minus1)?.to_vec1::<u32>()?;
                let distances = flat.broadcast_sub(&pixels.flatten_from(1)?)?.sqr()?.sum(1)?;
                let by_pixels = distances.argmin(0)?.to_scalar::<u32>()?;
                let nearest = originals.narrow(0, by_pixels as usize, 1)?;
                psnr.push(mean_psnr(&nearest, &pixels)?);
                drawn_edges += edge_energy(&pixels)?;
                nearest_edges += edge_energy(&nearest)?;
                let is_right = |image: u32| owners.get(image as usize).is_some_and(|o| right.contains(o));
                let right_by_encoder = by_encoder.first().is_some_and(|&p| is_right(p));
                let right_by_pixels = is_right(by_pixels);
                score.right_by_encoder += usize::from(right_by_encoder);
                score.right_by_pixels += usize::from(right_by_pixels);
                drawn(EvaluatedImage { language, prompt, image, right_by_encoder, right_by_pixels });
            }
            score.psnr = median(&mut psnr);
            languages.push(score);
        }
        let first = self.coverage.languages.first().filter(|_| self.seeds > 1);
        let variety = first.map(|language| self.variety(&data, language, draw)).transpose()?;
        let vae_psnr = mean_psnr(&all, &reconstruct(&*pipeline.vae()?, &all)?)?;
        let edges = drawn_edges / f64::max(nearest_edges, f64::MIN_POSITIVE);
        Ok(EmojiScore { languages, edges, variety, vae_psnr, images: owners.len() })
    }

    /// Draws prompts from several seeds each.
    fn variety(
        &self,
        data: &Dataset,
        language: &str,
        draw: impl Fn(&str, u64) -> Result<RgbImage>,
    ) -> Result<Variety> {
        let (mut drawn, mut styles) = (Vec::new(), Vec::new());
        for (prompt, right) in evaluation_prompts(data, language, VARIED_PROMPTS, self.seed) {
            let images = (0..self.seeds as u64).map(|seed| Ok(draw(&prompt, seed)?.into_raw()));
            drawn.extend(differences(&images.collect::<Result<Vec<_>>>()?));
            let concept = right.first().and_then(|&concept| data.concepts().get(concept));
            let originals = concept.into_iter().flat_map(|concept| &concept.images);
            let originals = originals.filter(|image| self.coverage.vendors.contains(&image.vendor));
            let originals: Vec<&[u8]> = originals.filter_map(|image| data.image(image.index)).collect();
            styles.extend(differences(&originals));
        }
        let root_mean = |squares: &[f64]| (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt();
        Ok(Variety { seeds: self.seeds, difference: root_mean(&drawn), between_styles: root_mean(&styles) })
    }
}

/// The mean squared difference of each pair of images.
fn differences<T: AsRef<[u8]>>(images: &[T]) -> Vec<f64> {
    let mut squares = Vec::new();
    for (i, a) in images.iter().enumerate() {
        for b in &images[..i] {
            let (a, b) = (a.as_ref(), b.as_ref());
            let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            squares.push(sum / a.len().max(1) as f64);
        }
    }
    squares
}

/// The median; 0 if there are no values.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_differ_by_pairs() {
        assert_eq!(differences(&[[0, 0], [3, 4], [0, 0]]), [12.5, 0., 12.5]);
        assert!(differences(&[[1, 2]]).is_empty());
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!((median(&mut [3., 1., 2.]), median(&mut [])), (2., 0.));
    }
}
