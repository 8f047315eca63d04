//! Opens the frozen dual encoders of a run, which may be of any family, and finds their image towers.

use crate::error::{Error, Result};
use altclip_encoder::altclip::AltClipConfig;
use altclip_encoder::embedder::Embedder;
use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use altclip_encoder::{DualEncoder, Family};
use candle_core::{DType, Device};
use model_files::checkpoint::Checkpoint;
use model_files::in_folder;
use model_files::source::{FileData, ModelSource};
use serde_json::{Map, Value};

/// The weight that tells CLIP's image tower in transformers' layout.
const PROJECTION: &str = "visual_projection.weight";
/// The file that says how its images are prepared.
pub(super) const PREPROCESSOR: &str = "preprocessor_config.json";
/// The logarithm of a logit scale at the beginning of training, as in CLIP.
const FIRST_LOGIT_SCALE: f32 = 2.6592;

/// Opens the dual encoder of `source`, which a run has by the setting `setting`.
///
/// # Errors
/// If its family is not known, a file is missing or damaged, or it has no single vector for a text and an image.
pub(super) fn open_frozen(source: &ModelSource, setting: &str, device: &Device) -> Result<Embedder> {
    let embedder = Embedder::from_source(source, DType::F32, device)?;
    if embedder.is_token_wise() {
        return Err(Error::Setting(format!(
            "{setting}: {source} has a vector for each token and none for the whole, expected a model that has one"
        )));
    }
    Ok(embedder)
}

/// The logarithm of the scale with which a model's cosines begin. SigLIP's belongs to its bias, which a model in AltCLIP's
/// layout does not have.
pub(super) fn log_logit_scale(model: &dyn DualEncoder) -> f32 {
    match model.properties().logit_bias {
        None => model.logit_scale().ln(),
        Some(_) => FIRST_LOGIT_SCALE,
    }
}

/// An image tower of CLIP's in transformers' layout, which a model in AltCLIP's layout can have.
pub(super) struct ImageTower {
    pub weights: Checkpoint,
    pub config: VisionConfig,
    /// `preprocessor_config.json`, if it is not the trained model's own.
    pub preprocessor: Option<FileData>,
}

impl ImageTower {
    /// The tower of another model. `None` if it is of another kind, or in another layout.
    ///
    /// # Errors
    /// If its configuration is damaged, or contradicts the weights.
    pub(super) fn of(source: &ModelSource, family: Family, projection_dim: usize) -> Result<Option<Self>> {
        let folders = family.preprocessor_folders();
        let open = |&folder: &&'static str| Some((folder, Checkpoint::open(source, folder).ok()?));
        let mut found = folders.iter().filter_map(open);
        let Some((folder, weights)) = found.find(|(_, weights)| weights.contains(PROJECTION)) else {
            return Ok(None);
        };
        let file = in_folder(folder, "config.json");
        let config = vision_config(source.read_json(&file)?)
            .map_err(|problem| altclip_encoder::Error::config(file, problem))?;
        let mut preprocessors = folders.iter().map(|folder| in_folder(folder, PREPROCESSOR));
        let preprocessor =
            preprocessors.find_map(|file| source.read_optional(&file).transpose()).transpose()?;
        Self { weights, config: VisionConfig { projection_dim, ..config }, preprocessor }.checked().map(Some)
    }

    /// The own tower of a model in AltCLIP's layout, if it has one.
    ///
    /// # Errors
    /// If its weights contradict the configuration.
    pub(super) fn own(weights: &Checkpoint, config: &AltClipConfig) -> Result<Option<Self>> {
        if !weights.contains(PROJECTION) {
            return Ok(None);
        }
        let projection_dim = config.projection_dim;
        let config = VisionConfig { projection_dim, ..config.vision_config.clone() };
        Self { weights: weights.clone(), config, preprocessor: None }.checked().map(Some)
    }

    fn checked(self) -> Result<Self> {
        let weights = self.weights.var_builder(DType::F32, &Device::Cpu)?;
        ClipVisionTower::new(&self.config, weights).map_err(altclip_encoder::Error::from)?;
        Ok(self)
    }
}

/// The configuration of the image tower in that of a dual encoder, or of an image tower alone.
fn vision_config(mut config: Map<String, Value>) -> Result<VisionConfig, String> {
    let mut part = |name: &str| match config.remove(name) {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    // Older files have it twice, and the latter takes precedence.
    let (tower, overriding) = (part("vision_config"), part("vision_config_dict"));
    let fields = match (tower, overriding) {
        (None, None) => config,
        (tower, overriding) => {
            tower.unwrap_or_default().into_iter().chain(overriding.unwrap_or_default()).collect()
        }
    };
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tower_is_configured_alone_or_within_its_model() {
        let config = |value: Value| match value {
            Value::Object(fields) => vision_config(fields),
            _ => Err("no object".to_owned()),
        };
        let sized = |image_size| Ok(VisionConfig { image_size, ..VisionConfig::default() });
        assert_eq!(config(json!({"image_size": 96})), sized(96));
        assert_eq!(config(json!({"image_size": 96, "vision_config": {"image_size": 32}})), sized(32));
        let twice = json!({"vision_config": {"image_size": 96}, "vision_config_dict": {"image_size": 64}});
        assert_eq!(config(twice), sized(64));
        assert_eq!(config(json!({"vision_config": null})), Ok(VisionConfig::default()));
        assert!(config(json!({"image_size": -1})).is_err());
    }
}
