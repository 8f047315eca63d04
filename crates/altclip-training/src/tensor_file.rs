//! Writes safetensors files atomically.

use crate::error::Result;
use candle_core::Tensor;
use model_files::write_whole;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::Path;

/// Writes weights for PyTorch programs: transformers rejects a file without a framework name.
///
/// # Errors
/// If the file cannot be written.
pub fn save_weights(path: &Path, weights: &BTreeMap<String, Tensor>) -> Result<()> {
    save_tensors(path, weights, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
}

/// Writes tensors to a safetensors file atomically, and flushes it to disk.
///
/// # Errors
/// If the file cannot be written.
pub fn save_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    Ok(write_whole(path, |temporary| {
        // The file is recreated there, private to its owner.
        let permissions = fs::metadata(temporary)?.permissions();
        safetensors::serialize_to_file(tensors, metadata, temporary).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(error) => error,
            error => std::io::Error::other(error),
        })?;
        fs::set_permissions(temporary, permissions)?;
        File::open(temporary)?.sync_all()
    })?)
}
