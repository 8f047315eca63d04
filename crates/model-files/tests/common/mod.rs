//! Makes and reads weight files for the tests of checkpoints.

#![allow(dead_code, reason = "each test file is a program of its own and uses a part")]

use candle_core::{DType, Device};
use model_files::checkpoint::Checkpoint;

/// The values of a tensor, in f32.
pub fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name, DType::F32, &Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A safetensors file with this header, preceded by its length and followed by `data` zero bytes.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}
