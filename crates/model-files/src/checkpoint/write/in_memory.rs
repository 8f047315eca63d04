//! Writes tensors in memory as safetensors, one at a time.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::Tensor;
use safetensors::View;
use safetensors::tensor::{Metadata, TensorInfo};

use super::safetensors::ALIGNMENT;
use crate::error::{Error, Result};
use crate::whole_file::WholeFile;

/// Writes tensors to the file at `path` atomically, with `metadata` in its header, and flushes it to the disk.
///
/// # Errors
/// If a tensor cannot be read back from its device, or the file cannot be written.
pub fn save_tensors<N: Borrow<str> + Ord>(
    path: &Path,
    tensors: &BTreeMap<N, Tensor>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let file = WholeFile::create(path)?;
    write(file.path(), tensors, metadata).map_err(Error::io(path.display().to_string()))?;
    file.finish()
}

/// Into the file that is there, which is locked: the safetensors crate would put another in its place.
fn write<N: Borrow<str> + Ord>(
    path: &Path,
    tensors: &BTreeMap<N, Tensor>,
    metadata: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let mut ordered: Vec<(&str, &Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.borrow(), tensor)).collect();
    // As that crate orders them, which keeps every tensor aligned.
    ordered.sort_by_key(|(_, tensor)| Reverse(View::dtype(tensor)));
    let mut end = 0;
    let infos = ordered.iter().map(|&(name, tensor)| {
        let start = end;
        end += View::data_len(&tensor);
        let info = TensorInfo {
            dtype: View::dtype(&tensor),
            shape: View::shape(&tensor).to_vec(),
            data_offsets: (start, end),
        };
        (name.to_owned(), info)
    });
    let header = Metadata::new(metadata, infos.collect()).map_err(io::Error::other)?;
    let mut json = serde_json::to_vec(&header)?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');

    let mut file = BufWriter::new(OpenOptions::new().write(true).truncate(true).open(path)?);
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&json)?;
    for (_, tensor) in ordered {
        file.write_all(&View::data(&tensor))?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn the_bytes_are_those_of_the_safetensors_crate() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let place = tempfile::tempdir()?;
        let range = Tensor::arange(0f32, 6., &Device::Cpu)?.reshape((2, 3))?;
        let tensors = BTreeMap::from([
            ("a", range.to_dtype(DType::F16)?),
            ("b", range.clone()),
            ("c", range.to_dtype(DType::U8)?),
            ("d", range.sum_all()?),
        ]);
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let path = place.path().join("a.safetensors");
        save_tensors(&path, &tensors, Some(metadata.clone()))?;
        assert_eq!(std::fs::read(&path)?, safetensors::serialize(&tensors, Some(metadata))?);
        assert_eq!(std::fs::read_dir(place.path())?.count(), 1);
        Ok(())
    }
}
