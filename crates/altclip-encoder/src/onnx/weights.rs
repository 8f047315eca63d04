//! Finds the weights of a graph in a checkpoint. Their shapes are checked when the graph is built, and their values read
//! when it is written.

use std::fmt::Display;

use candle_core::{DType, Device, Tensor};
use model_files::checkpoint::Checkpoint;

use crate::error::Result;

/// The weights of a part of a model.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    checkpoint: Checkpoint,
    prefix: String,
}

impl Weights {
    pub(crate) fn new(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, prefix: String::new() }
    }

    /// The weights whose names start with `part` and a dot.
    pub(crate) fn at(&self, part: impl Display) -> Self {
        Self { checkpoint: self.checkpoint.clone(), prefix: format!("{}{part}.", self.prefix) }
    }

    /// The whole name of a weight.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.name(name))
    }

    /// Checks that there is such a weight of this shape.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let (name, file) = (self.name(name), self.checkpoint.file_name().to_owned());
        let error = match self.checkpoint.shape(&name) {
            Some(found) if found == shape => return Ok(()),
            Some(found) => {
                let (found, expected) = (found.to_vec(), shape.to_vec());
                model_files::Error::ShapeMismatch { name, file, found, expected }
            }
            None => model_files::Error::MissingTensor { name, file, nearest: None },
        };
        Err(error.into())
    }

    /// Reads a weight as f32.
    pub(super) fn read(&self, name: &str) -> Result<Tensor> {
        Ok(self.checkpoint.tensor(&self.name(name), DType::F32, &Device::Cpu)?)
    }
}
