//! Measures one model's tensors in a file that holds several models.

use std::collections::BTreeSet;

use model_files::checkpoint::Checkpoint;

use super::names::index;
use crate::{Error, Result};

/// A part's tensors, by their names without its prefix.
pub(crate) struct PrefixedTensors<'a> {
    pub checkpoint: &'a Checkpoint,
    pub prefix: &'static str,
}

impl PrefixedTensors<'_> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.checkpoint.names().filter_map(|name| name.strip_prefix(self.prefix))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(&format!("{}{name}", self.prefix))
    }

    /// One dimension of a tensor.
    pub(crate) fn size(&self, name: &str, dimension: usize) -> Result<usize> {
        let name = format!("{}{name}", self.prefix);
        let missing = || model_files::Error::MissingTensor {
            name: name.clone(),
            file: self.checkpoint.file_name().to_owned(),
            nearest: None,
        };
        let shape = self.checkpoint.shape(&name).ok_or_else(missing)?;
        shape.get(dimension).copied().ok_or_else(|| {
            let problem = format!("tensor {name} has shape {shape:?}, expected more dimensions");
            Error::content(self.checkpoint.file_name(), problem)
        })
    }

    /// The first dimension of each tensor, up to the first that is missing.
    pub(crate) fn sizes(&self, names: impl Iterator<Item = String>) -> Result<Vec<usize>> {
        names.take_while(|name| self.has(name)).map(|name| self.size(&name, 0)).collect()
    }

    pub(crate) fn rank(&self, name: &str) -> Option<usize> {
        self.checkpoint.shape(&format!("{}{name}", self.prefix)).map(<[usize]>::len)
    }

    /// The numbers between `before` and a dot in the tensors' names.
    pub(crate) fn numbers(&self, before: &str) -> BTreeSet<usize> {
        let rest = self.names().filter_map(|name| name.strip_prefix(before));
        rest.filter_map(|rest| index(rest.split('.').next()?)).collect()
    }

    pub(crate) fn error(&self, problem: String) -> Error {
        Error::content(self.checkpoint.file_name(), problem)
    }

    /// The number of heads of `channels` channels in a width.
    pub(crate) fn heads(&self, what: &str, width: usize, channels: usize) -> Result<usize> {
        if width == 0 || !width.is_multiple_of(channels) {
            return Err(self.error(format!(
                "the number of heads of {what} cannot be told from its width {width}, expected a multiple of \
                 {channels}, or a configuration beside the file"
            )));
        }
        Ok(width / channels)
    }
}
