//! Writes tensors as safetensors, converted on the way.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use fused_ops::BlockType;
use model_files::Error;
use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite, write_safetensors};
use model_files::source::FileData;
use tempfile::TempDir;

use super::{save, tensor};

fn write(tensors: &[TensorToWrite], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, "new.safetensors", tensors, metadata, |_| Ok::<_, Error>(()))?;
    Ok(bytes)
}

#[test]
fn tensors_are_written_anew() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    let ids = Tensor::new(&[3i64, 4], &Device::Cpu).unwrap();
    // More elements than are converted at a time, and values that f16 has to round.
    let many = (tensor(0.0, &[1_100_000]) * 1e-3).unwrap();
    save(&file, &[("a", tensor(1.0, &[2, 3])), ("ids", ids), ("many", many.clone())]);
    let checkpoint = Checkpoint::from_file(&file).unwrap();
    let to_write = |source: &str, shape: &[usize], dtype| TensorToWrite {
        checkpoint: &checkpoint,
        source: source.to_owned(),
        name: format!("new.{source}"),
        shape: shape.to_vec(),
        dtype,
    };
    let metadata = BTreeMap::from([("config.json".to_owned(), "{\"a\": 1}".to_owned())]);
    for (number, dtype) in
        [(None, DType::F32), (Some(NumberType::F16), DType::F16), (Some(NumberType::Bf16), DType::BF16)]
    {
        let tensors = [
            to_write("many", &[1_100_000], number),
            to_write("a", &[2, 3, 1, 1], number),
            to_write("ids", &[2], number),
        ];
        let bytes = write(&tensors, &metadata).unwrap();
        assert_eq!(bytes, write(&tensors, &metadata).unwrap());
        // Another reader of the format takes it, and finds the same numbers.
        let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        assert_eq!(read["new.a"].dims(), [2, 3, 1, 1]);
        assert_eq!(read["new.ids"].to_vec1::<i64>().unwrap(), [3, 4]);
        let expected = many.to_dtype(dtype).unwrap();
        assert_eq!(read["new.many"].dtype(), expected.dtype());
        let difference = (&read["new.many"] - expected).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        let again = Checkpoint::from_data(FileData::owned("new.safetensors", bytes)).unwrap();
        assert_eq!(again.metadata(), metadata);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    save(&file, &[("a", tensor(70_000.0, &[2]))]);
    let checkpoint = Checkpoint::from_file(&file).unwrap();
    let refused = |source: &str, shape: &[usize], dtype, times: usize| {
        let tensor = TensorToWrite {
            checkpoint: &checkpoint,
            source: source.to_owned(),
            name: "new".to_owned(),
            shape: shape.to_vec(),
            dtype,
        };
        write(&vec![tensor; times], &BTreeMap::new()).unwrap_err().to_string()
    };
    assert!(refused("b", &[2], None, 1).contains("no tensor b"));
    assert!(refused("a", &[3], None, 1).contains("has shape [2], expected [3]"));
    let blocks = Some(NumberType::Quantized(BlockType::Q8_0));
    assert!(refused("a", &[2], blocks, 1).contains("tensor new: safetensors hold no quantized weights"));
    assert!(refused("a", &[2], None, 2).contains("two tensors would be called new"));
    let overflow = refused("a", &[2], Some(NumberType::F16), 1);
    assert!(overflow.contains("tensor a holds 70000, which f16 cannot: use bf16 or f32"), "{overflow}");
}
