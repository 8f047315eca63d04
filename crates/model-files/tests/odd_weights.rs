//! Compares weight files in rare forms (`scripts/golden/make_odd_weights.py`) with what PyTorch reads from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use model_files::Error;
use model_files::checkpoint::{Checkpoint, NumberType, TensorToWrite, write_gguf, write_safetensors};
use model_files::source::FileData;
use serde::Deserialize;

/// The expected content of a file.
#[derive(Deserialize)]
struct Expected {
    tensors: BTreeMap<String, Values>,
    /// Tensors that are not numeric.
    unreadable: Vec<String>,
}

#[derive(Deserialize)]
struct Values {
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/odd").join(name)
}

/// Opens a file, which must have exactly the expected tensors.
fn check(name: &str) -> Checkpoint {
    let json = fs::read_to_string(data(&format!("{name}.json"))).unwrap();
    let expected: Expected = serde_json::from_str(&json).unwrap();
    let checkpoint = Checkpoint::from_file(data(name)).unwrap();
    for (tensor, Values { shape, values }) in &expected.tensors {
        let read = checkpoint.tensor(tensor, DType::F32, &Device::Cpu);
        let read = read.unwrap_or_else(|error| panic!("{name}: {tensor}: {error}"));
        assert_eq!(
            (read.dims(), checkpoint.shape(tensor)),
            (shape.as_slice(), Some(read.dims())),
            "{tensor}"
        );
        assert_eq!(read.flatten_all().unwrap().to_vec1::<f32>().unwrap(), *values, "{name}: {tensor}");
    }
    for tensor in &expected.unreadable {
        let error = checkpoint.tensor(tensor, DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&format!("tensor {tensor}: ")), "{error}");
        assert!(checkpoint.contains(tensor), "{tensor}");
    }
    let known = |tensor: &&str| {
        expected.tensors.contains_key(*tensor) || expected.unreadable.iter().any(|u| u == tensor)
    };
    let unknown: Vec<&str> = checkpoint.names().filter(|tensor| !known(tensor)).collect();
    assert!(unknown.is_empty(), "{name}: {unknown:?}");
    checkpoint
}

#[test]
fn every_protocol_of_pickles_is_read() {
    for protocol in [1, 3, 4, 5] {
        check(&format!("protocol{protocol}.pt"));
        check(&format!("protocol{protocol}-old.pt"));
    }
}

#[test]
fn what_no_tensor_needs_is_passed_over() {
    for file in ["bystanders2.pt", "bystanders4.pt", "bystanders5.pt", "bystanders-old.pt", "only-named.pt"] {
        check(file);
    }
}

#[test]
fn files_that_users_have_met_are_read() {
    let files = fs::read_dir(data("reported")).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    let pickles: Vec<_> = names.iter().filter(|name| name.ends_with(".pt")).collect();
    assert_eq!(pickles.len(), 16);
    pickles.into_iter().for_each(|name| drop(check(&format!("reported/{name}"))));
}

#[test]
fn tensors_of_every_kind_are_read_or_refused_alone() {
    for file in ["tensors.pt", "tensors5.pt", "tensors-old.pt"] {
        let checkpoint = check(file);
        assert!(
            checkpoint.unreadable().any(|(name, problem)| name == "sparse" && problem.contains("sparse"))
        );
        assert!(checkpoint.names().all(|name| name != "sparse"));
    }
}

#[test]
fn tensors_of_other_devices_are_read_from_their_arrays() {
    for protocol in [2, 3, 5] {
        check(&format!("devices{protocol}.pt"));
    }
}

#[test]
fn arrays_are_read_where_there_are_no_tensors() {
    for protocol in [2, 4, 5] {
        check(&format!("arrays{protocol}.pt"));
    }
}

#[test]
fn modules_are_read_by_their_tables() {
    for file in
        ["module.pt", "module-old.pt", "modules-within.pt", "words.pt", "dictionaries.pt", "training.ckpt"]
    {
        check(file);
    }
}

#[test]
fn numbers_of_big_endian_machines_are_read() {
    check("big-endian.pt");
}

#[test]
fn entries_of_an_archive_that_no_tensor_needs_are_passed_over() {
    let checkpoint = check("extra-entries.pt");
    let problems: Vec<_> = checkpoint.unreadable().collect();
    let problem = "data/1 is compressed or encrypted, where torch.save stores it as it is";
    assert_eq!(problems, [("other", problem)]);
}

#[test]
fn calls_that_harm_are_refused() {
    let error = Checkpoint::from_file(data("eval.pt")).unwrap_err().to_string();
    assert!(error.contains("eval.pt") && error.contains("builtins.eval"), "{error}");
}

#[test]
fn float8_weights_are_their_numbers() {
    let checkpoint = check("float8.safetensors");
    assert_eq!(checkpoint.dtype("a.weight"), Some(DType::F8E4M3));
}

#[test]
fn scaled_weights_are_multiplied_by_their_scales() {
    for file in
        ["comfy-scaled.safetensors", "scales.safetensors", "torchao.safetensors", "packed.safetensors"]
    {
        check(file);
    }
}

#[test]
fn models_compute_with_scaled_weights_in_every_type() {
    let checkpoint = Checkpoint::from_file(data("scales.safetensors")).unwrap();
    let exact = checkpoint.tensor("b.weight", DType::F32, &Device::Cpu).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let vb = checkpoint.var_builder(dtype, &Device::Cpu).unwrap();
        let found = vb.get((4, 6), "b.weight").unwrap();
        let expected = exact.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        let difference = (found.to_dtype(DType::F32).unwrap() - expected).unwrap().abs().unwrap();
        assert_eq!((found.dtype(), difference.max_all().unwrap().to_scalar::<f32>().unwrap()), (dtype, 0.));
        assert!(!vb.contains_tensor("b.weight_scale"));
    }
}

/// All tensors of a checkpoint, to be written.
fn all(checkpoint: &Checkpoint, dtype: Option<NumberType>) -> Vec<TensorToWrite<'_>> {
    let tensor = |name: &str| {
        let (source, name, shape) =
            (name.to_owned(), name.to_owned(), checkpoint.shape(name).unwrap().to_vec());
        TensorToWrite { checkpoint, source, name, shape, dtype }
    };
    checkpoint.names().map(tensor).collect()
}

#[track_caller]
fn assert_same(a: &Checkpoint, b: &Checkpoint, name: &str, tolerance: f32) {
    let read = |from: &Checkpoint| {
        let tensor = from.tensor(name, DType::F32, &Device::Cpu).unwrap();
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (a, b) = (read(a), read(b));
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance * b.abs();
    assert!(a.len() == b.len() && a.iter().zip(&b).all(near), "{name}");
}

#[test]
fn float8_weights_are_written_anew() {
    let write = |from: &Checkpoint, name: &str, dtype| {
        let (tensors, metadata, mut bytes) = (all(from, dtype), BTreeMap::new(), Vec::new());
        match name.ends_with(".gguf") {
            true => {
                write_gguf(&mut bytes, name, "test", &tensors, &metadata, |_| Ok::<_, Error>(())).unwrap()
            }
            false => {
                write_safetensors(&mut bytes, name, &tensors, &metadata, |_| Ok::<_, Error>(())).unwrap()
            }
        }
        Checkpoint::from_data(FileData::owned(name, bytes)).unwrap()
    };
    for file in ["float8.safetensors", "scales.safetensors"] {
        let from = Checkpoint::from_file(data(file)).unwrap();
        for (name, dtype, tolerance) in [
            ("same.safetensors", None, 0.),
            ("same.gguf", None, 0.),
            // Half a unit in the last of 11 and of 8 bits.
            ("half.safetensors", Some(NumberType::F16), 2f32.powi(-11)),
            ("brain.gguf", Some(NumberType::Bf16), 2f32.powi(-8)),
        ] {
            let written = write(&from, name, dtype);
            assert!(from.names().eq(written.names()), "{file} {name}");
            from.names().for_each(|tensor| assert_same(&written, &from, tensor, tolerance));
            let kept = dtype.is_none() && file == "float8.safetensors" && name == "same.safetensors";
            assert_eq!(written.dtype("a.weight") == Some(DType::F8E4M3), kept, "{file} {name}");
        }
    }
}

/// Truncating a file with rare operations anywhere is an error, never a panic.
#[test]
fn truncated_files_are_errors() {
    for name in ["protocol4-old.pt", "devices2.pt", "words.pt"] {
        let bytes = fs::read(data(name)).unwrap();
        for length in 0..bytes.len() {
            let cut = FileData::owned("cut.pt", bytes[..length].to_vec());
            assert!(Checkpoint::from_data(cut).is_err(), "{name} with {length} of {} bytes", bytes.len());
        }
    }
}
