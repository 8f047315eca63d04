//! Any bytes as a `pytorch_model.bin`: tensors that fit the file, or an error.
#![no_main]

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::source::FileData;
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("fuzz.bin", bytes.to_vec())) {
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.tensor(name, DType::F32, &Device::Cpu) {
                assert!(tensor.elem_count() <= bytes.len());
            }
        }
    }
});
