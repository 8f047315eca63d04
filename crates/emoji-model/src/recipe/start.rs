//! Reads a trained model that a run starts from.

use crate::error::{Error, Result};
use crate::export::SENTENCEPIECE;
use crate::stages::autoencoder::Autoencoder;
use crate::stages::dual_encoder::TrainedDualEncoder;
use crate::tokenizer::{transfer, with_todays_rules};
use crate::weights::read_weights;
use altclip_encoder::altclip::AltClipTextConfig;
use altclip_encoder::conditioner::TextEncoderConfig;
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::unet::UNet2DConditionConfig;
use candle_core::Tensor;
use model_files::source::ModelSource;
use std::collections::BTreeMap;

/// The text tower's embedding of pieces.
const WORD_EMBEDDING: &str = "roberta.embeddings.word_embeddings.weight";

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
    /// Reads the model called `name`, with the autoencoder of the model called `autoencoder` if there is one.
    ///
    /// # Errors
    /// If a part is missing or damaged.
    pub(super) fn open(name: &str, autoencoder: Option<&str>) -> Result<Self> {
        let source = ModelSource::open(name)?;
        let weights = |folder: &str| read_weights(&source, folder);
        let text: TextEncoderConfig = source.read_json("text_encoder/config.json")?;
        let vae = match autoencoder {
            Some(other) => Autoencoder::open(&ModelSource::open(other)?)?,
            None => Autoencoder::open(&source)?,
        };
        let (unet_config, unet) =
            for_latents(vae.config.latent_channels, source.read_json("unet/config.json")?, weights("unet")?);
        let tokenizer_bytes = with_todays_rules(&source.read(SENTENCEPIECE)?)
            .map_err(|problem| Error::Setting(format!("start: {SENTENCEPIECE}: {problem}")))?;
        Ok(Self {
            tokenizer: Tokenizer::from_sentencepiece_bytes(&tokenizer_bytes, SENTENCEPIECE)?,
            tokenizer_bytes,
            student: TrainedDualEncoder {
                text_config: AltClipTextConfig { encoder: text.encoder, project_dim: text.project_dim },
                vision_config: source.read_json("image_encoder/config.json")?,
                text_weights: weights("text_encoder")?,
                vision_weights: weights("image_encoder")?,
            },
            vae,
            unet_config,
            unet,
        })
    }

    /// Goes on with another tokenizer.
    ///
    /// # Errors
    /// If the text tower has no embedding for the tokenizer that it comes with.
    pub(super) fn renew_tokenizer(&mut self, (tokenizer, bytes): (Tokenizer, Vec<u8>)) -> Result<()> {
        let TrainedDualEncoder { text_config, text_weights, .. } = &mut self.student;
        let Some(embedding) = text_weights.get_mut(WORD_EMBEDDING) else {
            return Err(Error::Setting(format!("start: text_encoder: expected a tensor {WORD_EMBEDDING}")));
        };
        *embedding = transfer(embedding, &self.tokenizer_bytes, &bytes)?;
        text_config.encoder.vocab_size = embedding.dim(0)?;
        (self.tokenizer, self.tokenizer_bytes) = (tokenizer, bytes);
        Ok(())
    }
}

/// A UNet for latents with this number of channels. Without its first and last layer, which begin anew, if it was one
/// for others: all between knows what captions mean.
fn for_latents(
    channels: usize,
    mut config: UNet2DConditionConfig,
    mut weights: BTreeMap<String, Tensor>,
) -> (UNet2DConditionConfig, BTreeMap<String, Tensor>) {
    if config.in_channels != channels {
        (config.in_channels, config.out_channels) = (channels, channels);
        weights.retain(|name, _| !name.starts_with("conv_in.") && !name.starts_with("conv_out."));
    }
    (config, weights)
}
