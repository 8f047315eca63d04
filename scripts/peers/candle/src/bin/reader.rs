//! Reads one checkpoint with candle's own loaders, for `scripts/campaigns/readers.py`: `reader safetensors|pickle|gguf
//! PATH`. The exit code is 1 if candle refuses the file.

use std::error::Error;
use std::fs::File;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, pickle, safetensors};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [format, path] = arguments.as_slice() else {
        return Err("expected a format and a file".into());
    };
    let device = Device::Cpu;
    match format.as_str() {
        "safetensors" => drop(safetensors::load(path, &device)?),
        "pickle" => drop(pickle::read_all(path)?),
        "gguf" => {
            let mut file = File::open(path)?;
            let content = Content::read(&mut file)?;
            for name in content.tensor_infos.keys() {
                content.tensor(&mut file, name, &device)?.dequantize(&device)?;
            }
        }
        _ => return Err(format!("{format}: expected safetensors, pickle or gguf").into()),
    }
    Ok(())
}
