//! Infers sizes from weights, for models that are published without a configuration.

use model_files::checkpoint::Checkpoint;

use crate::error::{Error, Result};

/// The shapes in a checkpoint of a certain kind.
#[derive(Clone, Copy)]
pub(super) struct WeightSizes<'a> {
    checkpoint: &'a Checkpoint,
    expected: &'static str,
}

impl<'a> WeightSizes<'a> {
    /// `expected` names the model in errors.
    pub(super) fn new(checkpoint: &'a Checkpoint, expected: &'static str) -> Self {
        Self { checkpoint, expected }
    }

    /// The size of a dimension of a tensor.
    ///
    /// # Errors
    /// If there is no such tensor, or it has fewer dimensions.
    pub(super) fn of(&self, name: &str, dimension: usize) -> Result<usize> {
        let shape = self.checkpoint.shape(name);
        let size = shape.and_then(|shape| shape.get(dimension)).copied();
        size.ok_or_else(|| {
            self.problem(&match shape {
                Some(shape) => format!("found the tensor {name} of shape {shape:?}"),
                None => format!("found no tensor {name}"),
            })
        })
    }

    /// The number of layers whose names start with `prefix`.
    pub(super) fn layers(&self, prefix: &str) -> usize {
        let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.checkpoint.names().filter_map(number).max().map_or(0, |last| last.saturating_add(1))
    }

    /// Patches on a side of an image, from the rows of a position embedding: one for the class, one for each patch.
    ///
    /// # Errors
    /// Like [`of`](Self::of); also if the image is not a square.
    pub(super) fn patches_per_side(&self, positions: &str) -> Result<usize> {
        let rows = self.of(positions, 0)?;
        let patches = rows.saturating_sub(1);
        match patches.isqrt() {
            side if side > 0 && side * side == patches => Ok(side),
            _ => Err(self.problem(&format!(
                "found {positions} with {rows} rows, which is not a row for the class and one for each patch of a \
                 square"
            ))),
        }
    }

    /// The error that the file is something else.
    pub(super) fn problem(&self, problem: &str) -> Error {
        Error::format(self.checkpoint.file_name(), format!("expected {}, {problem}", self.expected))
    }
}
