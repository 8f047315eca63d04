//! Loads an AltDiffusion whose text encoder was trained with an image encoder, as a [`DualEncoder`].
//!
//! Besides the weights for diffusion, `text_encoder/` then holds an AltCLIP's `pre_LN`, `text_projection` and
//! `logit_scale`, and `image_encoder/` is a `CLIPVisionModelWithProjection`. The published AltDiffusions have
//! neither.

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::family::{IMAGE_ENCODER, TEXT_ENCODER};
use super::{DualEncoder, Properties, TextPadding, read_logit_scale};
use crate::altclip::{AltClipTextConfig, AltClipTextTower};
use crate::conditioner::TextEncoderConfig;
use crate::error::{Error, Result};
use crate::vision::{ClipVisionTower, VisionConfig};

/// AltCLIP's text tower and CLIP's image tower, each from its own folder.
#[derive(Debug, Clone)]
pub struct AltDiffusionDualEncoder {
    text_encoder: AltClipTextTower,
    image_encoder: ClipVisionTower,
    properties: Properties,
}

impl AltDiffusionDualEncoder {
    /// Reads the folders `text_encoder` and `image_encoder` of `source`.
    ///
    /// # Errors
    /// If there is no image encoder, or a file is missing, is damaged, or contradicts its configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let (text, vision) = read_configs(source)?;
        let text_weights = Checkpoint::open(source, TEXT_ENCODER)?;
        let image_weights = Checkpoint::open(source, IMAGE_ENCODER)?;
        let vb = text_weights.var_builder(dtype, device)?;
        let (max_tokens, vocab_size) = (text.encoder.max_tokens(), text.encoder.vocab_size);
        let config = AltClipTextConfig { encoder: text.encoder, project_dim: text.project_dim };
        Ok(Self {
            text_encoder: AltClipTextTower::new(
                &config,
                vision.projection_dim,
                vb.clone(),
                vb.pp("text_projection"),
            )?,
            image_encoder: ClipVisionTower::new(&vision, image_weights.var_builder(dtype, device)?)?,
            properties: Properties {
                logit_scale: read_logit_scale(&text_weights)?,
                logit_bias: None,
                projection_dim: vision.projection_dim,
                image_size: vision.image_size,
                max_tokens,
                vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Skipped,
            },
        })
    }
}

/// The configurations of the text and the image encoder.
///
/// # Errors
/// If there is no image encoder, or a file is damaged.
pub(super) fn read_configs(source: &ModelSource) -> Result<(TextEncoderConfig, VisionConfig)> {
    let text = source.read_config("text_encoder/config.json")?;
    let vision = source.read_config("image_encoder/config.json").map_err(|error| match error {
        model_files::Error::MissingFile { model, file } => Error::config(
            model,
            format!(
                "no {file}: the text encoder is a diffusion model's, and without an image encoder it is no dual encoder"
            ),
        ),
        error => error.into(),
    })?;
    Ok((text, vision))
}

impl DualEncoder for AltDiffusionDualEncoder {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_encoder.forward(input_ids, attention_mask)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_encoder.hidden_states(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.image_encoder.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
