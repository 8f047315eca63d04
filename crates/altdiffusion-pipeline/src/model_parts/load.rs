//! Loads the model of each part separately.

use std::sync::Arc;

use altclip_encoder::conditioner::{Conditioner, ConditionerConfig};
use candle_core::{DType, Device};
use model_files::checkpoint::Survey;
use model_files::config::parse_config;

use super::{ModelParts, PartFiles};
use crate::Result;
use crate::unet::UNet2DConditionModel;
use crate::vae::AutoencoderKl;

impl ModelParts {
    /// Loads the text encoder.
    ///
    /// # Errors
    /// If the part is damaged or not supported.
    pub fn load_text_encoder(&self, dtype: DType, device: &Device) -> Result<Arc<dyn Conditioner>> {
        let PartFiles { config, weights } = &self.text_encoder;
        Ok(ConditionerConfig::read(config)?.build(weights.var_builder(dtype, device)?)?)
    }

    /// Loads the UNet.
    ///
    /// # Errors
    /// Like [`load_text_encoder`](Self::load_text_encoder).
    pub fn load_unet(&self, dtype: DType, device: &Device) -> Result<UNet2DConditionModel> {
        let PartFiles { config, weights } = &self.unet;
        UNet2DConditionModel::new(&parse_config(config)?, weights.var_builder(dtype, device)?)
    }

    /// Loads the autoencoder.
    ///
    /// # Errors
    /// Like [`load_text_encoder`](Self::load_text_encoder).
    pub fn load_vae(&self, dtype: DType, device: &Device) -> Result<AutoencoderKl> {
        let PartFiles { config, weights } = &self.vae;
        AutoencoderKl::new(&parse_config(config)?, weights.var_builder(dtype, device)?)
    }

    /// The same parts, but loading them reads no weights: `survey` records what is asked for.
    #[must_use]
    pub fn surveyed(self, survey: &Survey) -> Self {
        let watched = |folder: &str, part: PartFiles| PartFiles {
            weights: part.weights.surveyed(survey, folder),
            ..part
        };
        Self {
            text_encoder: watched("text_encoder", self.text_encoder),
            unet: watched("unet", self.unet),
            vae: watched("vae", self.vae),
            ..self
        }
    }
}
