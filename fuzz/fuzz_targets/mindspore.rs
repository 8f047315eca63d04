//! Reads arbitrary bytes as a MindSpore checkpoint: tensors that fit the file, or an error.
#![no_main]

use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("fuzz.ckpt", bytes.to_vec())) {
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.tensor(name, DType::F32, &Device::Cpu) {
                assert!(tensor.elem_count() <= bytes.len());
            }
        }
    }
});
