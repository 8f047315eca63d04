//! Loads AltCLIP, -m9 and -m18 as a [`DualEncoder`].

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::{DualEncoder, Properties, TextPadding, read_logit_scale};
use crate::altclip::{AltClip, AltClipConfig};
use crate::error::Result;

/// [`AltClip`] with its properties.
#[derive(Debug, Clone)]
pub struct AltClipDualEncoder {
    clip: AltClip,
    properties: Properties,
}

impl AltClipDualEncoder {
    /// Reads `config.json` and the weights at the root of `source`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let config: AltClipConfig = source.read_config("config.json")?;
        let checkpoint = Checkpoint::open(source, "")?;
        let clip = AltClip::new(&config, checkpoint.var_builder(dtype, device)?)?;
        let properties = Properties {
            logit_scale: read_logit_scale(&checkpoint)?,
            logit_bias: None,
            projection_dim: config.projection_dim,
            image_size: config.vision_config.image_size,
            max_tokens: config.text_config.encoder.max_tokens(),
            vocab_size: config.text_config.encoder.vocab_size,
            device: device.clone(),
            dtype,
            padding: TextPadding::Skipped,
        };
        Ok(Self { clip, properties })
    }
}

impl DualEncoder for AltClipDualEncoder {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.clip.encode_text(input_ids, attention_mask)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.clip.text_hidden_states(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.clip.encode_image(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
