//! The UNet, trained on the latents of pictures under their captions (Ho et al., arXiv 2006.11239; Salimans & Ho, arXiv
//! 2202.00512 for the velocity), with some captions left out for guidance (Ho & Salimans, arXiv 2207.12598).

use crate::emoji::{CaptionSampler, Concept, Dataset};
use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::parameters::Parameters;
use crate::run::{Batch, Observer, Run};
use crate::stages::clip::CAPTION_TOKENS;
use crate::stages::denoising::{Denoising, NoiseSettings};
use crate::stages::functions::Functions;
use crate::stages::sheet::{Drawing, SampleSheet};
use crate::stages::unet_shape::UnetShape;
use crate::workers::Workers;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::Tensor;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionStage {
    pub block_out_channels: Vec<usize>,
    /// Whether each level attends to the prompt.
    pub cross_attention: Vec<bool>,
    pub layers_per_block: usize,
    pub num_attention_heads: usize,
    pub norm_num_groups: usize,
    /// Categories and subcategories of concepts that are left out: a small model draws fewer things better.
    pub exclude: Vec<String>,
    pub batch_size: usize,
    /// Parts of a batch that are computed at the same time on the CPU, each by its share of the cores.
    pub parts: usize,
    /// Share of captions replaced by the empty one.
    pub caption_dropout: f64,
    /// Largest weight of a timestep in units of its signal-to-noise ratio (Hang et al., arXiv 2303.09556); without it
    /// the velocities of all timesteps weigh the same.
    pub min_snr_gamma: Option<f64>,
    /// Above 1, noisy timesteps are drawn more often than the others: where a share `u` of an even choice would lie, lies
    /// `shift · u / (1 + (shift − 1) · u)` (Esser et al., arXiv 2403.03206, section 5.3.2). What a small model draws is
    /// decided there.
    pub timestep_shift: f64,
    /// Factor on the last layer of every residual branch at the start.
    pub residual_scale: f64,
    pub optimizer: OptimizerConfig,
    /// Prompts of the sample sheet.
    pub sample_prompts: Vec<String>,
    pub sample_steps: usize,
    pub sample_guidance_scale: f64,
}

/// What diffusion is trained on and with.
pub struct DiffusionInputs<'a> {
    pub data: &'a Dataset,
    /// (n, channels, height, width), scaled.
    pub latents: &'a Tensor,
    /// The concept of each picture.
    pub owners: &'a [usize],
    pub languages: &'a [String],
    pub tokenizer: &'a Tokenizer,
    pub text_encoder: &'a TextEncoder,
    pub vae: &'a AutoencoderKl,
    pub scheduler: &'a SchedulerConfig,
}

/// The trained UNet.
pub struct TrainedUnet {
    pub config: UNet2DConditionConfig,
    /// The averaged weights by name.
    pub weights: BTreeMap<String, Tensor>,
}

impl DiffusionStage {
    /// Whether the model learns to draw a concept.
    pub fn teaches(&self, concept: &Concept) -> bool {
        !self.exclude.iter().any(|name| *name == concept.category || *name == concept.subcategory)
    }

    fn shape(&self) -> UnetShape {
        UnetShape {
            block_out_channels: self.block_out_channels.clone(),
            cross_attention: self.cross_attention.clone(),
            layers_per_block: self.layers_per_block,
            num_attention_heads: self.num_attention_heads,
            norm_num_groups: self.norm_num_groups,
            residual_scale: self.residual_scale,
        }
    }

    /// Trains the UNet to predict the velocity of noised latents.
    ///
    /// # Errors
    /// If the settings describe no model, or the run fails.
    pub fn train(
        &self,
        inputs: &DiffusionInputs,
        run: &Run,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<TrainedUnet> {
        let DiffusionInputs { data, latents, owners, languages, tokenizer, text_encoder, .. } = *inputs;
        let device = latents.device();
        let shape = self.shape();
        let config = shape.config(latents, text_encoder.config().project_dim)?;
        let parameters = Parameters::new(seed);
        let unet = UNet2DConditionModel::new(&config, parameters.var_builder(device))?;
        shape.calm(&parameters)?;
        observer.note("diffusion", &format!("{} weights", parameters.count()));
        let mut optimizer = Optimizer::new(self.optimizer.clone(), &parameters)?;
        let captions = CaptionSampler::new(data);
        let noise = NoiseSettings {
            min_snr_gamma: self.min_snr_gamma,
            timestep_shift: self.timestep_shift,
            ..NoiseSettings::default()
        };
        let denoising = Denoising::new(inputs.scheduler, noise);
        let taught =
            |&(_, owner): &(usize, &usize)| data.concepts().get(*owner).is_some_and(|c| self.teaches(c));
        let taught: Vec<u32> = owners.iter().enumerate().filter(taught).map(|(i, _)| i as u32).collect();
        if taught.is_empty() {
            return Err(Error::Setting("exclude: expected some concepts to be left, found none".to_owned()));
        }

        // A GPU computes a whole batch at a time.
        let parts = if device.is_cpu() { self.parts } else { 1 };
        let part = |rng: &mut ChaCha8Rng| -> Result<Gradients> {
            let size = self.batch_size / parts;
            let chosen: Vec<u32> = (0..size).map(|_| taught[rng.random_range(0..taught.len())]).collect();
            let texts: Vec<String> = chosen
                .iter()
                .map(|&picture| {
                    let language = &languages[rng.random_range(0..languages.len())];
                    let dropped = rng.random_bool(self.caption_dropout);
                    let caption = captions.sample(rng, owners[picture as usize], language);
                    if dropped { String::new() } else { caption.unwrap_or_default() }
                })
                .collect();
            let original = latents.index_select(&Tensor::new(chosen, device)?, 0)?;
            let noised = denoising.draw(rng, &original)?;
            let encoding = tokenizer.encode_padded(&texts, CAPTION_TOKENS)?;
            let states = text_encoder.encode_compact(&encoding.input_ids, &encoding.attention_mask)?;
            let context = unet.project_context(&states.rows.detach(), Some(&states.key_bias))?;
            Gradients::of(&denoising.loss(&unet, &noised, &context)?)
        };
        let workers = Workers::new(parts)?;
        let gradients = |batch: &mut Batch| Gradients::sum(workers.run(&mut batch.rng, part));
        let sheet = SampleSheet {
            prompts: self.sample_prompts.clone(),
            steps: self.sample_steps,
            guidance_scale: self.sample_guidance_scale,
        };
        let drawing = Drawing { tokenizer, text_encoder, vae: inputs.vae, scheduler: inputs.scheduler };
        let sample = || sheet.draw(&drawing, &unet, latents, seed).map(Some);
        run.train(&mut optimizer, observer, &Functions { gradients, sample })?;
        Ok(TrainedUnet { config, weights: optimizer.averages() })
    }
}
