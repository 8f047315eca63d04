//! Tests GGUF: files that another reader reads equally, quantized and unpacked reading, and hostile files.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use candle_core::quantized::{GgmlDType, gguf_file};
use candle_core::{DType, Device, Tensor};
use fused_ops::{BlockType, Linear};
use model_files::Error;
use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite, write_gguf};
use model_files::source::FileData;
use proptest::prelude::*;
use test_support::golden;

/// An in-memory safetensors file with these tensors.
fn checkpoint(tensors: &[(&str, Tensor)]) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let tensors: HashMap<_, _> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let bytes = std::fs::read(file).unwrap();
    Checkpoint::from_data(FileData::owned("model.safetensors", bytes)).unwrap()
}

fn numbers(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1013) as f32 / 1013. - 0.5).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn write(from: &Checkpoint, types: &[(&str, Option<NumberType>)]) -> Result<Vec<u8>, Error> {
    let tensors: Vec<_> = types
        .iter()
        .map(|(name, dtype)| TensorToWrite {
            checkpoint: from,
            source: (*name).to_owned(),
            name: (*name).to_owned(),
            shape: from.shape(name).unwrap_or_default().to_vec(),
            dtype: *dtype,
        })
        .collect();
    let metadata = BTreeMap::from([("test.text".to_owned(), "一只猫".to_owned())]);
    let mut bytes = Vec::new();
    write_gguf(&mut bytes, "new.gguf", "test", &tensors, &metadata, |_| Ok::<_, Error>(()))?;
    Ok(bytes)
}

fn read(bytes: Vec<u8>) -> Checkpoint {
    Checkpoint::from_data(FileData::owned("new.gguf", bytes)).unwrap()
}

fn values(checkpoint: &Checkpoint, name: &str, dtype: DType) -> Vec<f32> {
    let tensor = checkpoint.tensor(name, dtype, &Device::Cpu).unwrap();
    assert_eq!(tensor.dtype(), dtype);
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

#[test]
fn another_reader_finds_the_same() {
    let ids = Tensor::new(&[3i64, 4], &Device::Cpu).unwrap();
    let scale = Tensor::new(2.5f32, &Device::Cpu).unwrap();
    let from = checkpoint(&[
        ("conv.weight", numbers(&[4, 32, 3, 3])),
        ("linear.weight", numbers(&[6, 512])),
        ("half", numbers(&[5, 7])),
        ("ids", ids),
        ("scale", scale),
    ]);
    for kind in BlockType::ALL {
        let quantized = Some(NumberType::Quantized(kind));
        // A row of the convolution has 288 values, which 256 does not divide.
        let of_conv =
            if kind.block_values() == 32 { quantized } else { Some(NumberType::Quantized(BlockType::Q8_0)) };
        let types = [
            ("conv.weight", of_conv),
            ("linear.weight", quantized),
            ("half", Some(NumberType::F16)),
            ("ids", quantized),
            ("scale", None),
        ];
        let types = types.map(|(name, dtype)| (name, dtype.filter(|_| name != "ids")));
        // candle's reader does not support integers.
        let without_ids: Vec<_> = types.iter().filter(|(name, _)| *name != "ids").copied().collect();
        let bytes = write(&from, &without_ids).unwrap();
        let mut cursor = Cursor::new(&bytes);
        let theirs = gguf_file::Content::read(&mut cursor).unwrap();
        assert_eq!(theirs.metadata["general.architecture"].to_string().unwrap(), "test");
        assert_eq!(theirs.metadata["general.quantization_version"].to_u32().unwrap(), 2);
        let ours = read(bytes.clone());
        assert_eq!(ours.metadata()["test.text"], "一只猫");
        for (name, shape) in
            [("conv.weight", vec![4, 288]), ("linear.weight", vec![6, 512]), ("half", vec![5, 7])]
        {
            let tensor = theirs.tensor(&mut cursor, name, &Device::Cpu).unwrap();
            assert_eq!(tensor.shape().dims(), shape);
            let numbers = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            assert_eq!(values(&ours, name, DType::F32), numbers.to_vec1::<f32>().unwrap(), "{name}");
            assert_eq!(ours.shape(name), from.shape(name));
        }
        let with_ids = read(write(&from, &types).unwrap());
        assert_eq!(
            with_ids.tensor("ids", DType::I64, &Device::Cpu).unwrap().to_vec1::<i64>().unwrap(),
            [3, 4]
        );
        assert_eq!(
            (with_ids.shape("scale"), values(&with_ids, "scale", DType::F32)),
            (Some(&[][..]), vec![2.5])
        );
        assert_eq!((with_ids.block_type("linear.weight"), with_ids.block_type("half")), (Some(kind), None));
        assert_eq!((with_ids.dtype("linear.weight"), with_ids.dtype("half")), (None, Some(DType::F16)));
        // Writing with the same types gives the same bytes.
        let again: Vec<_> = types.iter().map(|(name, _)| (*name, None)).collect();
        assert_eq!(write(&with_ids, &again).unwrap(), write(&from, &types).unwrap());
    }
}

#[test]
fn files_of_another_writer_are_read() {
    let weight = numbers(&[4, 256]);
    let quantized = candle_core::quantized::QTensor::quantize(&weight, GgmlDType::Q6K).unwrap();
    let bias = candle_core::quantized::QTensor::quantize(&numbers(&[4]), GgmlDType::F32).unwrap();
    let alignment = gguf_file::Value::U32(32);
    let mut bytes = Cursor::new(Vec::new());
    let metadata = [("general.alignment", &alignment)];
    gguf_file::write(&mut bytes, &metadata, &[("a.weight", &quantized), ("a.bias", &bias)]).unwrap();
    let ours = read(bytes.into_inner());
    assert_eq!(
        (ours.shape("a.weight"), ours.block_type("a.weight")),
        (Some(&[4, 256][..]), Some(BlockType::Q6K))
    );
    let expected = quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
    assert_eq!(values(&ours, "a.weight", DType::F32), expected.to_vec1::<f32>().unwrap());
}

/// A file of llama.cpp's own writer, with the values its reader finds.
#[test]
fn the_reference_file_is_read() {
    let folder = golden("gguf");
    let ours = Checkpoint::from_file(folder.join("reference.gguf")).unwrap();
    let numbers = candle_core::safetensors::load(folder.join("numbers.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(ours.names().len(), numbers.len() + 1);
    for (name, expected) in numbers {
        assert_eq!(ours.shape(&name), Some(expected.dims()), "{name}");
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&ours, &name, DType::F32), expected, "{name}");
    }
    assert_eq!(ours.tensor("i64", DType::I64, &Device::Cpu).unwrap().to_vec1::<i64>().unwrap(), [3, -4]);
    assert_eq!(ours.metadata()["test.text"], "一只猫");
}

#[test]
fn blocks_are_numbers_of_any_type() {
    // More than is converted at a time, or by a task.
    let from = checkpoint(&[("a", numbers(&[300, 512]))]);
    let ours = read(write(&from, &[("a", Some(NumberType::Quantized(BlockType::Q4K)))]).unwrap());
    let exact = values(&ours, "a", DType::F32);
    let as_f64 = ours.tensor("a", DType::F64, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    assert_eq!(as_f64.flatten_all().unwrap().to_vec1::<f32>().unwrap(), exact);
    for dtype in [DType::F16, DType::BF16] {
        let expected = Tensor::new(exact.as_slice(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let expected = expected.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&ours, "a", dtype), expected);
    }
}

#[test]
fn layers_get_blocks_and_models_without_them_numbers() {
    let from = checkpoint(&[("a.weight", numbers(&[48, 64])), ("a.bias", numbers(&[48]))]);
    let types = [("a.weight", Some(NumberType::Quantized(BlockType::Q8_0))), ("a.bias", None)];
    let ours = read(write(&from, &types).unwrap());
    let vb = ours.var_builder(DType::F32, &Device::Cpu).unwrap();
    let blocks = BlockType::Q8_0.blocks_name("a.weight");
    assert!(vb.contains_tensor(&blocks) && !vb.contains_tensor("a.weight.q4_0"));
    let bytes = vb.get_with_hints_dtype((48, 68), &blocks, Default::default(), DType::U8).unwrap();
    assert_eq!((bytes.dtype(), bytes.dims()), (DType::U8, &[48, 68][..]));
    let x = numbers(&[3, 64]);
    let found = Linear::new(64, 48, true, vb.pp("a")).unwrap().forward(&x).unwrap();
    let weight = vb.get((48, 64), "a.weight").unwrap();
    let expected = Linear::from_tensors(weight, Some(numbers(&[48]))).unwrap().forward(&x).unwrap();
    assert_eq!(found.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
    // A shape error names the weight and its unpacked shape.
    let error = Error::from(Linear::new(32, 48, true, vb.pp("a")).unwrap_err()).to_string();
    assert_eq!(error, "tensor a.weight in new.gguf has shape [48, 64], expected [48, 32] from the config");
}

#[test]
fn what_cannot_be_written_is_named() {
    let bytes = Tensor::new(&[1u8, 2], &Device::Cpu).unwrap();
    let from =
        checkpoint(&[("a", numbers(&[2, 40])), ("large", (numbers(&[32]) * 1e9).unwrap()), ("u8", bytes)]);
    let refused = |name, dtype| write(&from, &[(name, dtype)]).unwrap_err().to_string();
    let q8 = Some(NumberType::Quantized(BlockType::Q8_0));
    assert_eq!(refused("a", q8), "new.gguf: tensor a: rows of 40 numbers do not divide into blocks of q8_0");
    assert!(refused("large", q8).ends_with("is too large for a block of q8_0"), "{}", refused("large", q8));
    assert_eq!(refused("u8", None), "new.gguf: tensor u8: GGUF has no type for numbers of U8");
    let unknown = "q9".parse::<NumberType>().unwrap_err().to_string();
    assert_eq!(unknown, "expected f32, f16, bf16, int8 or a quantized type such as q8_0, found q9");
}

#[test]
fn the_content_says_what_a_file_is_and_then_the_ending() {
    let from = checkpoint(&[("a", numbers(&[4]))]);
    let bytes = write(&from, &[("a", None)]).unwrap();
    for name in ["weights", "weights.safetensors", "weights.bin"] {
        assert!(Checkpoint::from_data(FileData::owned(name, bytes.clone())).is_ok());
    }
    let error = |name: &str, bytes: &[u8]| {
        Checkpoint::from_data(FileData::owned(name, bytes.to_vec())).unwrap_err().to_string()
    };
    assert_eq!(error("a.gguf", b"\0\x01\x02\x03"), "a.gguf: expected a GGUF file, found something else");
    assert!(error("a.gguf", &bytes[..bytes.len() - 32]).starts_with("a.gguf: the file is truncated"));
}

proptest! {
    #[test]
    fn damaged_files_are_errors_or_fit(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let from = checkpoint(&[("a", numbers(&[2, 64])), ("c", numbers(&[2, 32, 1, 1])), ("b", numbers(&[8]))]);
        let q4 = Some(NumberType::Quantized(BlockType::Q4_0));
        let mut bytes = write(&from, &[("a", q4), ("c", q4), ("b", None)]).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let length = bytes.len();
        if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("model.gguf", bytes)) {
            for name in checkpoint.names() {
                if let Ok(tensor) = checkpoint.tensor(name, DType::F32, &Device::Cpu) {
                    // q2_k has the fewest bytes per value: 84 for 256.
                    prop_assert!(tensor.elem_count() <= 4 * length);
                }
            }
        }
    }
}
