//! Reads safetensors and shards, and names weights that do not fit a model.

#[path = "../common/mod.rs"]
mod common;
mod writing;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::safetensors;
use model_files::Error;
use model_files::checkpoint::{Checkpoint, Survey};
use model_files::source::{FileData, ModelSource};
use proptest::prelude::*;
use tempfile::TempDir;

fn tensor(first: f32, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| first + i as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let tensors: HashMap<_, _> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// The one number in the weights of a model.
fn value(source: &ModelSource) -> f32 {
    let checkpoint = Checkpoint::open(source, "").unwrap();
    checkpoint.tensor("x", DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap()[0]
}

#[test]
fn a_variant_is_read_where_it_is_asked_for_or_alone() {
    let folder = TempDir::new().unwrap();
    let source = ModelSource::directory(folder.path());
    let half = source.with_variant("fp16").unwrap();
    // A variant in shards has its name at the end of the index, and may call its shards as it likes.
    save(&folder.path().join("model-1.safetensors"), &[("x", tensor(2.0, &[1]))]);
    let index = r#"{"weight_map": {"x": "model-1.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.fp16.json"), index).unwrap();
    assert_eq!((value(&source), value(&half)), (2.0, 2.0));
    save(&folder.path().join("model.safetensors"), &[("x", tensor(1.0, &[1]))]);
    assert_eq!((value(&source), value(&half)), (1.0, 2.0));
    save(&folder.path().join("model.fp16.safetensors"), &[("x", tensor(3.0, &[1]))]);
    assert_eq!((value(&source), value(&half)), (1.0, 3.0));

    let other = source.with_variant("non_ema").unwrap();
    let missing = Checkpoint::open(&other, "").unwrap_err().to_string();
    assert!(missing.contains("no file model.non_ema.safetensors"), "{missing}");
    assert!(missing.contains("pytorch_model.non_ema.bin"), "{missing}");
    for name in ["", "../x", "a/b", "a.b", "fp 16"] {
        assert!(matches!(source.with_variant(name), Err(Error::Input(_))), "{name}");
    }
}

fn error_of(bytes: Vec<u8>) -> String {
    let error = Checkpoint::from_data(FileData::owned("model.safetensors", bytes)).unwrap_err().to_string();
    assert!(error.starts_with("model.safetensors: ") && !error.contains('\n'), "{error}");
    error
}

#[test]
fn tensors_come_back_in_the_type_asked_for() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("model.safetensors");
    let half = tensor(0.5, &[4]).to_dtype(DType::F16).unwrap();
    save(&file, &[("a.weight", tensor(1.0, &[2, 3])), ("half", half)]);
    let checkpoint = Checkpoint::from_file(&file).unwrap();
    assert!(checkpoint.names().eq(["a.weight", "half"]));
    assert_eq!(
        (checkpoint.shape("a.weight"), checkpoint.dtype("half")),
        (Some(&[2, 3][..]), Some(DType::F16))
    );
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let vb = checkpoint.var_builder(dtype, &Device::Cpu).unwrap();
        // Twice, because the pages of a tensor that was read are given back.
        for _ in 0..2 {
            let weight = vb.pp("a").get((2, 3), "weight").unwrap();
            assert_eq!(weight.dtype(), dtype);
            let weight = weight.to_dtype(DType::F32).unwrap();
            assert_eq!(weight.to_vec2::<f32>().unwrap(), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
            let half = vb.get(4, "half").unwrap().to_dtype(DType::F32).unwrap();
            assert_eq!(half.to_vec1::<f32>().unwrap(), [0.5, 1.5, 2.5, 3.5]);
        }
    }
    assert!(matches!(checkpoint.var_builder(DType::U8, &Device::Cpu), Err(Error::Input(_))));
}

#[test]
fn misfits_name_the_tensor_and_the_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&file, &[("text_model.roberta.pooler.dense.weight", tensor(0.0, &[2, 3]))]);
    let vb = Checkpoint::from_file(&file).unwrap().var_builder(DType::F32, &Device::Cpu).unwrap();
    let file = file.display();

    let error = Error::from(vb.pp("roberta.pooler.dense").get((2, 3), "weight").unwrap_err());
    let line = format!(
        "{file}: no tensor roberta.pooler.dense.weight (the nearest name there is text_model.roberta.pooler.dense.weight)"
    );
    assert_eq!(error.to_string(), line);
    assert!(matches!(error, Error::MissingTensor { .. }));

    let error = Error::from(vb.get(3, "logit_scale").unwrap_err());
    assert_eq!(error.to_string(), format!("{file}: no tensor logit_scale"));

    let error = Error::from(vb.get((3, 2), "text_model.roberta.pooler.dense.weight").unwrap_err());
    let line = format!(
        "tensor text_model.roberta.pooler.dense.weight in {file} has shape [2, 3], expected [3, 2] from the config"
    );
    assert_eq!(error.to_string(), line);
    assert!(matches!(error, Error::ShapeMismatch { .. }));
}

#[test]
fn weights_are_found_under_every_published_name() {
    let (one, two) = (tensor(1.0, &[1]), tensor(2.0, &[1]));
    let first_value = |source: &ModelSource, folder: &str| {
        let checkpoint = Checkpoint::open(source, folder).unwrap();
        checkpoint.tensor("x", DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap()[0]
    };
    for (better, worse) in [
        ("unet/model.safetensors", "unet/diffusion_pytorch_model.safetensors"),
        ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"),
        ("model.safetensors", "model.fp16.safetensors"),
    ] {
        let folder = TempDir::new().unwrap();
        let source = ModelSource::open(folder.path().to_str().unwrap()).unwrap();
        let part = better.rsplit_once('/').map_or("", |(part, _)| part);
        save(&folder.path().join(worse), &[("x", two.clone())]);
        assert_eq!(first_value(&source, part), 2.0);
        save(&folder.path().join(better), &[("x", one.clone())]);
        assert_eq!(first_value(&source, part), 1.0);
    }

    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("text_encoder")).unwrap();
    let pickle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/one.bin");
    fs::copy(pickle, folder.path().join("text_encoder/pytorch_model.bin")).unwrap();
    let source = ModelSource::directory(folder.path());
    assert_eq!(Checkpoint::open(&source, "text_encoder").unwrap().shape("weight"), Some(&[3, 5][..]));

    let error = Checkpoint::open(&source, "vae").unwrap_err();
    assert!(matches!(error, Error::MissingFile { .. }));
    let line = error.to_string();
    assert!(line.contains("vae/model.safetensors") && line.contains("vae/pytorch_model.bin"), "{line}");
}

#[test]
fn embedded_weights_are_weights() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&file, &[("x", tensor(3.0, &[2]))]);
    let bytes: &'static [u8] = fs::read(&file).unwrap().leak();
    let files = vec![("vae/diffusion_pytorch_model.safetensors", bytes)].leak();
    let source = ModelSource::embedded("built-in model", files);
    let checkpoint = Checkpoint::open(&source, "vae").unwrap();
    assert_eq!(
        checkpoint.tensor("x", DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap(),
        [3.0, 4.0]
    );
    let error = Checkpoint::open(&source, "unet").unwrap_err().to_string();
    assert!(error.starts_with("built-in model: no file unet/"), "{error}");
}

/// Two shards and an index of this `weight_map` in a folder.
fn sharded(weight_map: &str) -> (TempDir, Result<Checkpoint, Error>) {
    let folder = TempDir::new().unwrap();
    let part = folder.path().join("text_encoder");
    save(&part.join("model-1.safetensors"), &[("a", tensor(1.0, &[1])), ("extra", tensor(9.0, &[1]))]);
    save(&part.join("model-2.safetensors"), &[("b", tensor(2.0, &[1]))]);
    save(&folder.path().join("outside.safetensors"), &[("c", tensor(2.0, &[1]))]);
    let index = format!(r#"{{"metadata": {{"total_size": 8}}, "weight_map": {weight_map}}}"#);
    fs::write(part.join("model.safetensors.index.json"), index).unwrap();
    let checkpoint = Checkpoint::open(&ModelSource::directory(folder.path()), "text_encoder");
    (folder, checkpoint)
}

#[test]
fn shards_are_one_checkpoint() {
    let (folder, checkpoint) = sharded(r#"{"a": "model-1.safetensors", "b": "model-2.safetensors"}"#);
    let by_path =
        Checkpoint::from_file(folder.path().join("text_encoder/model.safetensors.index.json")).unwrap();
    for checkpoint in [checkpoint.unwrap(), by_path] {
        assert!(checkpoint.names().eq(["a", "b"]));
        let b = checkpoint.tensor("b", DType::F32, &Device::Cpu).unwrap();
        assert_eq!(b.to_vec1::<f32>().unwrap(), [2.0]);
        let missing = checkpoint.tensor("c", DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(missing.contains("model.safetensors.index.json: no tensor c"), "{missing}");
    }
}

#[test]
fn indexes_that_lie_are_errors() {
    for (weight_map, reason) in [
        (r#"{"a": "model-3.safetensors"}"#, "no file text_encoder/model-3.safetensors"),
        (r#"{"c": "../outside.safetensors"}"#, "expected a path inside the model"),
        (r#"{"c": "/etc/passwd"}"#, "expected a path inside the model"),
        (r#"{"c": 3}"#, "weight_map"),
        ("[]", "weight_map"),
    ] {
        let error = sharded(weight_map).1.unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains('\n'), "{weight_map}: {error}");
    }
}

#[test]
fn damaged_safetensors_are_told_apart() {
    let good = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
    assert!(Checkpoint::from_data(FileData::owned("model.safetensors", safetensors(good, 8))).is_ok());
    let with = |old: &str, new: &str| safetensors(&good.replace(old, new), 8);
    let long_header = {
        let mut bytes = safetensors(good, 8);
        bytes[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
        bytes
    };
    for (bytes, reason) in [
        (Vec::new(), "the file is empty"),
        (vec![1, 2, 3], "too few for a header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(), "Git LFS pointer"),
        (long_header, "header length"),
        (safetensors(good, 8)[..40].to_vec(), "truncated"),
        (safetensors(good, 7), "truncated: its tensors take 8 bytes, but only 7 are there"),
        (safetensors(good, 9), "its tensors take 8 bytes, but 9 are there"),
        (safetensors("not json", 0), "expected a safetensors header"),
        (safetensors("[]", 0), "a map from tensor names"),
        (with("[2]", "[-2]"), "tensor a: invalid value"),
        (with("[2]", "[3]"), "tensor a: shape [3] of F32 takes 12 bytes, but its data_offsets [0, 8] span 8"),
        (with("[2]", "[9223372036854775807, 16]"), "no whole number of bytes"),
        (with("[0, 8]", "[4, 12]"), "tensor a: its data_offsets are [4, 12]"),
        (with("[0, 8]", "[8, 0]"), "tensor a: its data_offsets are [8, 0]"),
        (
            safetensors(&format!("{}, {}", &good[..good.len() - 1], good[1..].replace("F32", "I32")), 8),
            "tensor a comes twice",
        ),
    ] {
        let error = error_of(bytes);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn types_that_no_model_computes_in_matter_only_when_asked_for() {
    let header = r#"{"ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "quantised": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]},
        "weight": {"dtype": "F64", "shape": [1], "data_offsets": [10, 18]}}"#;
    let checkpoint =
        Checkpoint::from_data(FileData::owned("model.safetensors", safetensors(header, 18))).unwrap();
    let vb = checkpoint.var_builder(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(vb.get(1, "weight").unwrap().to_vec1::<f32>().unwrap(), [0.0]);
    let error = Error::from(vb.get(4, "quantised").unwrap_err()).to_string();
    assert_eq!(
        error,
        "model.safetensors: tensor quantised: its elements are of type F4, which has no conversion"
    );
}

#[test]
fn old_names_of_attention_weights_are_found() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("diffusion_pytorch_model.safetensors");
    save(&file, &[("attentions.0.proj_attn.bias", tensor(7.0, &[1]))]);
    let vb = Checkpoint::from_file(&file).unwrap().var_builder(DType::F32, &Device::Cpu).unwrap();
    let vb = vb.pp("attentions.0.to_out.0");
    assert!(vb.contains_tensor("bias"));
    assert_eq!(vb.get(1, "bias").unwrap().to_vec1::<f32>().unwrap(), [7.0]);
}

#[test]
fn directories_and_missing_files_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("none.safetensors");
    let error = Checkpoint::from_file(&path).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("none.safetensors"));
    assert!(Checkpoint::from_file(folder.path()).unwrap_err().to_string().contains("expected a file"));
}

/// Reading takes little more memory than the tensors that it returns: the pages of the file go as they were read.
#[cfg(target_os = "linux")]
#[test]
fn mapped_pages_are_given_back() {
    const TENSORS: usize = 16;
    const ELEMENTS: usize = 1 << 20;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("model.safetensors");
    let names: Vec<String> = (0..TENSORS).map(|i| format!("layer.{i}")).collect();
    let tensors: Vec<_> = names.iter().map(|name| (name.as_str(), tensor(0.0, &[ELEMENTS]))).collect();
    save(&file, &tensors);
    drop(tensors);

    let checkpoint = Checkpoint::from_file(&file).unwrap();
    for name in checkpoint.names() {
        checkpoint.tensor(name, DType::F16, &Device::Cpu).unwrap();
    }
    let total = (TENSORS * ELEMENTS * 4) as u64;
    let resident = resident_bytes(&file);
    assert!(resident < total / 8, "{resident} of {total} bytes of the file are still in memory");
}

/// How much of the file at `path` is resident in this process through mappings.
#[cfg(target_os = "linux")]
fn resident_bytes(path: &Path) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
    let rss = lines.find_map(|line| line.strip_prefix("Rss:")).expect("the file is mapped");
    rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever a header says, reading it ends, in tensors that fit the file or in an error.
    #[test]
    fn damaged_headers_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let header = r#"{"__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}"#;
        let mut bytes = safetensors(header, 32);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let length = bytes.len();
        if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("model.safetensors", bytes)) {
            for name in checkpoint.names() {
                if let Ok(tensor) = checkpoint.tensor(name, DType::F32, &Device::Cpu) {
                    prop_assert!(tensor.elem_count() <= length);
                }
            }
        }
    }
}

#[test]
fn a_part_is_found_by_other_names() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    save(&file, &[("first.a", tensor(1.0, &[2])), ("second.a", tensor(5.0, &[2]))]);
    let name_in_file = |name: &str| name.strip_prefix("layer.").map(|rest| format!("second.{rest}"));
    let part = Checkpoint::from_file(&file).unwrap().part("second.", name_in_file);
    assert!(part.names().eq(["second.a"]));
    assert!(part.contains("layer.a") && !part.contains("second.a"));
    let vb = part.var_builder(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(vb.pp("layer").get(2, "a").unwrap().to_vec1::<f32>().unwrap(), [5.0, 6.0]);
    // Errors tell the names in the file.
    let error = Error::from(vb.get(2, "layer.b").unwrap_err()).to_string();
    assert!(error.ends_with("no tensor second.b (the nearest name there is second.a)"), "{error}");
    let error = Error::from(vb.get(3, "layer.a").unwrap_err()).to_string();
    assert!(error.starts_with("tensor second.a in "), "{error}");
}

#[test]
fn what_parts_ask_for_is_recorded_by_the_names_in_the_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.safetensors");
    let tensors = [
        ("first.a", tensor(1.0, &[2])),
        ("second.a", tensor(1.0, &[3])),
        ("second.bc", tensor(1.0, &[4, 2])),
        ("second.unused", tensor(1.0, &[1])),
        ("whole", tensor(1.0, &[5])),
    ];
    save(&file, &tensors);
    let survey = Survey::default();
    let all = Checkpoint::from_file(&file).unwrap().surveyed(&survey, "");
    let names = |name: &str| {
        if name == "second.bc" { ["second.b".to_owned(), "second.c".to_owned()].to_vec() } else { Vec::new() }
    };
    let all = all.with_rows_split(names);
    let ask = |prefix: &'static str, name: &str, shape: &[usize]| {
        let part = all.part(prefix, move |name| Some(format!("{prefix}{name}")));
        part.var_builder(DType::F32, &Device::Cpu).unwrap().get(shape, name).unwrap();
    };
    // Both parts have a tensor that is called `a`.
    ask("first.", "a", &[2]);
    ask("second.", "a", &[3]);
    ask("second.", "b", &[2, 2]);
    ask("second.", "c", &[2, 3]);
    ask("second.", "d", &[1]);
    assert_eq!(all.tensor("whole", DType::F32, &Device::Cpu).unwrap().dims(), [5]);
    let reports = survey.reports();
    let report = &reports[0];
    assert_eq!((report.tensors, report.parameters), (5, 19));
    assert_eq!(report.unexpected, ["second.unused"]);
    assert_eq!((report.missing.len(), report.missing[0].name.as_str()), (1, "second.d"));
    assert_eq!(report.misshapen.len(), 1);
    let misshapen = &report.misshapen[0];
    assert_eq!((misshapen.name.as_str(), misshapen.found.as_slice()), ("second.c", &[2, 2][..]));
}
