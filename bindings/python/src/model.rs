//! Finds a model, and says how it computes.

use std::path::Path;

use altdiffusion::DeviceChoice;
use altdiffusion_pipeline::ModelParts;
use candle_core::{DType, Device};
use model_files::source::ModelSource;
use pyo3::prelude::*;

use crate::errors::{Failure, Result};

/// A model and how it computes, in words.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ModelOptions {
    /// A directory, a repository or one file; `None` for the built-in model.
    name: Option<String>,
    revision: Option<String>,
    variant: Option<String>,
    /// What has the tokenizer and configurations of a model in one file.
    config: Option<String>,
    dtype: String,
    device: String,
}

impl ModelOptions {
    /// The model's files.
    pub(crate) fn source(&self) -> Result<ModelSource> {
        let Some(name) = &self.name else { return Ok(altdiffusion::built_in_model()) };
        let source = match &self.revision {
            Some(revision) => ModelSource::open(&format!("{name}@{revision}"))?,
            None => ModelSource::open(name)?,
        };
        match &self.variant {
            Some(variant) => Ok(source.with_variant(variant)?),
            None => Ok(source),
        }
    }

    /// The parts of a model that draws, of which the folders are needed.
    pub(crate) fn parts(&self, folders: &[&str]) -> Result<ModelParts> {
        match self.name.as_deref().map(Path::new).filter(|path| path.is_file()) {
            Some(file) => {
                let beside = self.config.as_deref().map(ModelSource::open).transpose()?;
                Ok(ModelParts::in_single_file(file, beside.as_ref())?)
            }
            None => {
                let source = self.source()?;
                source.prefetch(folders)?;
                Ok(ModelParts::in_folders(&source)?)
            }
        }
    }

    /// The type of the weights.
    pub(crate) fn dtype(&self) -> Result<DType> {
        match self.dtype.as_str() {
            "f32" => Ok(DType::F32),
            "f16" => Ok(DType::F16),
            "bf16" => Ok(DType::BF16),
            other => Err(Failure::input(format!("dtype {other}: expected f32, f16 or bf16"))),
        }
    }

    /// The device, opened.
    pub(crate) fn device(&self) -> Result<Device> {
        let choice: DeviceChoice = self
            .device
            .parse()
            .map_err(|problem| Failure::input(format!("device {}: {problem}", self.device)))?;
        // It names the command's option.
        choice.open().map_err(|error| Failure::input(format!("{error:#}").trim_start_matches('-')))
    }
}
