//! Reads arbitrary bytes as `model.safetensors`: tensors that fit the file, or an error.
#![no_main]

use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("fuzz.safetensors", bytes.to_vec())) {
        checkpoint.metadata();
        checkpoint.unreadable().for_each(|(name, problem)| assert!(checkpoint.contains(name) && !problem.is_empty()));
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.tensor(name, DType::F32, &Device::Cpu) {
                assert!(tensor.elem_count() <= bytes.len());
            }
        }
    }
});
