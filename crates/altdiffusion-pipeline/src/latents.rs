//! Reads and writes files of latents.

use std::path::Path;

use candle_core::safetensors::BufferedSafetensors;
use candle_core::{DType, Device, Tensor};
use model_files::{read_input, write_whole};

use crate::{Error, Result};

/// The tensor's name in a file of latents.
const TENSOR: &str = "latents";
/// The largest file read, in bytes.
const MOST_BYTES: u64 = 16 << 30;

/// Reads the f32 tensor `latents` (images, channels, height, width) of a safetensors file into CPU memory.
///
/// # Errors
/// If the file cannot be read, is not a safetensors file, or lacks the tensor; if the tensor has another dtype or
/// rank, or a value that is not finite.
pub fn read_latents(path: &Path) -> Result<Tensor> {
    let file = path.display().to_string();
    let bytes = read_input(path, MOST_BYTES).map_err(|error| Error::io(path, error))?;
    let tensors = BufferedSafetensors::new(bytes)
        .map_err(|error| Error::content(&file, format!("expected a safetensors file: {error}")))?;
    let names: Vec<String> = tensors.tensors().into_iter().map(|(name, _)| name).collect();
    if !names.iter().any(|name| name == TENSOR) {
        let problem = format!("expected a tensor `{TENSOR}`, found {names:?}");
        return Err(Error::content(file, problem));
    }
    let latents = tensors.load(TENSOR, &Device::Cpu)?;
    if latents.dtype() != DType::F32 || latents.rank() != 4 {
        let problem = format!(
            "`{TENSOR}` is {} with shape {:?}, expected f32 with shape [images, channels, height, width]",
            latents.dtype().as_str(),
            latents.dims()
        );
        return Err(Error::content(file, problem));
    }
    if !all_finite(&latents)? {
        return Err(Error::content(file, format!("`{TENSOR}` holds NaN or infinity, expected numbers")));
    }
    Ok(latents)
}

/// Writes latents (images, channels, height, width) for [`read_latents`], atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn write_latents(path: &Path, latents: &Tensor) -> Result<()> {
    let latents = latents.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
    let bytes = safetensors::serialize([(TENSOR, &latents)], None)
        .map_err(|error| Error::content(path.display().to_string(), error.to_string()))?;
    Ok(write_whole(path, |temporary| std::fs::write(temporary, bytes))?)
}

/// Whether no value is NaN or infinite.
pub(crate) fn all_finite(tensor: &Tensor) -> Result<bool> {
    Ok(zero_if_finite(tensor)?.to_scalar::<f32>()? == 0.0)
}

/// A scalar, f32 and on the tensor's device, that is 0 if no value is NaN or infinite.
pub(crate) fn zero_if_finite(tensor: &Tensor) -> Result<Tensor> {
    // 0 · x is zero for every finite number, and NaN otherwise.
    Ok((tensor * 0.0)?.to_dtype(DType::F32)?.sum_all()?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::safetensors::save;

    use super::*;
    use crate::random::{Noise, TorchCpu};
    use test_support::TestResult;

    fn values(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
        tensor.flatten_all()?.to_vec1()
    }

    #[test]
    fn latents_survive_their_file() -> TestResult {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("latents.safetensors");
        let latents = TorchCpu::new(3).normal(&[2, 4, 3, 5])?;
        write_latents(&path, &latents)?;
        let read = read_latents(&path)?;
        assert_eq!(read.dims(), latents.dims());
        assert_eq!(values(&read)?, values(&latents)?);
        Ok(())
    }

    #[test]
    fn a_file_of_something_else_is_named() -> TestResult {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("latents.safetensors");
        let message = || read_latents(&path).err().map(|error| error.to_string()).unwrap_or_default();
        let nan = Tensor::full(f32::NAN, (1, 4, 2, 2), &Device::Cpu)?;
        assert!(message().contains("latents.safetensors"));
        for (tensor, name, problem) in [
            (nan.clone(), "latents", "NaN"),
            (nan.zeros_like()?, "noise", "[\"noise\"]"),
            (nan.zeros_like()?.get(0)?, "latents", "[4, 2, 2]"),
            (nan.zeros_like()?.to_dtype(DType::F16)?, "latents", "f16"),
        ] {
            save(&HashMap::from([(name, tensor)]), &path)?;
            assert!(message().contains("latents.safetensors"), "{}", message());
            assert!(message().contains(problem), "{}", message());
        }
        let whole = std::fs::read(&path)?;
        for bytes in [&whole[..whole.len() - 1], &whole[..5], b"not a tensor".as_slice()] {
            std::fs::write(&path, bytes)?;
            assert!(message().contains("expected a safetensors file"), "{}", message());
            assert_eq!(message().lines().count(), 1);
        }
        Ok(())
    }
}
