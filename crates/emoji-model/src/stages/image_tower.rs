//! Trains the dual encoder's image tower further, with a frozen text tower (Zhai et al., arXiv 2111.07991, with
//! exchanged roles): it learns to recognize rough drawings of an image, like those of a diffusion model.
//!
//! To the symmetric loss of images and captions it adds that of recognizing an image and its distorted version among
//! all images (after Mu et al., arXiv 2112.12750), by the vectors that the images had before, which cost nothing and
//! outnumber any batch. Distorted images are decoded from latents that are blurred, mixed with another image's, and
//! noised.

use crate::captions::CaptionSampler;
use crate::pixels::disturb;
use crate::stages::autoencoder::with_noise;
use crate::stages::dual_encoder::{TrainedDualEncoder, embed_images, found_share, images_by_concept};
use altclip_encoder::altclip::{AltClipTextTower, normalize};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::vision::ClipVisionTower;
use altclip_training::stages::ObjectiveFunctions;
use altclip_training::stages::contrastive::{MAX_LOGIT_SCALE, symmetric_loss};
use altclip_training::{
    Batch, Gradients, Observer, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun, Workers,
    contact_sheet,
};
use altdiffusion_pipeline::PROMPT_TOKENS;
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::loss::cross_entropy;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageStage {
    /// Images per batch.
    pub batch_size: usize,
    /// Images are shifted by up to this many pixels along each axis.
    pub max_shift: usize,
    /// The largest standard deviation of noise added to images from −1 to 1.
    pub max_noise: f32,
    /// The largest standard deviation of noise added to latents of standard deviation 1.
    pub max_latent_noise: f32,
    /// The largest share of another image in distorted latents.
    pub max_mix: f32,
    /// The largest share of 2 × 2 averages in distorted latents: poor drawings lack detail.
    pub max_blur: f32,
    /// The logit scale between images, clean and distorted, and the vectors that all images had before.
    #[serde(alias = "picture_logit_scale")]
    pub image_logit_scale: f64,
    /// Whether clean and distorted images are computed at the same time on the CPU, each with its share of the cores,
    /// or one after the other.
    #[serde(default = "super::one_part")]
    pub parts: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// The inputs of the stage.
pub struct ImageStageInputs<'a> {
    /// Generates the captions.
    pub captions: &'a CaptionSampler,
    /// (n, size, size, 3), channels-last, from −1 to 1.
    pub images: &'a Tensor,
    /// (n, channels, height, width), scaled.
    pub latents: &'a Tensor,
    /// The concept of each image.
    pub owners: &'a [usize],
    /// Languages of the captions, by code.
    pub languages: &'a [String],
    /// The tokenizer of the texts.
    pub tokenizer: &'a Tokenizer,
    /// The autoencoder that decodes distorted latents.
    pub vae: &'a AutoencoderKl,
}

impl ImageStage {
    /// Trains a dual encoder's image tower further.
    ///
    /// # Errors
    /// If the settings are invalid, or the run fails.
    pub fn train(
        &self,
        inputs: &ImageStageInputs,
        dual_encoder: &mut TrainedDualEncoder,
        run: &TrainingRun,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let ImageStageInputs { captions, images, owners, languages, tokenizer, .. } = *inputs;
        let device = images.device();
        let (n, size) = (images.dim(0)?, images.dim(1)?);
        let of_concept = images_by_concept(owners, self.batch_size)?;
        let text_weights = dual_encoder.text_weights.iter().map(|(k, v)| (k.clone(), v.detach())).collect();
        let vb = VarBuilder::from_tensors(text_weights, DType::F32, device);
        let projection_dim = dual_encoder.vision_config.projection_dim;
        let text = AltClipTextTower::new(
            &dual_encoder.text_config,
            projection_dim,
            vb.clone(),
            vb.pp("text_projection"),
        )?;
        let logit_scale = vb.get((), "logit_scale")?.exp()?.minimum(MAX_LOGIT_SCALE)?;
        let parameters = Parameters::new(seed);
        let vision = ClipVisionTower::new(&dual_encoder.vision_config, parameters.var_builder(device))?;
        parameters.load(&dual_encoder.vision_weights)?;
        // The vectors to recognize images by: (projection_dim, n).
        let known = embed_images(&vision, images)?.t()?.contiguous()?;
        let mut optimizer = Optimizer::new(self.optimizer.clone(), &parameters)?;
        let workers = Workers::on(device, self.parts)?;

        let encode = |texts: &[String]| -> Result<Tensor> {
            let encoding = tokenizer.encode_padded(texts, PROMPT_TOKENS)?;
            Ok(normalize(&text.forward(&encoding.input_ids, &encoding.attention_mask)?)?.detach())
        };
        let embed = |images: &Tensor| -> Result<Tensor> {
            Ok(normalize(&vision.forward(&images.permute((0, 3, 1, 2))?.contiguous()?)?)?)
        };
        let gradients = |batch: &mut Batch| {
            let rng = &mut batch.rng;
            let concepts = rand::seq::index::sample(rng, of_concept.len(), self.batch_size);
            let mut choose = |concept: usize| {
                let images = &of_concept[concept];
                images[rng.random_range(0..images.len())] as u32
            };
            let chosen: Vec<u32> = concepts.iter().map(&mut choose).collect();
            let mut caption = |&image: &u32| {
                let language = captions.draw_language(rng, languages).unwrap_or_default();
                captions.sample(rng, owners[image as usize], language).unwrap_or_default()
            };
            let texts: Vec<String> = chosen.iter().map(&mut caption).collect();
            let clean = images.index_select(&Tensor::new(chosen.as_slice(), device)?, 0)?;
            let clean = self.moved(rng, &clean, size)?;
            let rough = self.rough(rng, inputs, &chosen)?;
            let rough = self.moved(rng, &rough, size)?;
            let texts = encode(&texts)?;
            let own = [chosen.as_slice(), &chosen].concat();
            let other_styles = other_styles(&own, owners, device)?;
            let own = Tensor::new(own, device)?;
            let embed = |chunk: usize| embed(if chunk == 0 { &clean } else { &rough });
            Gradients::joined(&workers, 2, embed, |rows| {
                let clean = rows.narrow(0, 0, chosen.len())?;
                let with_texts = clean.matmul(&texts.t()?)?.broadcast_mul(&logit_scale)?;
                let with_known = ((rows.matmul(&known)? * self.image_logit_scale)? + &other_styles)?;
                Ok((symmetric_loss(&with_texts)? + cross_entropy(&with_known, &own)?)?)
            })
        };
        // Rough drawings, each with the nearest image.
        let sample = || {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let few: Vec<u32> = (0..n as u32).step_by((n / 24).max(1)).take(24).collect();
            let rough = self.rough(&mut rng, inputs, &few)?;
            let scores = embed_images(&vision, &rough)?.matmul(&embed_images(&vision, images)?.t()?)?;
            let nearest = images.index_select(&scores.argmax(1)?, 0)?;
            let pairs = Tensor::stack(&[rough, nearest], 1)?.flatten(0, 1)?;
            Ok(Some(contact_sheet(&pairs, 12)?))
        };
        let steps = run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;

        parameters.load(&optimizer.averages())?;
        dual_encoder.vision_weights = parameters.snapshot()?;
        if steps == 0 {
            // A stage that had finished before has already reported.
            return Ok(());
        }
        let embeddings = embed_images(&vision, images)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let all: Vec<u32> = (0..n as u32).collect();
        let rough = all
            .chunks(self.batch_size)
            .map(|chunk| embed_images(&vision, &self.rough(&mut rng, inputs, chunk)?))
            .collect::<Result<Vec<_>>>()?;
        let share = 100. * found_share(&Tensor::cat(&rough, 0)?, &embeddings, owners)?;
        observer.note("image", &format!("{share:.1} % of rough drawings find their image first"));
        for language in languages {
            let sample = |&owner: &usize| captions.sample(&mut rng, owner, language).unwrap_or_default();
            let texts: Vec<String> = owners.iter().map(sample).collect();
            let share = 100. * found_share(&encode(&texts)?, &embeddings, owners)?;
            let note = format!("{language}: {share:.1} % of captions find their own image first");
            observer.note("image", &note);
        }
        Ok(())
    }

    /// Shifts channels-last images and adds noise.
    fn moved(&self, rng: &mut impl Rng, images: &Tensor, size: usize) -> Result<Tensor> {
        let pixels: Vec<f32> = images.flatten_all()?.to_vec1()?;
        let mut moved = Vec::with_capacity(pixels.len());
        for image in pixels.chunks_exact(size * size * 3) {
            disturb(rng, image, size, self.max_shift, self.max_noise, &mut moved);
        }
        Ok(Tensor::from_vec(moved, images.shape(), images.device())?)
    }

    /// Decodes noised and mixed latents of some images, channels-last.
    fn rough(&self, rng: &mut dyn Rng, inputs: &ImageStageInputs, chosen: &[u32]) -> Result<Tensor> {
        let ImageStageInputs { latents, vae, .. } = *inputs;
        let device = latents.device();
        let own = latents.index_select(&Tensor::new(chosen, device)?, 0)?;
        let others: Vec<u32> = chosen.iter().map(|_| rng.random_range(0..latents.dims()[0] as u32)).collect();
        let other = latents.index_select(&Tensor::new(others, device)?, 0)?;
        let (_, _, height, width) = own.dims4()?;
        let mut shares = |most: f32| {
            let shares = chosen.iter().map(|_| most * rng.random_range(0f32..=1.)).collect();
            Tensor::from_vec(shares, (chosen.len(), 1, 1, 1), device)
        };
        // A single row or column has no 2 × 2 squares.
        let blurred = match height.min(width) {
            0 | 1 => own.clone(),
            _ => own.avg_pool2d(2)?.upsample_nearest2d(height, width)?,
        };
        let blurred = (&own + (blurred - &own)?.broadcast_mul(&shares(self.max_blur)?)?)?;
        let mixed = (&blurred + (other - &blurred)?.broadcast_mul(&shares(self.max_mix)?)?)?;
        let latents = (with_noise(rng, &mixed, self.max_latent_noise)? / vae.scaling_factor())?;
        Ok(vae.decode(&latents)?.permute((0, 2, 3, 1))?.contiguous()?.detach())
    }
}

/// A mask for logits (chosen images, all images): −∞ for other images of the same concept, which need not be
/// distinguished, and otherwise 0.
fn other_styles(chosen: &[u32], owners: &[usize], device: &Device) -> Result<Tensor> {
    let mut values = Vec::with_capacity(chosen.len() * owners.len());
    for &own in chosen {
        let concept = owners.get(own as usize);
        let is_other = |(at, owner): (usize, &usize)| Some(owner) == concept && at != own as usize;
        values.extend(
            owners.iter().enumerate().map(|pair| if is_other(pair) { f32::NEG_INFINITY } else { 0. }),
        );
    }
    Ok(Tensor::from_vec(values, (chosen.len(), owners.len()), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_not_told_from_others_of_its_concept() -> Result<()> {
        let added = other_styles(&[0, 2], &[7, 8, 7], &Device::Cpu)?;
        let away = f32::NEG_INFINITY;
        assert_eq!(added.to_vec2::<f32>()?, [[0., 0., away], [away, 0., 0.]]);
        Ok(())
    }
}
