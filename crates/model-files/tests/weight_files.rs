//! Tests files that are not what their names say, and safetensors that are odd but valid.

mod common;

use std::fs;

use candle_core::{DType, Device};
use common::{safetensors, values};
use model_files::checkpoint::Checkpoint;
use model_files::source::{FileData, ModelSource};
use tempfile::TempDir;

fn open(name: &str, bytes: &[u8]) -> Result<Checkpoint, String> {
    Checkpoint::from_data(FileData::owned(name, bytes.to_vec())).map_err(|error| error.to_string())
}

const ONE: &str = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;

/// `fields` before the tensors of [`ONE`].
fn with(fields: &str) -> Vec<u8> {
    safetensors(&format!("{{{fields}, {}", &ONE[1..]), 8)
}

#[test]
fn files_are_recognised_by_their_content() {
    let data = |name: &str| fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for (bytes, tensor) in [
        (data("one.bin"), "weight"),
        (data("odd/protocol4-old.pt"), "weight"),
        (data("same.safetensors"), "empty"),
        (safetensors(ONE, 8), "a"),
    ] {
        for name in
            ["model.safetensors", "model.bin", "model.ckpt", "model.pt", "model.pth", "model.gguf", "model"]
        {
            let checkpoint = open(name, &bytes).unwrap_or_else(|error| panic!("{tensor}: {error}"));
            assert!(checkpoint.contains(tensor), "{name}");
        }
    }
}

#[test]
fn downloads_that_went_wrong_are_told_in_a_line() {
    for (bytes, reason) in [
        (&b""[..], "the file is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "is a Git LFS pointer: the weights were not downloaded; run git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html lang=\"en\">", "is a web page, not weights"),
        (b"\n  <html><head>", "is a web page, not weights"),
        (b"Entry not found", "is text, not weights: it begins with \"Entry not found\""),
        (b"{\"error\":\"Repository not found\"}\n", "is text, not weights: it begins with"),
        ("找不到".as_bytes(), "is text, not weights"),
        (b"\x1f\x8b\x08\0\0\0", "is a gzip archive, expected weights: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "is a 7z archive"),
        (b"Rar!\x1a\x07\x01\0", "is a RAR archive"),
        (b"\x28\xb5\x2f\xfd\0\0", "is packed by zstd"),
    ] {
        for name in ["model.safetensors", "pytorch_model.bin", "model.gguf"] {
            let error = open(name, bytes).unwrap_err();
            assert!(error.starts_with(name) && error.contains(reason) && !error.contains('\n'), "{error}");
        }
    }
    let mut tar = vec![1; 600];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(open("old.pt", &tar).unwrap_err().contains("tar archive"));
}

#[test]
fn metadata_of_any_kind_is_passed_over() {
    for metadata in ["null", "{}", "[]", "3", r#""text""#, r#"{"a": {"b": [1, null]}}"#] {
        let checkpoint = open("model.safetensors", &with(&format!("\"__metadata__\": {metadata}"))).unwrap();
        assert!(checkpoint.names().eq(["a"]), "{metadata}");
        checkpoint.metadata();
    }
    let fields = r#""__metadata__": {"format": "pt", "step": 3, "tags": ["a"], "none": null}"#;
    let metadata = open("model.safetensors", &with(fields)).unwrap().metadata();
    let found: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(found, [("format", "pt"), ("none", "null"), ("step", "3"), ("tags", "[\"a\"]")]);
}

#[test]
fn types_that_are_not_known_matter_to_their_tensors_only() {
    for dtype in ["F33", "F8_E3M4", "I4", "U128"] {
        let other = format!(r#""odd": {{"dtype": "{dtype}", "shape": [5], "data_offsets": [8, 11]}}"#);
        let header = format!("{{{other}, {}", &ONE[1..]);
        let checkpoint = open("model.safetensors", &safetensors(&header, 11)).unwrap();
        assert_eq!(values(&checkpoint, "a"), [0., 0.]);
        assert!(checkpoint.names().eq(["a"]) && checkpoint.contains("odd"));
        let vb = checkpoint.var_builder(DType::F32, &Device::Cpu).unwrap();
        assert!(vb.contains_tensor("odd"));
        let error = model_files::Error::from(vb.get(5, "odd").unwrap_err()).to_string();
        let reason =
            format!("model.safetensors: tensor odd: its elements are of type {dtype}, which is not known");
        assert_eq!(error, reason);
    }
}

#[test]
fn every_type_of_the_format_can_stand_beside_the_weights() {
    for (dtype, bits) in [
        ("BOOL", 8),
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
        ("U8", 8),
        ("I8", 8),
        ("F8_E5M2", 8),
        ("F8_E4M3", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("I16", 16),
        ("U16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("I32", 32),
        ("U32", 32),
        ("F32", 32),
        ("C64", 64),
        ("F64", 64),
        ("I64", 64),
        ("U64", 64),
    ] {
        let end = 8 + bits;
        let other = format!(r#""x": {{"dtype": "{dtype}", "shape": [2, 4], "data_offsets": [8, {end}]}}"#);
        let checkpoint =
            open("m.safetensors", &safetensors(&format!("{{{other}, {}", &ONE[1..]), bits + 8)).unwrap();
        assert_eq!(values(&checkpoint, "a"), [0., 0.]);
        let read = checkpoint.tensor("x", DType::F32, &Device::Cpu);
        match dtype {
            "F4" | "F6_E2M3" | "F6_E3M2" | "C64" => {
                assert!(read.unwrap_err().to_string().contains(&format!("of type {dtype}, which has no")));
            }
            _ => assert_eq!(read.unwrap().dims(), [2, 4], "{dtype}"),
        }
    }
}

#[test]
fn odd_shapes_and_orders_are_whole() {
    let header = r#"{"z": {"dtype": "F32", "shape": [], "data_offsets": [0, 4], "note": "unknown fields are nothing"},
        "empty": {"dtype": "F32", "shape": [0, 1000000], "data_offsets": [4, 4]},
        "none": {"dtype": "BF16", "shape": [0], "data_offsets": [8, 8]},
        "b": {"data_offsets": [4, 8], "shape": [1, 1], "dtype": "F32"},
        "b": {"data_offsets": [4, 8], "shape": [1, 1], "dtype": "F32"}}   "#;
    let checkpoint = open("m.safetensors", &safetensors(header, 8)).unwrap();
    assert!(checkpoint.names().eq(["b", "empty", "none", "z"]));
    assert_eq!((values(&checkpoint, "z"), checkpoint.shape("z")), (vec![0.], Some(&[][..])));
    assert_eq!(checkpoint.shape("b"), Some(&[1, 1][..]));
    assert_eq!(checkpoint.tensor("empty", DType::F32, &Device::Cpu).unwrap().dims(), [0, 1_000_000]);
    assert!(open("model.bin", &safetensors(&format!("  {ONE}"), 8)).is_ok());
}

/// Python's safetensors library rejects these as well.
#[test]
fn headers_that_the_format_forbids_are_errors() {
    for (header, data, reason) in [
        (r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#, 8, "data_offsets are [4, 8]"),
        (r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#, 8, "its tensors take 4 bytes"),
        (
            r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}"#,
            3,
            "data_offsets are [1, 3]",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}"#,
            4,
            "no whole number",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [0, 1099511627776, 1099511627776], "data_offsets": [0, 0]}}"#,
            0,
            "no whole",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [0, 18446744073709551615], "data_offsets": [0, 0]}}"#,
            0,
            "no whole",
        ),
        ("{}\0\0", 0, "trailing characters"),
        ("\u{feff}{}", 0, "expected a safetensors header"),
        (r#"{"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}"#, 1, "no whole number"),
        (r#"{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}"#, 4, "tensor a"),
        (r#"{"a": {"shape": [1], "data_offsets": [0, 4]}}"#, 4, "missing field `dtype`"),
        (r#"{"a": 3}"#, 0, "tensor a"),
        ("{} x", 0, "trailing characters"),
    ] {
        let error = open("m.safetensors", &safetensors(header, data)).unwrap_err();
        assert!(error.contains(reason) && !error.contains('\n'), "{header}: {error}");
    }
}

/// An index and its shards in a folder, and their checkpoint.
fn sharded(folder: &TempDir, index: &str, shards: &[&str]) -> Result<Checkpoint, String> {
    for shard in shards {
        let path = folder.path().join(shard);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, safetensors(ONE, 8)).unwrap();
    }
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    Checkpoint::open(&ModelSource::directory(folder.path()), "").map_err(|error| error.to_string())
}

#[test]
fn odd_indexes_are_read() {
    for (index, shard) in [
        (r#"{"weight_map": {"a": "one.safetensors"}}"#, "one.safetensors"),
        (r#"{"metadata": null, "weight_map": {"a": "one.safetensors"}, "other": [1]}"#, "one.safetensors"),
        (
            r#"{"metadata": {"total_size": 1e300, "x": {}}, "weight_map": {"a": "deep/er/one.safetensors"}}"#,
            "deep/er/one.safetensors",
        ),
        (r#"{"weight_map": {"a": "./one.safetensors"}}"#, "one.safetensors"),
    ] {
        let folder = TempDir::new().unwrap();
        let checkpoint = sharded(&folder, index, &[shard]).unwrap();
        assert_eq!(values(&checkpoint, "a"), [0., 0.], "{index}");
    }
}

#[test]
fn a_tensor_that_its_shard_lacks_matters_to_whoever_asks_for_it() {
    let folder = TempDir::new().unwrap();
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}"#;
    let checkpoint = sharded(&folder, index, &["one.safetensors"]).unwrap();
    assert_eq!(values(&checkpoint, "a"), [0., 0.]);
    let error = checkpoint.tensor("b", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(
        error.contains("tensor b: should be in one.safetensors by the weight_map, but is not there"),
        "{error}"
    );
}
