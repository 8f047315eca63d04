//! Makes test files with given names and shapes.

use std::fs::File;
use std::io::Write;

use model_files::checkpoint::Checkpoint;
use model_files::config::read_json;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Result;

/// A golden file: a model's weights, with their names in diffusers and latent diffusion, and their shapes in the
/// latter.
#[derive(Deserialize)]
pub(crate) struct Golden<C> {
    pub config: C,
    pub names: Vec<(String, String, Vec<usize>)>,
}

pub(crate) fn golden_file<C: DeserializeOwned>(path: &str) -> Result<Golden<C>> {
    Ok(read_json(test_support::golden(path))?)
}

/// A checkpoint of one-byte zeros, stored sparsely.
pub(crate) fn checkpoint(
    tensors: &[(String, Vec<usize>)],
) -> std::result::Result<Checkpoint, Box<dyn std::error::Error>> {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<usize>();
        let info = serde_json::json!({ "dtype": "U8", "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), info);
    }
    let header = serde_json::to_vec(&header)?;
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile()?;
    let mut writer = File::create(file.path())?;
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    writer.set_len((8 + header.len() + end) as u64)?;
    Ok(Checkpoint::from_file(file.path())?)
}

pub(crate) fn prefixed(prefix: &str, names: &[(String, String, Vec<usize>)]) -> Vec<(String, Vec<usize>)> {
    names.iter().map(|(_, ldm, shape)| (format!("{prefix}{ldm}"), shape.clone())).collect()
}
