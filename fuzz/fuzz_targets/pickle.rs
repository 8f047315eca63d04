//! Reads arbitrary bytes as `pytorch_model.bin`: tensors that fit the file, or an error.
#![no_main]

use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;

/// The most elements of a tensor that repeats those of its storage.
const MOST_REPEATED: usize = 1 << 26;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("fuzz.bin", bytes.to_vec())) {
        checkpoint.unreadable().for_each(|(name, problem)| assert!(checkpoint.contains(name) && !problem.is_empty()));
        for name in checkpoint.names() {
            let elements: usize = checkpoint.shape(name).into_iter().flatten().product();
            assert!(elements <= bytes.len().max(MOST_REPEATED));
            if elements <= bytes.len() {
                let _ = checkpoint.tensor(name, DType::F32, &Device::Cpu);
            }
        }
    }
});
