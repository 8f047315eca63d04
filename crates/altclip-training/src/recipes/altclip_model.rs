//! Opens and writes an AltCLIP in training, in its published layout.

use super::output::MODEL;
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::run::Observer;
use crate::tensor_file::save_weights;
use altclip_encoder::altclip::{AltClipConfig, AltClipTextTower};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;
use model_files::write_whole;
use std::collections::BTreeMap;
use std::path::Path;

/// The files of a model besides its weights.
const SMALL_FILES: [&str; 9] = [
    "added_tokens.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];
/// Prefixes of the text tower's weights and its projection's.
const TEXT: [&str; 2] = ["text_model.", "text_projection."];
/// Prefixes of the image tower's weights and its projection's.
const IMAGE: [&str; 2] = ["vision_model.", "visual_projection."];
const LOGIT_SCALE: &str = "logit_scale";

/// The model, with a trained text tower.
pub(super) struct TrainedAltClip {
    source: ModelSource,
    checkpoint: Checkpoint,
    pub config: AltClipConfig,
    pub parameters: Parameters,
    pub text: AltClipTextTower,
    pub tokenizer: Tokenizer,
}

impl TrainedAltClip {
    /// Opens the model called `name`. Weights of the text tower missing from its checkpoint, such as a projection
    /// that XLM-R never had, are initialised from the seed.
    ///
    /// # Errors
    /// If a file is missing or damaged, or a weight's shape differs from the configuration.
    pub(super) fn open(
        name: &str,
        seed: u64,
        dtype: DType,
        device: &Device,
        trains_scale: bool,
    ) -> Result<Self> {
        let source = ModelSource::open(name)?;
        let config: AltClipConfig = source.read_json("config.json")?;
        let tokenizer = Tokenizer::from_source(&source, "")?;
        let checkpoint = Checkpoint::open(&source, "")?;
        let is_trained = move |name: &str| {
            TEXT.iter().any(|prefix| name.starts_with(prefix)) || trains_scale && name == LOGIT_SCALE
        };
        let parameters = Parameters::new(seed)
            .starting_from(checkpoint.var_builder(DType::F32, device)?)
            .training(is_trained)
            .computing_in(dtype);
        let vb = parameters.var_builder(device);
        let (text, projection) = (vb.pp("text_model"), vb.pp("text_projection"));
        let text = AltClipTextTower::new(&config.text_config, config.projection_dim, text, projection)
            .map_err(altclip_encoder::Error::from)?;
        Ok(Self { source, checkpoint, config, parameters, text, tokenizer })
    }

    /// Reports which weights are initialised from the seed.
    pub(super) fn report_fresh(&self, observer: &mut dyn Observer, stage: &str) {
        let fresh = self.parameters.fresh();
        if let Some(first) = fresh.first() {
            let count = fresh.len();
            observer
                .note(stage, &format!("{count} weights are not in the checkpoint and begin anew: {first} …"));
        }
    }

    /// The trained logarithm of the logit scale.
    ///
    /// # Errors
    /// If the checkpoint has none.
    pub(super) fn logit_scale(&self, device: &Device) -> Result<Tensor> {
        if !self.checkpoint.contains(LOGIT_SCALE) {
            let problem = format!("expected a tensor `{LOGIT_SCALE}`");
            return Err(Error::format(self.checkpoint.file_name(), problem));
        }
        Ok(self.parameters.var_builder(device).get((), LOGIT_SCALE)?)
    }

    /// The weights of the image tower: its own, or `other`'s if it has none. `None` if neither has one.
    ///
    /// # Errors
    /// If the tower's shape differs from the configuration.
    pub(super) fn image_weights<'a>(
        &'a self,
        other: Option<&'a Checkpoint>,
    ) -> Result<Option<&'a Checkpoint>> {
        let has_tower = |checkpoint: &&Checkpoint| checkpoint.contains("visual_projection.weight");
        let found = std::iter::once(&self.checkpoint).chain(other).find(has_tower);
        if let Some(checkpoint) = found {
            let projection_dim = self.config.projection_dim;
            let config = VisionConfig { projection_dim, ..self.config.vision_config.clone() };
            let weights = checkpoint.var_builder(DType::F32, &Device::Cpu)?;
            ClipVisionTower::new(&config, weights).map_err(altclip_encoder::Error::from)?;
        }
        Ok(found)
    }

    /// Writes the model to `output/model` in f32: `trained`, the image tower, and the logit scale, which is the
    /// trained one, its own, or the spare one.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(super) fn write(
        &self,
        output: &Path,
        trained: BTreeMap<String, Tensor>,
        image: Option<&Checkpoint>,
        spare_logit_scale: Option<f32>,
    ) -> Result<()> {
        let folder = output.join(MODEL);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut weights = trained;
        let is_image = |name: &&str| IMAGE.iter().any(|prefix| name.starts_with(prefix));
        for (checkpoint, name) in
            image.into_iter().flat_map(|image| image.names().map(move |name| (image, name)))
        {
            if is_image(&name) && !name.ends_with("position_ids") {
                weights.insert(name.to_owned(), checkpoint.tensor(name, DType::F32, &Device::Cpu)?);
            }
        }
        if !weights.contains_key(LOGIT_SCALE) {
            let own = self.checkpoint.contains(LOGIT_SCALE);
            let own =
                own.then(|| self.checkpoint.tensor(LOGIT_SCALE, DType::F32, &Device::Cpu)).transpose()?;
            let spare = spare_logit_scale.map(|scale| Tensor::new(scale, &Device::Cpu)).transpose()?;
            weights.extend(own.or(spare).map(|scale| (LOGIT_SCALE.to_owned(), scale)));
        }
        for file in SMALL_FILES {
            if let Some(content) = self.source.read_optional(file)? {
                write_whole(&folder.join(file), |temporary| std::fs::write(temporary, &*content))?;
            }
        }
        save_weights(&folder.join("model.safetensors"), &weights)
    }
}
