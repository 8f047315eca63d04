//! Trains the dual encoder on images and captions with CLIP's symmetric loss (Radford et al., arXiv 2103.00020). Its
//! text tower conditions the diffusion model, and its image tower evaluates the drawings.

use crate::captions::CaptionSampler;
use crate::pixels::disturb;
use altclip_encoder::activation::HiddenAct;
use altclip_encoder::altclip::{AltClipTextConfig, AltClipTextTower, normalize};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use altclip_encoder::xlm_roberta::XlmRobertaConfig;
use altclip_training::stages::contrastive::{MAX_LOGIT_SCALE, symmetric_loss};
use altclip_training::stages::{ObjectiveFunctions, by_length};
use altclip_training::{
    Batch, Error, Gradients, Observer, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun, Workers,
    contact_sheet,
};
use altdiffusion_pipeline::PROMPT_TOKENS;
use candle_core::{D, Tensor};
use candle_nn::Init;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipStage {
    /// Size of the text tower.
    pub text: TransformerShape,
    /// Size of the image tower.
    pub image: TransformerShape,
    /// Side of the image tower's patches, in pixels.
    pub patch_size: usize,
    /// Width of the hidden states for the UNet.
    pub project_dim: usize,
    /// Width of the joint space.
    pub projection_dim: usize,
    /// Pairs per batch.
    pub batch_size: usize,
    /// Images are shifted by up to this many pixels along each axis.
    pub max_shift: usize,
    /// The largest standard deviation of noise added to images from −1 to 1.
    pub max_noise: f32,
    /// Parts of a batch computed at the same time on the CPU, each with its share of the cores.
    #[serde(default = "super::one_part")]
    pub parts: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// The size of a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerShape {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads per attention.
    pub num_attention_heads: usize,
}

/// The trained dual encoder.
#[derive(Debug, Clone)]
pub struct TrainedDualEncoder {
    /// The configuration of the text tower.
    pub text_config: AltClipTextConfig,
    /// The configuration of the image tower.
    pub vision_config: VisionConfig,
    /// `roberta.*`, `pre_LN.*`, `transformation.*`, `text_projection.weight` and `logit_scale`.
    pub text_weights: BTreeMap<String, Tensor>,
    /// `vision_model.*` and `visual_projection.weight`.
    pub vision_weights: BTreeMap<String, Tensor>,
}

/// The initial logarithm of the logit scale, ln(1 / 0.07), as in CLIP.
const INITIAL_LOGIT_SCALE: f64 = 2.6593;

/// The output of earlier stages.
#[derive(Clone, Copy)]
pub struct ClipStageInputs<'a> {
    /// Generates the captions.
    pub captions: &'a CaptionSampler,
    /// (n, size, size, 3), from −1 to 1.
    pub images: &'a Tensor,
    /// The concept of each image.
    pub owners: &'a [usize],
    /// The tokenizer of the texts.
    pub tokenizer: &'a Tokenizer,
    /// Languages of the captions, by code.
    pub languages: &'a [String],
}

impl ClipStage {
    fn text_config(&self, vocab_size: usize) -> AltClipTextConfig {
        let shape = self.text;
        AltClipTextConfig {
            encoder: XlmRobertaConfig {
                vocab_size,
                hidden_size: shape.hidden_size,
                num_hidden_layers: shape.num_hidden_layers,
                num_attention_heads: shape.num_attention_heads,
                intermediate_size: shape.intermediate_size,
                // positions start after those of padding
                max_position_embeddings: PROMPT_TOKENS + 3,
                type_vocab_size: 1,
                layer_norm_eps: 1e-5,
                ..XlmRobertaConfig::default()
            },
            project_dim: self.project_dim,
        }
    }

    fn vision_config(&self, image_size: usize) -> VisionConfig {
        let shape = self.image;
        VisionConfig {
            hidden_size: shape.hidden_size,
            intermediate_size: shape.intermediate_size,
            projection_dim: self.projection_dim,
            num_hidden_layers: shape.num_hidden_layers,
            num_attention_heads: shape.num_attention_heads,
            image_size,
            patch_size: self.patch_size,
            hidden_act: HiddenAct::QuickGelu,
            ..VisionConfig::default()
        }
    }

    /// Trains both towers from scratch.
    ///
    /// # Errors
    /// If the settings are invalid, or the run fails.
    pub fn train(
        &self,
        inputs: &ClipStageInputs,
        run: &TrainingRun,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<TrainedDualEncoder> {
        let ClipStageInputs { captions, images, owners, tokenizer, languages } = *inputs;
        let device = images.device();
        let size = images.dim(1)?;
        let text_config = self.text_config(tokenizer.vocab_size());
        let vision_config = self.vision_config(size);
        let parameters = Parameters::new(seed);
        let vb = parameters.var_builder(device);
        let projection = vb.pp("text.text_projection");
        let text = AltClipTextTower::new(&text_config, self.projection_dim, vb.pp("text"), projection)?;
        let vision = ClipVisionTower::new(&vision_config, vb.pp("vision"))?;
        let logit_scale =
            vb.pp("text").get_with_hints((), "logit_scale", Init::Const(INITIAL_LOGIT_SCALE))?;
        let mut optimizer = Optimizer::new(self.optimizer.clone(), &parameters)?;

        let workers = Workers::on(device, self.parts)?;
        let of_concept = images_by_concept(owners, self.batch_size)?;
        let pixels: Vec<f32> = images.flatten_all()?.to_vec1()?;
        let image_len = size * size * 3;

        let encode = |texts: &[String]| -> Result<Tensor> {
            let encoding = tokenizer.encode_padded(texts, PROMPT_TOKENS)?;
            Ok(normalize(&text.forward(&encoding.input_ids, &encoding.attention_mask)?)?)
        };
        let gradients = |batch: &mut Batch| {
            let rng = &mut batch.rng;
            let mut drawn: Vec<usize> = (0..of_concept.len()).collect();
            let (chosen, _) = drawn.partial_shuffle(rng, self.batch_size);
            let mut disturbed = Vec::with_capacity(chosen.len() * image_len);
            for &mut concept in &mut *chosen {
                let images = &of_concept[concept];
                let image = images[rng.random_range(0..images.len())];
                let image = &pixels[image * image_len..][..image_len];
                disturb(rng, image, size, self.max_shift, self.max_noise, &mut disturbed);
            }
            let count = chosen.len();
            let disturbed = Tensor::from_vec(disturbed, (count, size, size, 3), device)?;
            let disturbed = disturbed.permute((0, 3, 1, 2))?.contiguous()?;
            let texts: Vec<String> = chosen
                .iter()
                .map(|&concept| {
                    let language = captions.draw_language(rng, languages).unwrap_or_default();
                    captions.sample(rng, owners[of_concept[concept][0]], language).unwrap_or_default()
                })
                .collect();
            let groups = by_length(tokenizer, &texts, PROMPT_TOKENS, count.div_ceil(workers.parts()))?;
            let order: Vec<u32> = groups.iter().flat_map(|group| group.numbers.clone()).collect();
            let order = Tensor::new(order, device)?;
            let parts = groups.len();
            // First the images, in as many chunks as the captions, then the captions.
            let rows_of = |chunk: usize| -> Result<Tensor> {
                let rows = match groups.get(chunk.wrapping_sub(parts)) {
                    Some(group) => text.forward(&group.texts.input_ids, &group.texts.attention_mask)?,
                    None => {
                        let first = count * chunk / parts;
                        let end = count * (chunk + 1) / parts;
                        vision.forward(&disturbed.narrow(0, first, end - first)?)?
                    }
                };
                Ok(normalize(&rows)?)
            };
            Gradients::joined(&workers, 2 * parts, rows_of, |rows| {
                let (image_rows, text_rows) = (rows.narrow(0, 0, count)?, rows.narrow(0, count, count)?);
                let scale = logit_scale.exp()?.minimum(MAX_LOGIT_SCALE)?;
                let logits =
                    image_rows.index_select(&order, 0)?.matmul(&text_rows.t()?)?.broadcast_mul(&scale)?;
                Ok(symmetric_loss(&logits)?)
            })
        };
        // Captions of the first concepts, with the nearest images.
        let sample = || {
            let mut rng: rand_chacha::ChaCha8Rng = rand::SeedableRng::seed_from_u64(seed);
            let embeddings = embed_images(&vision, images)?;
            let mut rows = Vec::new();
            for own in of_concept.iter().step_by((of_concept.len() / 12).max(1)).take(12) {
                let sample = |language: &String| captions.sample(&mut rng, owners[own[0]], language);
                let texts: Vec<String> = languages.iter().filter_map(sample).collect();
                let scores = encode(&texts)?.matmul(&embeddings.t()?)?;
                let best = scores.arg_sort_last_dim(false)?.narrow(1, 0, 6)?.flatten_all()?;
                let own = Tensor::new(&[own[0] as u32], device)?;
                rows.push(images.index_select(&Tensor::cat(&[own, best], 0)?, 0)?);
            }
            let columns = 1 + 6 * languages.len();
            Ok(Some(contact_sheet(&Tensor::cat(&rows, 0)?, columns)?))
        };
        let steps = run.train(&mut optimizer, observer, &ObjectiveFunctions { gradients, sample })?;

        parameters.load(&optimizer.averages())?;
        let stage = &run.stage();
        // A stage that had finished before has already reported.
        let reported = if steps > 0 { languages } else { &[] };
        let embeddings = if reported.is_empty() { images.clone() } else { embed_images(&vision, images)? };
        let mut rng: rand_chacha::ChaCha8Rng = rand::SeedableRng::seed_from_u64(seed);
        for language in reported {
            let sample = |&owner: &usize| captions.sample(&mut rng, owner, language).unwrap_or_default();
            let texts: Vec<String> = owners.iter().map(sample).collect();
            let share = 100. * found_share(&encode(&texts)?.detach(), &embeddings, owners)?;
            let note = format!("{language}: {share:.1} % of captions find their own image first");
            observer.note(stage, &note);
        }
        let weights = parameters.snapshot()?;
        let part = |prefix: &str| -> BTreeMap<String, Tensor> {
            let strip = |(name, tensor): (&String, &Tensor)| {
                Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
            };
            weights.iter().filter_map(strip).collect()
        };
        Ok(TrainedDualEncoder {
            text_config,
            vision_config,
            text_weights: part("text."),
            vision_weights: part("vision."),
        })
    }
}

/// The images of each concept that has any, in the order of concepts.
///
/// # Errors
/// If there are fewer than `batch_size` concepts.
pub(crate) fn images_by_concept(owners: &[usize], batch_size: usize) -> Result<Vec<Vec<usize>>> {
    let mut of_concept: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (image, &owner) in owners.iter().enumerate() {
        of_concept.entry(owner).or_default().push(image);
    }
    if of_concept.len() < batch_size {
        let (found, n) = (of_concept.len(), batch_size);
        return Err(Error::Setting(format!(
            "batch_size {n}: expected at most one of each of the {found} concepts"
        )));
    }
    Ok(of_concept.into_values().collect())
}

/// The share of queries, one per image, that are nearest to an image of their own concept.
pub(super) fn found_share(queries: &Tensor, images: &Tensor, owners: &[usize]) -> Result<f64> {
    let found = queries.matmul(&images.t()?)?.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let right = found.iter().zip(owners).filter(|&(&f, &o)| owners[f as usize] == o).count();
    Ok(right as f64 / owners.len().max(1) as f64)
}

/// Normalised vectors of channels-last images (n, size, size, 3) from −1 to 1.
///
/// # Errors
/// If the images do not fit the model.
pub fn embed_images(vision: &ClipVisionTower, images: &Tensor) -> Result<Tensor> {
    const CHUNK: usize = 64;
    let n = images.dim(0)?;
    let embed = |first: usize| -> Result<Tensor> {
        let chunk = images.narrow(0, first, CHUNK.min(n - first))?;
        let pixel_values = chunk.permute((0, 3, 1, 2))?.contiguous()?;
        Ok(normalize(&vision.forward(&pixel_values)?)?.detach())
    };
    Ok(Tensor::cat(&(0..n).step_by(CHUNK).map(embed).collect::<Result<Vec<_>>>()?, 0)?)
}
