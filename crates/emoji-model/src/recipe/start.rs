//! Reads a trained model that a run starts from.

use crate::error::Result;
use crate::export::SENTENCEPIECE;
use crate::stages::autoencoder::Autoencoder;
use crate::stages::dual_encoder::TrainedDualEncoder;
use crate::weights::read_weights;
use altclip_encoder::altclip::AltClipTextConfig;
use altclip_encoder::text_encoder::TextEncoderConfig;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use candle_core::Tensor;
use model_files::source::ModelSource;
use std::collections::BTreeMap;

/// The parts of a model written by `export_model`.
pub(super) struct StartModel {
    pub tokenizer: Tokenizer,
    pub tokenizer_bytes: Vec<u8>,
    pub student: TrainedDualEncoder,
    pub vae: Autoencoder,
    pub unet_config: UNet2DConditionConfig,
    pub unet: BTreeMap<String, Tensor>,
}

impl StartModel {
    /// Reads the model called `name`.
    ///
    /// # Errors
    /// If a part is missing or damaged.
    pub(super) fn open(name: &str) -> Result<Self> {
        let source = ModelSource::open(name)?;
        let weights = |folder: &str| read_weights(&source, folder);
        let text: TextEncoderConfig = source.read_json("text_encoder/config.json")?;
        let tokenizer_bytes = source.read(SENTENCEPIECE)?.to_vec();
        Ok(Self {
            tokenizer: Tokenizer::from_sentencepiece_bytes(&tokenizer_bytes, SENTENCEPIECE)?,
            tokenizer_bytes,
            student: TrainedDualEncoder {
                text_config: AltClipTextConfig { encoder: text.encoder, project_dim: text.project_dim },
                vision_config: source.read_json("image_encoder/config.json")?,
                text_weights: weights("text_encoder")?,
                vision_weights: weights("image_encoder")?,
            },
            vae: Autoencoder::open(&source)?,
            unet_config: source.read_json("unet/config.json")?,
            unet: weights("unet")?,
        })
    }
}
