//! Reads arbitrary bytes as `model.gguf`: tensors that fit the file, unpacked and quantized, or an error.
#![no_main]

use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;

/// The most values per byte, in q2_k.
const MOST_PER_BYTE: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("fuzz.gguf", bytes.to_vec())) {
        checkpoint.metadata();
        // Fuzz targets report by panicking: no file may make f32 unsupported.
        let vb = checkpoint.var_builder(DType::F32, &Device::Cpu).expect("models compute in f32");
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.tensor(name, DType::F32, &Device::Cpu) {
                assert!(tensor.elem_count() <= MOST_PER_BYTE * bytes.len());
            }
            if let Some(kind) = checkpoint.block_type(name) {
                let name = kind.blocks_name(name);
                if vb.contains_tensor(&name) {
                    let _ = vb.get_with_hints_dtype((1, kind.block_bytes()), &name, Default::default(), DType::U8);
                }
            }
        }
    }
});
