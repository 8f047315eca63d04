//! Reads checkpoints that MindSpore wrote, and damaged ones.

mod common;

use candle_core::{DType, Device};
use common::values;
use model_files::checkpoint::Checkpoint;
use model_files::source::FileData;
use test_support::golden;

fn bytes() -> Vec<u8> {
    std::fs::read(golden("mindspore/kinds.ckpt")).unwrap()
}

fn open(bytes: Vec<u8>) -> model_files::Result<Checkpoint> {
    Checkpoint::from_data(FileData::owned("kinds.ckpt", bytes))
}

#[test]
fn every_type_of_number_is_read() {
    let checkpoint = open(bytes()).unwrap();
    let reference = Checkpoint::from_file(golden("mindspore/kinds.safetensors")).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), reference.names().collect::<Vec<_>>());
    for name in reference.names() {
        assert_eq!(checkpoint.shape(name), reference.shape(name), "{name}");
        assert_eq!(values(&checkpoint, name), values(&reference, name), "{name}");
    }
}

/// A file cut anywhere is an error that says so, or has fewer tensors: those that are whole are right.
#[test]
fn a_file_cut_anywhere_is_an_error_or_reads_what_is_whole() {
    let (whole, checkpoint) = (bytes(), open(bytes()).unwrap());
    let mut reported = 0;
    for length in 0..whole.len() {
        match open(whole[..length].to_vec()) {
            Ok(part) => {
                assert!(part.names().len() <= checkpoint.names().len());
                for name in part.names() {
                    assert_eq!(values(&part, name), values(&checkpoint, name), "{name}, cut at {length}");
                }
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with("kinds.ckpt: ") && !message.contains('\n'), "{message}");
                reported += usize::from(message.contains("truncated or damaged"));
            }
        }
    }
    assert!(reported > whole.len() / 2, "{reported} of {}", whole.len());
}

#[test]
fn a_changed_byte_never_reads_outside_the_file() {
    let whole = bytes();
    for place in 0..whole.len() {
        for change in [1, 0x80, 0xFF] {
            let mut changed = whole.clone();
            changed[place] ^= change;
            if let Ok(checkpoint) = open(changed) {
                for name in checkpoint.names() {
                    let tensor = checkpoint.tensor(name, DType::F32, &Device::Cpu);
                    assert!(tensor.is_ok_and(|tensor| tensor.elem_count() <= whole.len()), "{name}");
                }
            }
        }
    }
}

/// A message with a value: a tag, and a tensor with dimensions, a type and bytes.
fn value(tag: &str, dimensions: &[u8], kind: &str, content: &[u8]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let dimensions: Vec<u8> = dimensions.iter().flat_map(|size| [8, *size]).collect();
    let tensor = [dimensions, field(2, kind.as_bytes()), field(3, content)].concat();
    field(1, &[field(1, tag.as_bytes()), field(2, &tensor)].concat())
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |bytes: Vec<u8>| open(bytes).map(drop).unwrap_err().to_string();
    assert_eq!(open(value("a", &[2], "Float32", &[0; 8])).unwrap().shape("a"), Some(&[2][..]));
    let message = error(value("a.b", &[3], "Float32", &[0; 8]));
    assert!(message.contains("tensor a.b: shape [3] of Float32 takes 12 bytes, but it has 8"), "{message}");
    let message = error(value("a", &[1; 9], "Float32", &[0; 4]));
    assert!(message.contains("at most 8 dimensions"), "{message}");
    // What cannot be read is an error only for those who ask for it.
    let unknown =
        open([value("a", &[2], "Float32", &[0; 8]), value("s", &[1], "str", b"x")].concat()).unwrap();
    assert_eq!(unknown.names().collect::<Vec<_>>(), ["a"]);
    let problem = unknown.tensor("s", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(problem.contains(r#"type "str""#), "{problem}");
    let parts = open([value("a", &[4], "Float32", &[0; 8]), value("a", &[4], "Float32", &[0; 8])].concat());
    let problem = parts.unwrap().tensor("a", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(problem.contains("stored in 2 parts, expected one"), "{problem}");
}
