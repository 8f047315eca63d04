//! The UNet, trained on the latents of pictures under their captions (Ho et al., arXiv 2006.11239; Salimans & Ho, arXiv
//! 2202.00512 for the velocity), with some captions left out for guidance (Ho & Salimans, arXiv 2207.12598).

use crate::emoji::{CaptionSampler, Concept, Dataset};
use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::parameters::Parameters;
use crate::pictures::contact_sheet;
use crate::run::{Batch, Observer, Run};
use crate::stages::clip::CAPTION_TOKENS;
use crate::stages::denoising::{Denoising, NoiseSettings};
use crate::stages::functions::Functions;
use crate::workers::Workers;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::random::{Noise, TorchCpu};
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use altdiffusion_pipeline::vae::AutoencoderKl;
use altdiffusion_pipeline::{Guidance, PerBlock, Prompt, Start, TextStates, denoise};
use candle_core::Tensor;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

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

    fn config(&self, latents: &Tensor, cross_attention_dim: usize) -> Result<UNet2DConditionConfig> {
        let (_, channels, height, _) = latents.dims4()?;
        let name = |attends: bool, with: &str, without: &str| if attends { with } else { without }.to_owned();
        let down = self.cross_attention.iter().map(|&a| name(a, "CrossAttnDownBlock2D", "DownBlock2D"));
        let up = self.cross_attention.iter().rev().map(|&a| name(a, "CrossAttnUpBlock2D", "UpBlock2D"));
        Ok(UNet2DConditionConfig {
            sample_size: Some(PerBlock::Same(height)),
            in_channels: channels,
            out_channels: channels,
            down_block_types: down.collect(),
            up_block_types: up.collect(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: PerBlock::Same(self.layers_per_block),
            norm_num_groups: self.norm_num_groups,
            cross_attention_dim: PerBlock::Same(cross_attention_dim),
            attention_head_dim: PerBlock::Same(self.num_attention_heads),
            use_linear_projection: true,
            ..UNet2DConditionConfig::default()
        })
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
        let config = self.config(latents, text_encoder.config().project_dim)?;
        let parameters = Parameters::new(seed);
        let unet = UNet2DConditionModel::new(&config, parameters.var_builder(device))?;
        parameters.scale(self.residual_scale, |name| {
            ["conv2.weight", "proj_out.weight", "conv_out.weight"].iter().any(|end| name.ends_with(end))
        })?;
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
        let sample = || self.sample(inputs, &unet, seed).map(Some);
        run.train(&mut optimizer, observer, &Functions { gradients, sample })?;
        Ok(TrainedUnet { config, weights: optimizer.averages() })
    }

    /// Draws the sample prompts.
    fn sample(
        &self,
        inputs: &DiffusionInputs,
        unet: &UNet2DConditionModel,
        seed: u64,
    ) -> Result<image::RgbImage> {
        let (_, channels, height, width) = inputs.latents.dims4()?;
        let mut pictures = Vec::new();
        for (i, prompt) in self.sample_prompts.iter().enumerate() {
            let states = TextStates::encode(
                inputs.tokenizer,
                inputs.text_encoder,
                &["", prompt],
                CAPTION_TOKENS,
                inputs.latents.device(),
            )?;
            let prompt = Prompt::guided(unet, &states, 1)?;
            let mut scheduler = inputs.scheduler.build(self.sample_steps)?;
            let mut noise = TorchCpu::new(seed + i as u64);
            let start = Start::in_noise(scheduler.as_ref(), &noise.normal(&[1, channels, height, width])?)?;
            let how = altdiffusion_pipeline::Denoising {
                guidance: Guidance::new(self.sample_guidance_scale),
                windows: None,
            };
            let done = denoise(unet, scheduler.as_mut(), &prompt, how, start, &mut noise, |_| {
                ControlFlow::Continue(())
            })?;
            let decoded = inputs.vae.decode(&(done.latents / inputs.vae.scaling_factor())?.detach())?;
            pictures.push(decoded.permute((0, 2, 3, 1))?.contiguous()?);
        }
        Ok(contact_sheet(&Tensor::cat(&pictures, 0)?, 8)?)
    }
}
