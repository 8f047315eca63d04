//! Reads the table of contents of a MindSpore checkpoint: a protobuf message with a value per tensor, each with a tag,
//! dimensions, the name of a type, and bytes (`checkpoint.proto` of MindSpore).
//!
//! A sum over the file may follow, which is not checked. Tensors of more than 512 MB are written in several values, and
//! are not supported.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use super::element::{ElementType, element_count};
use super::stored::{Listing, StoredTensor};

/// The fields of the messages, all of which have a length: `Checkpoint.value`, `Value.tag`, `Value.tensor`.
const VALUE: u64 = 1;
const TAG: u64 = 1;
const TENSOR: u64 = 2;
/// The fields of `TensorProto`.
const DIMENSION: u64 = 1;
const TYPE: u64 = 2;
const CONTENT: u64 = 3;

/// Kinds of fields on the wire.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

/// What may follow the last value: this and ten bytes.
const SUM: &[u8] = b"crc_num";
const SUM_BYTES: usize = 17;
/// The longest name of a tensor, in bytes, and the most dimensions: more than any has.
const LONGEST_NAME: usize = 1024;
const MOST_DIMENSIONS: usize = 8;

/// A tensor as described in the file.
#[derive(Default)]
struct Described {
    dimensions: Vec<u64>,
    kind: Option<Range<usize>>,
    content: Option<Range<usize>>,
}

/// Whether a file begins like such a checkpoint: with a value, whose tag is a name.
pub(super) fn recognises(file: &[u8]) -> bool {
    let is_name = || {
        let mut all = Message { file, at: 0, end: file.len() };
        (all.key()? == (VALUE, LENGTH)).then_some(())?;
        all.varint()?;
        (all.key()? == (TAG, LENGTH)).then_some(())?;
        let length =
            usize::try_from(all.varint()?).ok().filter(|length| (1..=LONGEST_NAME).contains(length))?;
        let name = file.get(all.at..all.at.checked_add(length)?)?;
        name.iter().all(|byte| byte.is_ascii_graphic()).then_some(())?;
        all.take(length)?;
        (all.key()? == (TENSOR, LENGTH)).then_some(())
    };
    is_name().is_some()
}

/// Reads the table of contents, and checks it against the file's length. An error says what is wrong with the file.
pub(super) fn read(file: &[u8]) -> Result<Listing, String> {
    let mut all = Message { file, at: 0, end: file.len() };
    let mut values: BTreeMap<String, Vec<Described>> = BTreeMap::new();
    while all.at < all.end {
        let rest = &file[all.at..];
        if rest.len() == SUM_BYTES && rest.starts_with(SUM) {
            break;
        }
        let start = all.at;
        let Some((VALUE, Field::Bytes(value))) = all.field()? else {
            return Err(format!(
                "expected a value of a MindSpore checkpoint at byte {start}, found something else"
            ));
        };
        let (name, tensor) = read_value(file, &value)?;
        let described = read_tensor(file, &tensor).map_err(|problem| format!("tensor {name}: {problem}"))?;
        values.entry(name).or_default().push(described);
    }
    let mut listing = Listing::default();
    for (name, mut pieces) in values {
        match (pieces.pop(), pieces.len()) {
            (Some(described), 0) => match stored(file, &described) {
                Ok(Ok(tensor)) => listing.tensors.push((name, tensor)),
                Ok(Err(unknown)) => listing.unreadable.push((name, unknown)),
                Err(problem) => return Err(format!("tensor {name}: {problem}")),
            },
            (_, more) => {
                let problem = format!("it is stored in {} parts, expected one", more + 1);
                listing.unreadable.push((name, problem));
            }
        }
    }
    Ok(listing)
}

/// A value's tag, and where its tensor is.
fn read_value(file: &[u8], value: &Range<usize>) -> Result<(String, Range<usize>), String> {
    let mut message = Message { file, at: value.start, end: value.end };
    let (mut name, mut tensor) = (None, None);
    while message.at < message.end {
        match message.field()? {
            Some((TAG, Field::Bytes(range))) => name = Some(range),
            Some((TENSOR, Field::Bytes(range))) => tensor = Some(range),
            _ => {}
        }
    }
    let at = value.start;
    let name = name.ok_or_else(|| format!("expected a name in the value at byte {at}, found none"))?;
    if name.len() > LONGEST_NAME {
        return Err(format!(
            "expected names of at most {LONGEST_NAME} bytes, found one of {} in the value at byte {at}",
            name.len()
        ));
    }
    let name = file.get(name).and_then(|name| str::from_utf8(name).ok());
    let name = name.ok_or_else(|| format!("expected a name in UTF-8 in the value at byte {at}"))?;
    let tensor = tensor.ok_or_else(|| format!("expected a tensor in the value {name:?}, found none"))?;
    Ok((name.to_owned(), tensor))
}

fn read_tensor(file: &[u8], tensor: &Range<usize>) -> Result<Described, String> {
    let mut message = Message { file, at: tensor.start, end: tensor.end };
    let mut described = Described::default();
    while message.at < message.end {
        match message.field()? {
            Some((DIMENSION, Field::Number(number))) => described.dimensions.push(number),
            Some((DIMENSION, Field::Bytes(packed))) => {
                let mut numbers = Message { file, at: packed.start, end: packed.end };
                while numbers.at < numbers.end && described.dimensions.len() <= MOST_DIMENSIONS {
                    described.dimensions.push(numbers.varint().ok_or("its dimensions are cut off")?);
                }
            }
            Some((TYPE, Field::Bytes(range))) => described.kind = Some(range),
            Some((CONTENT, Field::Bytes(range))) => described.content = Some(range),
            _ => {}
        }
        if described.dimensions.len() > MOST_DIMENSIONS {
            return Err(format!("expected at most {MOST_DIMENSIONS} dimensions, found more"));
        }
    }
    Ok(described)
}

/// A tensor in the file. The inner error says why it cannot be read, which concerns only those who ask for it.
fn stored(file: &[u8], described: &Described) -> Result<Result<StoredTensor, String>, String> {
    let content = described.content.clone().ok_or("expected its content, found none")?;
    let kind = described.kind.clone().and_then(|range| str::from_utf8(file.get(range)?).ok());
    let kind = kind.ok_or("expected the name of a type, found none")?;
    let Some(dtype) = dtype(kind) else {
        return Ok(Err(format!("its elements are of type {kind:?}, which is not known")));
    };
    // A scalar has a dimension of 0.
    let shape = match described.dimensions.as_slice() {
        [0] => Some(Vec::new()),
        dimensions => dimensions.iter().map(|size| usize::try_from(*size).ok()).collect(),
    };
    let dtype = ElementType::Plain(dtype);
    let sized = shape.and_then(|shape| Some((dtype.bytes_of(element_count(&shape)?)?, shape)));
    let (size, shape) = sized
        .ok_or_else(|| format!("shape {:?} of {kind} is no whole number of bytes", described.dimensions))?;
    if size != content.len() {
        return Err(format!("shape {shape:?} of {kind} takes {size} bytes, but it has {}", content.len()));
    }
    Ok(Ok(StoredTensor::plain(dtype, shape, content)))
}

/// MindSpore's types.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "Bool" => Dtype::BOOL,
        "Int8" => Dtype::I8,
        "UInt8" => Dtype::U8,
        "Int16" => Dtype::I16,
        "UInt16" => Dtype::U16,
        "Int32" => Dtype::I32,
        "UInt32" => Dtype::U32,
        "Int64" => Dtype::I64,
        "UInt64" => Dtype::U64,
        "Float16" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Float32" => Dtype::F32,
        "Float64" => Dtype::F64,
        _ => return None,
    })
}

/// A protobuf message within the file.
struct Message<'a> {
    file: &'a [u8],
    at: usize,
    end: usize,
}

enum Field {
    Number(u64),
    Bytes(Range<usize>),
}

impl Message<'_> {
    /// The next field; `None` for one of a fixed size, which no field here has.
    fn field(&mut self) -> Result<Option<(u64, Field)>, String> {
        let start = self.at;
        let cut = || format!("the file is truncated or damaged: the field at byte {start} is incomplete");
        let (number, kind) = self.key().ok_or_else(cut)?;
        match kind {
            VARINT => Ok(Some((number, Field::Number(self.varint().ok_or_else(cut)?)))),
            LENGTH => {
                let length = self.varint().and_then(|length| usize::try_from(length).ok());
                let range = self.take(length.ok_or_else(cut)?).ok_or_else(cut)?;
                Ok(Some((number, Field::Bytes(range))))
            }
            FIXED_64 => self.take(8).map(|_| None).ok_or_else(cut),
            FIXED_32 => self.take(4).map(|_| None).ok_or_else(cut),
            found => {
                Err(format!("expected a MindSpore checkpoint, found a field of kind {found} at byte {start}"))
            }
        }
    }

    /// A field's number and kind.
    fn key(&mut self) -> Option<(u64, u64)> {
        let key = self.varint()?;
        Some((key >> 3, key & 7))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = *self.file.get(self.at).filter(|_| self.at < self.end)?;
            self.at += 1;
            number |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end)?;
        let range = self.at..end;
        self.at = end;
        Some(range)
    }
}
