//! Reads golden files, and copies folders of them to be changed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use serde::de::DeserializeOwned;

/// A file or folder of the golden values.
pub fn golden(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

/// All tensors of a golden file.
#[track_caller]
pub fn golden_tensors(path: &str) -> HashMap<String, Tensor> {
    safetensors::load(golden(path), &Device::Cpu).unwrap()
}

/// What a golden file in JSON says.
#[track_caller]
pub fn golden_json<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&fs::read(golden(path)).unwrap()).unwrap()
}

/// A builder of these weights in f32 on the CPU.
pub fn var_builder(tensors: &[(&str, &Tensor)]) -> VarBuilder<'static> {
    let tensors: HashMap<String, Tensor> =
        tensors.iter().map(|&(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

/// Copies a folder and all in it to another that may exist.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            // Not `fs::copy`, which would copy read-only permissions.
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
