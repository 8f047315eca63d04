//! Loads a ControlNet from its files.

use std::path::Path;

use candle_core::{DType, Device};
use model_files::checkpoint::Checkpoint;
use model_files::config::{ConfigFile, parse_json};
use model_files::source::ModelSource;

use super::difference::Differences;
use super::single_file::{
    controlnet_in_single_file, holds_differences, is_controlnet, marks_differences, no_controlnet,
};
use super::{ControlNetConfig, ControlNetModel};
use crate::unused_tensors::{unused_tensors, warn_of_unused};
use crate::{Error, Result};

const CONFIG: &str = "config.json";

/// The field that names the class in a configuration, and its value here.
const CLASS_FIELD: &str = "_class_name";
const CLASS: &str = "ControlNetModel";

impl ControlNetModel {
    /// Loads a ControlNet from a folder in diffusers' layout: `config.json` with the weights beside it.
    ///
    /// # Errors
    /// If a file is missing, damaged, or belongs to another model.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        Self::from_source_over(source, None, dtype, device)
    }

    /// Loads a ControlNet from one file, `.safetensors` or `.pth`, in the original naming (`control_model.*`, or
    /// without that prefix) or diffusers'. Its configuration is inferred from the tensors' shapes, except
    /// [`global_pool_conditions`](ControlNetConfig::global_pool_conditions): the published model for shuffled images
    /// sets it, and has to be loaded from its folder.
    ///
    /// # Errors
    /// If the file is damaged or belongs to another model, or holds differences from a UNet's weights; use
    /// [`AltDiffusion::load_controlnet`](crate::AltDiffusion::load_controlnet) for those.
    pub fn from_file(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        Self::from_file_over(path, None, dtype, device)
    }

    /// Like [`from_source`](Self::from_source), where the weights may be differences from those of the UNet `base`.
    pub(crate) fn from_source_over(
        source: &ModelSource,
        base: Option<&Checkpoint>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let file = source.read(CONFIG)?;
        let config: ControlNetConfig = parse_json(&file)?;
        // Other models have the same fields, and would fail later, at a missing weight.
        if let Some(class) = config.other.get(CLASS_FIELD).filter(|class| *class != CLASS) {
            let problem = format!("is {class}, expected \"{CLASS}\": this is no ControlNet");
            return Err(Error::Field { file: file.name().to_owned(), field: CLASS_FIELD, problem });
        }
        ControlNetConfig::FIELDS.check(file.name(), &config.other)?;
        let weights = Checkpoint::open(source, "")?;
        if !is_controlnet(&weights) {
            return Err(no_controlnet(&weights));
        }
        Self::from_weights(&config, &weights, holds_differences(&weights), base, dtype, device)
    }

    /// Like [`from_file`](Self::from_file), where the weights may be differences from those of the UNet `base`.
    pub(crate) fn from_file_over(
        path: &Path,
        base: Option<&Checkpoint>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let file = Checkpoint::from_file(path)?;
        let (config, weights) = controlnet_in_single_file(&file)?;
        Self::from_weights(&config, &weights, holds_differences(&file), base, dtype, device)
    }

    fn from_weights(
        config: &ControlNetConfig,
        weights: &Checkpoint,
        are_differences: bool,
        base: Option<&Checkpoint>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let vb = weights.var_builder(dtype, device)?;
        let net = match base {
            _ if !are_differences => Self::new(config, vb)?,
            Some(base) => Self::new(config, Differences::from_base(base.var_builder(dtype, device)?, vb))?,
            None => {
                let problem = "holds differences from the UNet of a model (the tensor difference), expected to be loaded with \
                               that model";
                return Err(Error::content(weights.file_name(), problem));
            }
        };
        let unused = unused_tensors(weights, |vb| Self::new(config, vb))?;
        let unused: Vec<String> = unused.into_iter().filter(|name| !marks_differences(name)).collect();
        warn_of_unused(weights.file_name(), &unused);
        Ok(net)
    }
}
