//! Writes safetensors files atomically.

use crate::error::Result;
use candle_core::Tensor;
use model_files::checkpoint::save_tensors;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Writes weights for PyTorch programs: transformers rejects a file without a framework name.
///
/// # Errors
/// If the file cannot be written.
pub fn save_weights(path: &Path, weights: &BTreeMap<String, Tensor>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(save_tensors(path, weights, Some(metadata))?)
}
