//! A model from its parts.

use std::time::Instant;

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::config::parse_json;
use altclip_encoder::source::ModelSource;
use altclip_encoder::text_encoder::TextEncoder;
use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{DType, Device};

use super::AltDiffusion;
use crate::model_parts::ModelParts;
use crate::prompt::prompt_tokens;
use crate::schedulers::SchedulerConfig;
use crate::unet::UNet2DConditionModel;
use crate::vae::AutoencoderKl;
use crate::{Error, PerBlock, Result};

impl AltDiffusion {
    /// Loads a model from its folders, as [`ModelParts::in_folders`] finds its parts.
    ///
    /// # Errors
    /// When a part is missing, damaged, not supported, or does not fit the others.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let start = Instant::now();
        let pipeline = Self::from_parts(&ModelParts::in_folders(source)?, dtype, device)?;
        Ok(Self { load_time: start.elapsed(), ..pipeline })
    }

    /// Loads a model from its parts.
    ///
    /// # Errors
    /// When there is no tokenizer, or a part is damaged, not supported, or does not fit the others.
    pub fn from_parts(parts: &ModelParts, dtype: DType, device: &Device) -> Result<Self> {
        let start = Instant::now();
        let weights = |checkpoint: &Checkpoint| checkpoint.var_builder(dtype, device);

        let tokenizer = Tokenizer::from_source(parts.tokenizer()?, "tokenizer")?;
        let scheduler = SchedulerConfig::from_json(&*parts.scheduler, parts.scheduler.name())?.for_latents();

        let ModelParts { text_encoder, unet, vae, .. } = parts;
        let text_encoder =
            TextEncoder::new(&parse_json(&text_encoder.config)?, weights(&text_encoder.weights)?)?;
        let unet = UNet2DConditionModel::new(&parse_json(&unet.config)?, weights(&unet.weights)?)?;
        let vae = AutoencoderKl::new(&parse_json(&vae.config)?, weights(&vae.weights)?)?;

        let pipeline = Self {
            prompt_tokens: prompt_tokens(parts.tokenizer()?, text_encoder.config())?,
            tokenizer,
            text_encoder,
            unet,
            vae,
            scheduler,
            device: device.clone(),
            load_time: start.elapsed(),
        };
        pipeline.check_fit(&parts.name)?;
        Ok(pipeline)
    }

    /// The parts can belong to one model.
    fn check_fit(&self, model: &str) -> Result<()> {
        let unet = self.unet.config();
        let latents = self.vae.config().latent_channels;
        let contradiction =
            |field, problem| Error::Field { file: format!("{model}: unet/config.json"), field, problem };
        let of_vae = format!("but `latent_channels` of vae/config.json is {latents}");
        // A UNet that was trained to inpaint also sees a mask and the latents of what stays.
        if ![latents, 2 * latents + 1].contains(&unet.in_channels) {
            return Err(contradiction("in_channels", format!("is {}, {of_vae}", unet.in_channels)));
        }
        if unet.out_channels != latents {
            return Err(contradiction("out_channels", format!("is {}, {of_vae}", unet.out_channels)));
        }
        let width = self.text_encoder.config().project_dim;
        let widths = match &unet.cross_attention_dim {
            PerBlock::Same(width) => std::slice::from_ref(width),
            PerBlock::Each(widths) => widths,
        };
        if widths.iter().any(|&expected| expected != width) {
            let problem = format!("is {widths:?}, but `project_dim` of text_encoder/config.json is {width}");
            return Err(contradiction("cross_attention_dim", problem));
        }
        Ok(())
    }
}
