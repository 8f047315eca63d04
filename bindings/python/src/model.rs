//! Finds a model, and says how it computes.

use std::path::Path;

use altdiffusion::DeviceChoice;
use altdiffusion_pipeline::ModelParts;
use candle_core::Device;
use model_files::Arithmetic;
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
    /// The files of a model that is not a pipeline.
    pub(crate) fn source(&self) -> Result<ModelSource> {
        Ok(self.plain_source()?.computing_in(self.arithmetic()?))
    }

    fn plain_source(&self) -> Result<ModelSource> {
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
        match self.name.as_deref().and_then(|name| ModelParts::file_at(Path::new(name))) {
            Some(file) => {
                let beside = self.config.as_deref().map(ModelSource::open).transpose()?;
                Ok(ModelParts::in_single_file(&file, beside.as_ref())?)
            }
            None => {
                let source = self.plain_source()?;
                source.prefetch(folders)?;
                Ok(ModelParts::in_folders(&source)?)
            }
        }
    }

    /// What the model computes in.
    pub(crate) fn arithmetic(&self) -> Result<Arithmetic> {
        let problem = |problem: String| Failure::input(format!("dtype {}: {problem}", self.dtype));
        self.dtype.parse().map_err(problem)
    }

    /// The device, opened, if it can compute in that.
    pub(crate) fn device(&self) -> Result<Device> {
        let choice: DeviceChoice = self
            .device
            .parse()
            .map_err(|problem| Failure::input(format!("device {}: {problem}", self.device)))?;
        // It names the command's option.
        let opened = choice.open_for(self.arithmetic()?);
        opened.map_err(|error| Failure::input(format!("{error:#}").trim_start_matches('-')))
    }
}
