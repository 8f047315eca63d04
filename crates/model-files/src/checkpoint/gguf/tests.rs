//! Tests reading GGUF headers and values.

use super::*;

const NAME: &str = "a.weight";

/// A file in parts, so that each can be made wrong.
#[derive(Clone)]
struct File {
    version: u32,
    metadata: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn value(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), value].concat()
}

fn array(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

fn tensor(name: &str, shape: &[u64], number: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
    bytes.extend(number.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

impl File {
    /// One tensor (2, 32) of q8_0.
    fn good() -> Self {
        let tensors = vec![tensor(NAME, &[32, 2], 8, 0)];
        Self { version: 3, metadata: Vec::new(), tensors, data: 68 }
    }

    fn of_tensors(tensors: &[Vec<u8>], data: usize) -> Self {
        Self { tensors: tensors.to_vec(), data, ..Self::good() }
    }

    fn of_metadata(metadata: &[Vec<u8>]) -> Self {
        Self { metadata: metadata.to_vec(), ..Self::good() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &self.version.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        bytes.extend(self.metadata.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT) + self.data, 0);
        bytes
    }

    fn read(&self) -> Result<Vec<(String, StoredTensor)>, String> {
        read(&self.bytes()).map(|listing| listing.tensors)
    }
}

#[track_caller]
fn refused(file: &File, expected: &str) {
    let error = file.read().unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn types_have_one_number() {
    for number in 0..64 {
        if let Some(element) = element_type(number) {
            assert_eq!(type_number(element), Some(number));
        }
    }
    assert_eq!(element_type(8), Some(ElementType::Quantized(BlockType::Q8_0)));
    assert_eq!(element_type(31), None);
}

#[test]
fn rows_come_last_in_a_shape() {
    let stored = File::good().read().unwrap();
    let (name, tensor) = &stored[0];
    assert_eq!((name.as_str(), tensor.shape.as_slice(), tensor.bytes.len()), (NAME, &[2, 32][..], 68));
    assert!(File { version: 2, ..File::good() }.read().is_ok());
}

#[test]
fn a_shape_of_its_own_is_beside_it() {
    let shape = |sizes: &[u32]| {
        let values: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let key = format!("{SHAPE_KEY}{NAME}");
        File::of_metadata(&[value(&key, value::ARRAY, &array(value::INT32, sizes.len() as u64, &values))])
    };
    assert_eq!(shape(&[2, 4, 4, 2]).read().unwrap()[0].1.shape, [2, 4, 4, 2]);
    refused(&shape(&[2, 4, 4, 3]), "is no shape of [2, 32]");
    refused(&shape(&[2, u32::MAX]), "expected an array");
    refused(&shape(&[1; 9]), "at most 8 sizes");
}

#[test]
fn metadata_are_gone_over() {
    let nothing = array(0, 0, &[]);
    let nested = (0..DEEPEST_ARRAY).fold(nothing, |inner, _| array(value::ARRAY, 1, &inner));
    let texts = File::of_metadata(&[
        value("a.flag", 7, &[1]),
        value("a.text", value::STRING, &string("猫")),
        value("a.texts", value::ARRAY, &array(value::STRING, 2, &[string("x"), string("")].concat())),
        value("a.numbers", value::ARRAY, &array(12, 2, &[0; 16])),
        value(ALIGNMENT_KEY, value::UINT32, &64u32.to_le_bytes()),
    ]);
    let mut bytes = texts.bytes();
    bytes.resize(bytes.len() + 64, 0);
    assert!(read(&bytes).is_ok());
    assert_eq!(metadata(&bytes), BTreeMap::from([("a.text".to_owned(), "猫".to_owned())]));

    refused(&File::of_metadata(&[value("a", value::ARRAY, &nested)]), "4 deep");
    refused(&File::of_metadata(&[value("a", 13, &[])]), "is of type 13");
    let endless = |kind| File::of_metadata(&[value("a", value::ARRAY, &array(kind, u64::MAX, &[]))]);
    for kind in [0, 12, value::STRING, value::ARRAY] {
        assert!(endless(kind).read().is_err(), "{kind}");
    }
    let long = u64::MAX.to_le_bytes();
    refused(&File::of_metadata(&[value("a", value::STRING, &long)]), "truncated");
    let name = "a".repeat(LONGEST_NAME + 1);
    refused(&File::of_metadata(&[value(&name, 0, &[0])]), "65535 are allowed");
    for alignment in [0u32, 4, 12, 1 << 30] {
        let bytes = alignment.to_le_bytes();
        refused(&File::of_metadata(&[value(ALIGNMENT_KEY, value::UINT32, &bytes)]), "a multiple of 8");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = File::of_metadata(&[value("a.text", value::STRING, &string("abc"))]).bytes();
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{length}");
    }
    assert!(read(&bytes).is_ok());
}

#[test]
fn tensors_that_cannot_be_are_named() {
    let one = |shape: &[u64], number, offset| File::of_tensors(&[tensor(NAME, shape, number, offset)], 4096);
    refused(&one(&[31, 2], 8, 0), "tensor a.weight: shape [2, 31] of q8_0 is no whole number of bytes");
    // Half a block per row, though not in total.
    refused(&one(&[16, 2], 8, 0), "no whole number of bytes");
    refused(&one(&[32, 1 << 40, 1 << 40], 0, 0), "no whole number of bytes");
    refused(&one(&[u64::MAX], 0, 0), "no whole number of bytes");
    refused(&one(&[1; 5], 0, 0), "has 5 dimensions");
    refused(&one(&[32], 0, 8), "begins at 8");
    refused(&one(&[32], 0, 1 << 20), "the file is truncated: tensor a.weight takes 128 bytes");
    refused(&one(&[32], 0, u64::MAX - 31), "the file is truncated");
    let two = |offset| File::of_tensors(&[tensor("a", &[32], 0, 0), tensor("b", &[32], 0, offset)], 4096);
    assert!(two(128).read().is_ok() && two(256).read().is_ok());
    refused(&two(96), "tensor b: begins at 96");
    let same = File::of_tensors(&[tensor("a", &[8], 0, 0), tensor("a", &[8], 0, 32)], 4096);
    refused(&same, "tensor a comes twice");
}

#[test]
fn types_that_are_not_read_matter_to_their_tensors_only() {
    // Another program's i2_s, beside a readable tensor.
    let tensors = [tensor("odd", &[32], 36, 0), tensor(NAME, &[8], 0, 32)];
    let listing = read(&File::of_tensors(&tensors, 64).bytes()).unwrap();
    assert_eq!(listing.tensors[0].0, NAME);
    let [(name, problem)] = listing.unreadable.as_slice() else { panic!("{:?}", listing.unreadable) };
    assert!(name == "odd" && problem.contains("ggml's type 36"), "{name}: {problem}");
}

#[test]
fn other_files_are_told() {
    refused(&File { version: 1, ..File::good() }, "GGUF of version 1, expected 2 or 3");
    refused(&File { version: 3u32.swap_bytes(), ..File::good() }, "version 3, big-endian");
    assert!(read(b"GGUX").unwrap_err().contains("expected a GGUF file"));
    // A count without tensors must not allocate memory.
    let mut bytes = File::good().bytes();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(read(&bytes).is_err());
}
