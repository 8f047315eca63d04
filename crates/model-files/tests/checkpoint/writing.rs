//! Writes tensors as safetensors, converted on the way.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use fused_ops::{BlockType, INT8, INT8_SCALE, INT8_SMOOTHING, Int8Rows, Linear};
use model_files::Error;
use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite, write_safetensors};
use model_files::source::{FileData, ModelSource};
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
fn a_weight_in_int8_is_read_as_it_was_written() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    let weight = (tensor(-20.0, &[4, 10]) * 0.37).unwrap();
    save(&file, &[("layer.weight", weight.clone())]);
    let checkpoint = Checkpoint::from_file(&file).unwrap();
    let to_write = TensorToWrite {
        checkpoint: &checkpoint,
        source: "layer.weight".to_owned(),
        name: "layer.weight".to_owned(),
        shape: vec![4, 10],
        dtype: Some(NumberType::Int8),
    };
    let bytes = write(&[to_write], &BTreeMap::new()).unwrap();
    let names = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(names.tensor("layer.weight").unwrap().dtype(), safetensors::Dtype::I8);
    assert_eq!(names.tensor("layer.weight_scale").unwrap().shape(), [4]);
    let rows = Int8Rows::quantize(&weight.flatten_all().unwrap().to_vec1().unwrap(), 10, None).unwrap();

    let written = Checkpoint::from_data(FileData::owned("new.safetensors", bytes)).unwrap();
    assert_eq!(written.names().collect::<Vec<_>>(), ["layer.weight"]);
    // Another program's numbers, and one's own rounded when they are read, are the same integers.
    for int8 in [written.clone(), checkpoint.in_int8(|name| name == "layer.weight")] {
        let vb = int8.var_builder(DType::F32, &Device::Cpu).unwrap().pp("layer");
        assert!(vb.contains_tensor(INT8) && vb.contains_tensor(INT8_SCALE));
        let found = vb.get_with_hints_dtype((4, 10), INT8, Default::default(), DType::U8).unwrap();
        let found = found.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        assert_eq!(found.into_iter().map(u8::cast_signed).collect::<Vec<_>>(), rows.values);
        assert_eq!(vb.get(4, INT8_SCALE).unwrap().to_vec1::<f32>().unwrap(), rows.scales);
        Linear::new(10, 4, false, vb.clone()).unwrap();
        let misfit = Linear::new(4, 10, false, vb).unwrap_err().to_string();
        assert!(misfit.contains("layer.weight") && misfit.contains("[4, 10]"), "{misfit}");
    }
    // Those who want numbers get them.
    let numbers = written.tensor("layer.weight", DType::F32, &Device::Cpu).unwrap();
    let numbers = numbers.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(numbers, rows.dequantize(None).unwrap());
    // In groups of rows, each has its own scales.
    let split = written.with_rows_split(|_| vec!["a.weight".to_owned(), "b.weight".to_owned()]);
    let vb = split.var_builder(DType::F32, &Device::Cpu).unwrap().pp("b");
    assert_eq!(vb.get(2, INT8_SCALE).unwrap().to_vec1::<f32>().unwrap(), rows.scales[2..]);
}

#[test]
fn factors_of_inputs_are_kept_beside_a_weight() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    let weight = (tensor(-20.0, &[4, 10]) * 0.37).unwrap();
    save(&file, &[("layer.weight", weight.clone()), ("other.weight", weight.clone())]);
    let factors: Vec<f32> = (1..=10u8).map(f32::from).collect();
    let checkpoint = Checkpoint::from_file(&file).unwrap();
    let checkpoint = checkpoint.smoothed(BTreeMap::from([("layer.weight".to_owned(), factors.clone())]));
    let to_write = |checkpoint, name: &str, dtype| TensorToWrite {
        checkpoint,
        source: name.to_owned(),
        name: name.to_owned(),
        shape: vec![4, 10],
        dtype: Some(dtype),
    };
    let both = ["layer.weight", "other.weight"];
    let tensors = both.map(|name| to_write(&checkpoint, name, NumberType::Int8));
    let bytes = write(&tensors, &BTreeMap::new()).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(stored.tensor("layer.pre_quant_scale").unwrap().shape(), [10]);
    assert_eq!(stored.names().len(), 5);
    let values = weight.flatten_all().unwrap().to_vec1().unwrap();
    let rows = Int8Rows::quantize(&values, 10, Some(&factors)).unwrap();

    let written = Checkpoint::from_data(FileData::owned("new.safetensors", bytes)).unwrap();
    assert_eq!(written.names().collect::<Vec<_>>(), both);
    for int8 in [written.clone(), checkpoint.in_int8(|_| true)] {
        let vb = int8.var_builder(DType::F32, &Device::Cpu).unwrap();
        let layer = vb.pp("layer");
        assert_eq!(layer.get(10, INT8_SMOOTHING).unwrap().to_vec1::<f32>().unwrap(), factors);
        assert_eq!(layer.get(4, INT8_SCALE).unwrap().to_vec1::<f32>().unwrap(), rows.scales);
        assert!(layer.get(4, INT8_SMOOTHING).is_err());
        assert!(!vb.pp("other").contains_tensor(INT8_SMOOTHING));
        Linear::new(10, 4, false, layer).unwrap();
    }
    // As numbers, read and written.
    let expected = rows.dequantize(Some(&factors)).unwrap();
    let close = |found: Tensor| {
        let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let fits = found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-4);
        assert!(fits, "{found:?} instead of {expected:?}");
    };
    close(written.tensor("layer.weight", DType::F32, &Device::Cpu).unwrap());
    let numbers = write(&[to_write(&written, "layer.weight", NumberType::F32)], &BTreeMap::new()).unwrap();
    let numbers = candle_core::safetensors::load_buffer(&numbers, &Device::Cpu).unwrap();
    assert_eq!(numbers.len(), 1);
    close(numbers["layer.weight"].clone());
    // Written again, it is the same.
    let again = both.map(|name| to_write(&written, name, NumberType::Int8));
    let again = write(&again, &BTreeMap::new()).unwrap();
    assert_eq!(again, write(&tensors, &BTreeMap::new()).unwrap());
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    for (factors, problem) in [
        (
            tensor(1.0, &[3]),
            "its factors layer.pre_quant_scale have shape [3], expected one for each of 2 columns",
        ),
        (
            tensor(f32::INFINITY, &[2]),
            "its factors layer.pre_quant_scale: expected finite numbers, found inf",
        ),
    ] {
        let tensors = BTreeMap::from([
            ("layer.weight".to_owned(), int8_view(&[1, 2, 3, 4])),
            ("layer.weight_scale".to_owned(), f32_view(&tensor(1.0, &[2]))),
            ("layer.pre_quant_scale".to_owned(), f32_view(&factors)),
        ]);
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let checkpoint = Checkpoint::from_data(FileData::owned("new.safetensors", bytes)).unwrap();
        let error = checkpoint.tensor("layer.weight", DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

/// A tensor of 2 × 2 integers, or of numbers, as stored.
type Stored = (safetensors::Dtype, Vec<usize>, Vec<u8>);

fn int8_view(values: &[i8; 4]) -> Stored {
    (safetensors::Dtype::I8, vec![2, 2], values.iter().map(|value| value.cast_unsigned()).collect())
}

fn f32_view(tensor: &Tensor) -> Stored {
    let values = tensor.to_vec1::<f32>().unwrap();
    (
        safetensors::Dtype::F32,
        vec![values.len()],
        values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    )
}

#[test]
fn only_what_was_chosen_is_given_in_int8() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    let weights = ["a.weight", "layer.0.weight", "layer.1.weight"];
    let square = weights.map(|name| (name, tensor(1.0, &[2, 2])));
    save(
        &file,
        &[&square[..], &[("conv.weight", tensor(1.0, &[2, 2, 1, 1])), ("a.bias", tensor(1.0, &[2]))]]
            .concat(),
    );
    let given = |checkpoint: Checkpoint| {
        let vb = checkpoint.var_builder(DType::F32, &Device::Cpu).unwrap();
        let layers = ["a", "layer.0", "layer.1", "conv"];
        layers.into_iter().filter(|layer| vb.pp(layer).contains_tensor(INT8)).collect::<Vec<_>>()
    };
    let checkpoint = Checkpoint::from_file(&file).unwrap();
    assert_eq!(given(checkpoint.in_int8(|_| true)), ["a", "layer.0", "layer.1"]);
    assert_eq!(given(checkpoint.in_int8(|name| name == "a.weight")), ["a"]);
    assert!(given(checkpoint).is_empty());
    let source = ModelSource::directory(folder.path()).in_int8();
    assert_eq!(given(Checkpoint::open_file(&source, "all.safetensors").unwrap()), ["a", "layer.1"]);
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
