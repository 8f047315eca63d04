//! Opens and writes an AltCLIP in training, in its published layout.

use super::frozen_encoder::{ImageTower, PREPROCESSOR};
use super::output::MODEL;
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::run::Observer;
use crate::tensor_file::save_weights;
use altclip_encoder::altclip::{AltClipConfig, AltClipTextTower};
use altclip_encoder::tokenizer::Tokenizer;
use altclip_encoder::vision::VisionConfig;
use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use model_files::checkpoint::Checkpoint;
use model_files::config::parse_json;
use model_files::source::ModelSource;
use model_files::write_whole;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The files of a model besides its weights, its configuration and how its images are prepared.
const SMALL_FILES: [&str; 6] = [
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];
const CONFIG: &str = "config.json";
/// How images are prepared for its own tower.
const OWN_PREPROCESSORS: [&str; 2] = [PREPROCESSOR, "processor_config.json"];
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
        let config: AltClipConfig = source.read_json(CONFIG)?;
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

    /// The trained logarithm of the logit scale, which begins at `first` if the checkpoint has none.
    ///
    /// # Errors
    /// If it has neither.
    pub(super) fn logit_scale(&self, first: Option<f32>, device: &Device) -> Result<Tensor> {
        let first = match first {
            _ if self.checkpoint.contains(LOGIT_SCALE) => Init::Const(0.),
            Some(first) => Init::Const(first.into()),
            None => {
                let problem = format!("expected a tensor `{LOGIT_SCALE}`");
                return Err(Error::format(self.checkpoint.file_name(), problem));
            }
        };
        Ok(self.parameters.var_builder(device).get_with_hints((), LOGIT_SCALE, first)?)
    }

    /// The length that texts are truncated to: the one asked for, or else the tokenizer's for this text tower.
    ///
    /// # Errors
    /// If the tower has no positions for it.
    pub(super) fn max_tokens(&self, asked: Option<usize>) -> Result<usize> {
        let positions = self.config.text_config.encoder.max_tokens();
        match asked {
            None => Ok(self.tokenizer.max_length(positions)),
            Some(asked) if (2..=positions).contains(&asked) => Ok(asked),
            Some(asked) => Err(Error::Setting(format!(
                "stage.max_tokens: expected 2 to {positions}, for which the text tower has positions, found {asked}"
            ))),
        }
    }

    /// Its own image tower, if it has one.
    ///
    /// # Errors
    /// If the tower's shape differs from the configuration.
    pub(super) fn image_tower(&self) -> Result<Option<ImageTower>> {
        ImageTower::own(&self.checkpoint, &self.config)
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
        image: Option<&ImageTower>,
        spare_logit_scale: Option<f32>,
    ) -> Result<()> {
        let folder = output.join(MODEL);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut weights = trained;
        let is_image = |name: &&str| IMAGE.iter().any(|prefix| name.starts_with(prefix));
        if let Some(tower) = image.map(|image| &image.weights) {
            for name in tower.names().filter(|name| is_image(name) && !name.ends_with("position_ids")) {
                weights.insert(name.to_owned(), tower.tensor(name, DType::F32, &Device::Cpu)?);
            }
        }
        if !weights.contains_key(LOGIT_SCALE) {
            let own = self.checkpoint.contains(LOGIT_SCALE);
            let own =
                own.then(|| self.checkpoint.tensor(LOGIT_SCALE, DType::F32, &Device::Cpu)).transpose()?;
            let spare = spare_logit_scale.map(|scale| Tensor::new(scale, &Device::Cpu)).transpose()?;
            weights.extend(own.or(spare).map(|scale| (LOGIT_SCALE.to_owned(), scale)));
        }
        let write = |file: &str, content: &[u8]| {
            write_whole(&folder.join(file), |temporary| std::fs::write(temporary, content))
        };
        write(CONFIG, &self.written_config(image)?)?;
        let preprocessor = image.and_then(|image| image.preprocessor.as_ref());
        if let Some(content) = preprocessor {
            write(PREPROCESSOR, content)?;
        }
        let own = OWN_PREPROCESSORS.iter().filter(|_| preprocessor.is_none());
        for file in SMALL_FILES.iter().chain(own) {
            if let Some(content) = self.source.read_optional(file)? {
                write(file, &content)?;
            }
        }
        save_weights(&folder.join("model.safetensors"), &weights)
    }

    /// The model's own configuration, with that of the image tower if it is another.
    fn written_config(&self, image: Option<&ImageTower>) -> Result<Vec<u8>> {
        const TOWER: &str = "vision_config";
        let own = self.source.read(CONFIG)?;
        let projection_dim = self.config.projection_dim;
        let own_tower = VisionConfig { projection_dim, ..self.config.vision_config.clone() };
        let Some(image) = image.filter(|image| image.config != own_tower) else {
            return Ok(own.to_vec());
        };
        let mut config: Map<String, Value> = parse_json(&own)?;
        let mut fields = match config.remove(TOWER) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        if let Value::Object(tower) =
            serde_json::to_value(&image.config).map_err(|e| Error::format(CONFIG, e))?
        {
            fields.extend(tower);
        }
        config.insert(TOWER.to_owned(), Value::Object(fields));
        serde_json::to_vec_pretty(&config).map_err(|e| Error::format(CONFIG, e))
    }
}
