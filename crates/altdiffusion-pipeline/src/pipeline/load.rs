//! Loads a model from its parts.

use std::sync::Arc;

use altclip_encoder::conditioner::{ConditionerConfig, ConditionerSpec};
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::{Checkpoint, is_sensitive_to_int8};
use model_files::config::parse_config;
use model_files::source::ModelSource;
use web_time::Instant;

use super::component::Component;
use super::load_options::LoadOptions;
use super::model::{AltDiffusion, DenoiserComponent, TextComponents};
use crate::adapters::{Merge, TextualInversion};
use crate::denoiser::{Denoiser, DenoiserSpec};
use crate::model_parts::{ModelParts, PartFiles, unet_name_in_latent_diffusion};
use crate::safety_checker::SafetyChecker;
use crate::schedulers::SchedulerConfig;
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use crate::upscaler::{PixelShuffleUpscaler, UpscalerConfig};
use crate::vae::{AutoencoderKl, AutoencoderKlConfig};
use crate::{Error, PerBlock, Result};

impl AltDiffusion {
    /// Loads the model called `name`, a directory or a repository on the Hugging Face hub.
    ///
    /// # Errors
    /// If there is no such model, or a part is missing, damaged, not supported, or does not fit the others.
    pub fn from_pretrained(name: &str, dtype: DType, device: &Device) -> Result<Self> {
        Self::from_source(&ModelSource::open(name)?, dtype, device)
    }

    /// Loads a model from its folders, see [`ModelParts::in_folders`].
    ///
    /// # Errors
    /// If a part is missing, damaged, not supported, or does not fit the others.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        Self::load(ModelParts::in_folders(source)?, LoadOptions::new(dtype, device))
    }

    /// Loads a model from its parts.
    ///
    /// # Errors
    /// If there is no tokenizer, or a part is damaged, not supported, or does not fit the others; if a LoRA or
    /// textual inversion was made for another model.
    pub fn load(parts: ModelParts, options: LoadOptions) -> Result<Self> {
        let start = Instant::now();
        options.check()?;
        let tokenizer = Tokenizer::from_source(parts.tokenizer()?, "tokenizer")?;
        let scheduler = SchedulerConfig::from_json(&*parts.scheduler, parts.scheduler.name())?.for_latents();
        let configs = PartConfigs {
            text_encoder: ConditionerConfig::read(&parts.text_encoder.config)?,
            unet: parse_config(&parts.unet.config)?,
            vae: parse_config(&parts.vae.config)?,
        };
        configs.check_fit(&parts.name)?;
        let spec = configs.text_encoder.spec();
        let mut tokenizer = tokenizer.with_embedding_rows(spec.vocab_size);
        let prompt_tokens = tokenizer.prompt_length(spec.max_tokens);
        let words = add_words(&mut tokenizer, &options.words, spec)?;

        let LoadOptions {
            dtype, device, int8, loras, loras_beside_weights, low_memory, safety_checker, ..
        } = options;
        let kept = !low_memory;
        let in_int8 = |weights: Checkpoint| match int8 {
            true => weights.in_int8(|name| !is_sensitive_to_int8(name)),
            false => weights,
        };
        let text_encoder = {
            let (config, weights, device) =
                (configs.text_encoder, in_int8(parts.text_encoder.weights), device.clone());
            let merge = Merge::into_text_encoder(&loras, loras_beside_weights);
            Component::new(kept, move || {
                let encoder = config.build(merge.over(weights.var_builder(dtype, &device)?))?;
                merge.check()?;
                match &words {
                    Some((first, rows)) => Ok(encoder.with_added_embeddings(*first, rows)?),
                    None => Ok(encoder),
                }
            })?
        };
        let weights = Some(parts.unet.weights.clone());
        let model = {
            let (config, weights, device) =
                (configs.unet.clone(), in_int8(parts.unet.weights), device.clone());
            let merge =
                Merge::into_unet(&loras, loras_beside_weights, unet_name_in_latent_diffusion(&config)?);
            Component::new(kept, move || {
                let unet =
                    UNet2DConditionModel::new(&config, merge.over(weights.var_builder(dtype, &device)?))?;
                merge.check()?;
                Ok(Arc::new(unet) as Arc<dyn Denoiser>)
            })?
        };
        let vae = {
            let (config, weights, device) = (configs.vae.clone(), parts.vae.weights, device.clone());
            Component::new(kept, move || AutoencoderKl::new(&config, weights.var_builder(dtype, &device)?))?
        };
        let upscaler = match parts.upscaler {
            Some(PartFiles { config, weights }) => {
                let config: UpscalerConfig = parse_config(&config)?;
                let device = device.clone();
                Some(Component::new(kept, move || {
                    PixelShuffleUpscaler::new(&config, weights.var_builder(dtype, &device)?)
                })?)
            }
            None => None,
        };
        let safety_checker = match parts.safety.filter(|_| safety_checker) {
            Some(parts) => {
                let device = device.clone();
                Some(Component::new(kept, move || SafetyChecker::new(&parts, dtype, &device))?)
            }
            None => None,
        };
        let PartConfigs { unet, vae: vae_config, .. } = configs;
        Ok(Self {
            texts: Some(TextComponents { tokenizer, prompt_tokens, spec, encoder: text_encoder }),
            denoiser: DenoiserComponent { spec: DenoiserSpec::from(&unet), model, weights },
            vae,
            vae_config,
            upscaler,
            safety_checker,
            scheduler,
            scheduler_factory: None,
            device,
            load_time: start.elapsed(),
        })
    }
}

/// Adds learned words to the tokenizer. Returns the id of their first token, and all embeddings, (tokens,
/// embedding_width).
fn add_words(
    tokenizer: &mut Tokenizer,
    words: &[TextualInversion],
    encoder: ConditionerSpec,
) -> Result<Option<(u32, Tensor)>> {
    let mut first = None;
    let mut rows = Vec::with_capacity(words.len());
    for word in words {
        word.check_width(encoder.embedding_width)?;
        let id = tokenizer.add_word(word.word(), word.vectors().dim(0)?)?;
        first.get_or_insert(id);
        rows.push(word.vectors());
    }
    match first {
        Some(first) => Ok(Some((first, Tensor::cat(&rows, 0)?))),
        None => Ok(None),
    }
}

/// The configurations of a model's parts.
struct PartConfigs {
    text_encoder: ConditionerConfig,
    unet: UNet2DConditionConfig,
    vae: AutoencoderKlConfig,
}

impl PartConfigs {
    /// Checks that the parts can belong to one model.
    fn check_fit(&self, model: &str) -> Result<()> {
        let unet = &self.unet;
        let latents = self.vae.latent_channels;
        let contradiction =
            |field, problem| Error::Field { file: format!("{model}: unet/config.json"), field, problem };
        let of_vae = format!("but `latent_channels` of vae/config.json is {latents}");
        // An inpainting UNet also takes a mask and the masked image's latents.
        let inpainting = latents.saturating_mul(2).saturating_add(1);
        if ![latents, inpainting].contains(&unet.in_channels) {
            let problem = format!(
                "is {}, {of_vae}: expected {latents}, or {inpainting} for inpainting; models that take depth, an image to edit or \
                 one to enlarge are not supported",
                unet.in_channels
            );
            return Err(contradiction("in_channels", problem));
        }
        if unet.out_channels != latents {
            return Err(contradiction("out_channels", format!("is {}, {of_vae}", unet.out_channels)));
        }
        let width = self.text_encoder.spec().width;
        let widths = match &unet.cross_attention_dim {
            PerBlock::Same(width) => std::slice::from_ref(width),
            PerBlock::Each(widths) => widths,
        };
        if widths.iter().any(|&expected| expected != width) {
            let field = self.text_encoder.width_field();
            let problem = format!("is {widths:?}, but `{field}` of text_encoder/config.json is {width}");
            return Err(contradiction("cross_attention_dim", problem));
        }
        Ok(())
    }
}
