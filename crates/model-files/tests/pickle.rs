//! Reads files written by torch.save (`scripts/golden/make_pickles.py`), and hostile ones.

mod common;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::values;
use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;
use proptest::prelude::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::from_file(data(name)).unwrap()
}

fn error_of(name: &str) -> String {
    let error = Checkpoint::from_file(data(name)).unwrap_err().to_string();
    assert!(error.contains(name) && !error.contains('\n'), "{error}");
    error
}

/// 0, 1/8, 2/8 …, as the script writes them.
fn counting(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 / 8.0).collect()
}

#[test]
fn both_containers_hold_what_was_saved() {
    for file in ["zip.bin", "legacy.bin"] {
        let checkpoint = open(file);
        for (name, shape) in [
            ("encoder.weight", &[3, 5][..]),
            ("encoder.half", &[7]),
            ("encoder.brain", &[7]),
            ("encoder.double", &[2, 2]),
            ("empty", &[0, 3]),
            ("transposed", &[3, 4]),
            ("permuted", &[2, 3, 4]),
            ("shared.whole", &[4, 6]),
            ("shared.again", &[4, 6]),
            ("parameter", &[2, 3]),
        ] {
            assert_eq!(checkpoint.shape(name), Some(shape), "{file} {name}");
            assert_eq!(values(&checkpoint, name), counting(shape.iter().product()), "{file} {name}");
        }
        assert_eq!(checkpoint.shape("scalar"), Some(&[][..]));
        assert_eq!(values(&checkpoint, "scalar"), [0.125]);
        assert_eq!(values(&checkpoint, "shared.rows"), counting(24)[12..]);
        assert_eq!(values(&checkpoint, "shared.column"), [0.125, 0.875, 1.625, 2.375]);
        assert_eq!(checkpoint.dtype("encoder.brain"), Some(DType::BF16));
        let ids = checkpoint.tensor("embeddings.position_ids", DType::U32, &Device::Cpu).unwrap();
        assert_eq!(ids.to_vec2::<u32>().unwrap(), [[0, 1, 2, 3, 4, 5]]);
    }
}

#[test]
fn pickles_and_safetensors_hold_the_same() {
    let (pickle, safetensors) = (open("zip.bin"), open("same.safetensors"));
    assert!(pickle.names().eq(safetensors.names()));
    for name in pickle.names() {
        assert_eq!(pickle.shape(name), safetensors.shape(name));
        assert_eq!(pickle.dtype(name), safetensors.dtype(name));
        assert_eq!(values(&pickle, name), values(&safetensors, name), "{name}");
    }
}

#[test]
fn weights_are_found_beside_the_state_of_a_training_run() {
    let checkpoint = open("lightning.ckpt");
    assert!(checkpoint.names().eq(["0.bias", "0.weight", "1.bias", "1.weight"]));
    assert_eq!(values(&checkpoint, "0.weight"), counting(6));
}

#[test]
fn nested_dictionaries_are_flattened() {
    assert!(open("nested.bin").names().eq(["text.weight", "vision.inner.weight"]));
}

#[test]
fn a_tensor_may_be_alone() {
    let checkpoint = open("alone.bin");
    assert!(checkpoint.names().eq([""]));
    assert_eq!(checkpoint.shape(""), Some(&[2, 3][..]));
    assert_eq!(values(&checkpoint, ""), counting(6));
}

#[test]
fn nothing_in_a_pickle_is_executed() {
    let error = error_of("malicious.bin");
    assert!(error.contains("posix.system") && error.contains("refused"), "{error}");
    assert!(!Path::new("executed-by-a-pickle").exists());
}

#[test]
fn other_files_are_refused_with_a_reason() {
    for (file, reason) in [
        ("list.bin", "found a list of them, whose layers have no names"),
        ("no_storage.bin", "tensor weight: the archive lacks data/0"),
        ("short_storage.bin", "tensor weight: its storage holds 15 elements of 4 bytes, but has 59 bytes"),
        ("compressed.bin", "data.pkl is compressed"),
        ("plain_pickle.bin", "expected a file that torch.save wrote"),
    ] {
        let error = error_of(file);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_ends() {
    for file in ["one.bin", "legacy.bin"] {
        let bytes = std::fs::read(data(file)).unwrap();
        for length in 0..bytes.len() {
            let cut = FileData::owned("cut.bin", bytes[..length].to_vec());
            assert!(Checkpoint::from_data(cut).is_err(), "{file} with {length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn pickles_fill_models() {
    let vb = open("lightning.ckpt").var_builder(DType::F16, &Device::Cpu).unwrap();
    let weight: Tensor = vb.pp("0").get((2, 3), "weight").unwrap();
    assert_eq!(weight.dtype(), DType::F16);
    assert_eq!(weight.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()[1], [0.375, 0.5, 0.625]);
}

/// The most elements of a tensor that repeats those of its storage.
const MOST_REPEATED: usize = 1 << 26;

/// A change to a file: one that keeps its length, or one that shifts everything after it.
#[derive(Clone, Debug)]
enum Damage {
    Overwrite(prop::sample::Index, Vec<u8>),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Prefer bytes that are operations or lengths.
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b".(}])tuaesbcioldpgISVFL012QRqrhjKMJXNCB\x80\x81\x85\x86\x87\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98\x00\x7f\xff".to_vec()),
    ];
    let bytes = prop::collection::vec(byte, 1..6);
    prop_oneof![
        4 => (any::<prop::sample::Index>(), bytes.clone()).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        1 => (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<prop::sample::Index>(), 1..40usize).prop_map(|(at, count)| Damage::Remove(at, count)),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    match damage {
        Damage::Overwrite(at, new) => {
            let at = at.index(bytes.len());
            for (old, new) in bytes[at..].iter_mut().zip(new) {
                *old = *new;
            }
        }
        Damage::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Remove(at, count) => {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + count);
            bytes.drain(at..end);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is done to a file, reading ends with tensors that fit it, or with an error.
    #[test]
    fn damaged_files_do_no_harm(
        file in prop::sample::select(vec![
            "zip.bin", "legacy.bin", "lightning.ckpt", "one.bin", "compressed.bin", "odd/bystanders5.pt",
            "odd/devices2.pt", "odd/tensors5.pt", "odd/words.pt", "odd/protocol4-old.pt",
        ]),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let mut bytes = std::fs::read(data(file)).unwrap();
        let length = bytes.len();
        damages.iter().for_each(|damage| apply(damage, &mut bytes));
        if let Ok(checkpoint) = Checkpoint::from_data(FileData::owned("damaged.bin", bytes)) {
            for name in checkpoint.names() {
                // A tensor that repeats its storage's elements may be larger, up to a limit.
                let elements: usize = checkpoint.shape(name).unwrap().iter().product();
                prop_assert!(elements <= length.max(MOST_REPEATED));
                if elements <= length {
                    let _ = checkpoint.tensor(name, DType::F32, &Device::Cpu);
                }
            }
        }
    }
}
