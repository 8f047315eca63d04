//! Reads the table of contents of a GGUF file, the format of llama.cpp, stable-diffusion.cpp and others for quantized
//! weights: counts, metadata, and each tensor's name, shape, type and offset
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! ggml's shapes start with the length of a row, which quantization blocks must divide: a kernel of 3 × 3 is not a
//! whole block. Tensors stored in another shape therefore have their own in the metadata, as in ComfyUI-GGUF.

use std::collections::{BTreeMap, HashMap, HashSet};

use fused_ops::BlockType;
use safetensors::Dtype;

use super::element::{ElementType, element_count};
use super::stored::{Listing, StoredTensor};

pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// The version written. Version 2 differs only in never being big-endian; version 1 was soon abandoned.
pub(super) const VERSION: u32 = 3;
/// The alignment of tensors, unless the metadata has another.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// The prefix of a metadata key for a tensor's own shape, followed by its name.
pub(super) const SHAPE_KEY: &str = "comfy.gguf.orig_shape.";

/// The longest table of contents, as in safetensors. A language model's, with its vocabulary, is a tenth of that.
const LONGEST_TABLE: usize = 100_000_000;
/// The longest name of a tensor or key; the specification's limit for keys.
const LONGEST_NAME: usize = 65_535;
/// ggml's limit for a tensor's dimensions.
pub(super) const MOST_DIMENSIONS: usize = 4;
/// The limit for the dimensions of a shape in the metadata.
const MOST_SHAPE_DIMENSIONS: usize = 8;
/// The limit for nested arrays, which no writer produces.
const DEEPEST_ARRAY: usize = 4;
/// The largest plausible alignment.
const LARGEST_ALIGNMENT: usize = 1 << 20;

/// The numbers of metadata value types.
pub(super) mod value {
    pub(crate) const UINT32: u32 = 4;
    pub(crate) const INT32: u32 = 5;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
}

/// ggml's number of an element type, if it has one.
pub(super) fn type_number(element: ElementType) -> Option<u32> {
    Some(match element {
        ElementType::Plain(Dtype::F32) => 0,
        ElementType::Plain(Dtype::F16) => 1,
        ElementType::Plain(Dtype::I8) => 24,
        ElementType::Plain(Dtype::I16) => 25,
        ElementType::Plain(Dtype::I32) => 26,
        ElementType::Plain(Dtype::I64) => 27,
        ElementType::Plain(Dtype::F64) => 28,
        ElementType::Plain(Dtype::BF16) => 30,
        ElementType::Plain(_) => return None,
        ElementType::Quantized(kind) => match kind {
            BlockType::Q4_0 => 2,
            BlockType::Q4_1 => 3,
            BlockType::Q5_0 => 6,
            BlockType::Q5_1 => 7,
            BlockType::Q8_0 => 8,
            BlockType::Q2K => 10,
            BlockType::Q3K => 11,
            BlockType::Q4K => 12,
            BlockType::Q5K => 13,
            BlockType::Q6K => 14,
        },
    })
}

/// The element type with a number.
fn element_type(number: u32) -> Option<ElementType> {
    const PLAIN: [Dtype; 8] =
        [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64, Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64];
    let plain = PLAIN.into_iter().map(ElementType::Plain);
    let mut all = plain.chain(BlockType::ALL.into_iter().map(ElementType::Quantized));
    all.find(|element| type_number(*element) == Some(number))
}

/// Reads the table of contents, and checks it against the file's length. An error says what is wrong with the file.
pub(super) fn read(file: &[u8]) -> Result<Listing, String> {
    let mut reader = TableReader::new(file)?;
    let (tensors, values) = (reader.u64("the number of tensors")?, reader.u64("the number of metadata")?);
    let mut alignment = DEFAULT_ALIGNMENT;
    let mut shapes = HashMap::new();
    for _ in 0..values {
        let key = reader.name("a key of the metadata")?;
        let kind = reader.u32("a type of metadata")?;
        if key == ALIGNMENT_KEY && kind == value::UINT32 {
            alignment = reader.u32(ALIGNMENT_KEY)? as usize;
            if !alignment.is_multiple_of(8) || !(8..=LARGEST_ALIGNMENT).contains(&alignment) {
                return Err(format!("{ALIGNMENT_KEY} is {alignment}, expected a multiple of 8"));
            }
        } else if let Some(name) = key.strip_prefix(SHAPE_KEY) {
            shapes.insert(name, reader.shape(key, kind)?);
        } else {
            reader.skip(kind, 0)?;
        }
    }

    let mut listing = Listing::default();
    let mut places = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..tensors {
        let name = reader.name("a tensor's name")?;
        if !names.insert(name) {
            return Err(format!("tensor {name} comes twice"));
        }
        match reader.tensor(name)? {
            Ok(place) => places.push((name, place)),
            Err(problem) => listing.unreadable.push((name.to_owned(), problem)),
        }
    }
    let data_start = reader.at.next_multiple_of(alignment);

    places.sort_by_key(|(_, place)| place.offset);
    let mut end = 0;
    for (name, Place { mut shape, dtype, size, offset }) in places {
        let start = usize::try_from(offset).ok().and_then(|offset| data_start.checked_add(offset));
        let bytes = start.and_then(|start| Some(start..start.checked_add(size)?));
        let Some(bytes) = bytes.filter(|bytes| bytes.end <= file.len()) else {
            return Err(format!(
                "the file is truncated: tensor {name} takes {size} bytes from {offset} on, but the file ends after {}",
                file.len().saturating_sub(data_start)
            ));
        };
        if !offset.is_multiple_of(alignment as u64) || bytes.start < end {
            return Err(format!(
                "tensor {name}: begins at {offset}, expected a multiple of {alignment} behind the tensor before it"
            ));
        }
        end = bytes.end;
        if let Some(own) = shapes.remove(name) {
            if element_count(&own) != element_count(&shape) {
                return Err(format!("tensor {name}: {own:?} in the metadata is no shape of {shape:?}"));
            }
            shape = own;
        }
        listing.tensors.push((name.to_owned(), StoredTensor::plain(dtype, shape, bytes)));
    }
    Ok(listing)
}

/// The strings in the file's metadata. The table must have been validated.
pub(super) fn metadata(file: &[u8]) -> BTreeMap<String, String> {
    fn read(file: &[u8], found: &mut BTreeMap<String, String>) -> Result<(), String> {
        let mut reader = TableReader::new(file)?;
        let (_, values) = (reader.u64("the number of tensors")?, reader.u64("the number of metadata")?);
        for _ in 0..values {
            let key = reader.name("a key of the metadata")?;
            match reader.u32("a type of metadata")? {
                value::STRING => {
                    found.insert(key.to_owned(), reader.string(key)?.to_owned());
                }
                kind => reader.skip(kind, 0)?,
            }
        }
        Ok(())
    }

    let mut found = BTreeMap::new();
    match read(file, &mut found) {
        Ok(()) => found,
        Err(_) => BTreeMap::new(),
    }
}

/// A tensor's entry in the table.
struct Place {
    shape: Vec<usize>,
    dtype: ElementType,
    /// In bytes.
    size: usize,
    /// From the start of the data.
    offset: u64,
}

/// Reads the table sequentially. A length is trusted only once that many bytes were found.
struct TableReader<'a> {
    table: &'a [u8],
    at: usize,
}

impl<'a> TableReader<'a> {
    /// Reads the header.
    fn new(file: &'a [u8]) -> Result<Self, String> {
        let table = &file[..file.len().min(LONGEST_TABLE)];
        let mut reader = Self { table, at: 0 };
        if reader.bytes(MAGIC.len(), "the format").ok() != Some(MAGIC) {
            return Err("expected a GGUF file, found something else".to_owned());
        }
        match reader.u32("the version")? {
            2 | VERSION => Ok(reader),
            version => Err(format!(
                "GGUF of version {}{}, expected 2 or 3",
                version.min(version.swap_bytes()),
                if version.swap_bytes() < version { ", big-endian" } else { "" }
            )),
        }
    }

    fn bytes(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let rest = &self.table[self.at..];
        match rest.get(..count) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None if self.table.len() == LONGEST_TABLE => {
                Err(format!("the table of contents takes more than {LONGEST_TABLE} bytes"))
            }
            None => Err(format!(
                "the file is truncated: {what} takes {count} bytes, but only {} follow",
                rest.len()
            )),
        }
    }

    fn number<const WIDTH: usize>(&mut self, what: &str) -> Result<[u8; WIDTH], String> {
        let bytes = self.bytes(WIDTH, what)?;
        bytes.try_into().map_err(|_| format!("{what}: expected {WIDTH} bytes"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.number(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.number(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &str) -> Result<&'a str, String> {
        let length = self.u64(what)?;
        let bytes = self.bytes(usize::try_from(length).unwrap_or(usize::MAX), what)?;
        str::from_utf8(bytes).map_err(|_| format!("{what} is no UTF-8"))
    }

    fn name(&mut self, what: &str) -> Result<&'a str, String> {
        let name = self.string(what)?;
        if name.len() > LONGEST_NAME {
            return Err(format!("{what} is {} bytes long, where {LONGEST_NAME} are allowed", name.len()));
        }
        Ok(name)
    }

    /// Skips a metadata value, at this depth of arrays.
    fn skip(&mut self, kind: u32, depth: usize) -> Result<(), String> {
        const WHAT: &str = "a value of the metadata";
        if let Some(size) = value_size(kind) {
            self.bytes(size, WHAT)?;
            return Ok(());
        }
        match kind {
            value::STRING => self.string(WHAT).map(|_| ()),
            value::ARRAY if depth < DEEPEST_ARRAY => {
                let (kind, count) = (self.u32(WHAT)?, self.u64(WHAT)?);
                if let Some(size) = value_size(kind) {
                    let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
                    self.bytes(bytes.unwrap_or(usize::MAX), WHAT)?;
                    return Ok(());
                }
                // Each element takes some bytes, so the file ends before a false count does.
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))
            }
            value::ARRAY => Err(format!("arrays are {DEEPEST_ARRAY} deep in the metadata")),
            _ => Err(format!("{WHAT} is of type {kind}, which GGUF does not have")),
        }
    }

    /// Reads a shape in the metadata.
    fn shape(&mut self, key: &str, kind: u32) -> Result<Vec<usize>, String> {
        let problem = || format!("{key}: expected an array of at most {MOST_SHAPE_DIMENSIONS} sizes");
        if kind != value::ARRAY {
            return Err(problem());
        }
        let (kind, count) = (self.u32(key)?, self.u64(key)?);
        if !matches!(kind, value::INT32 | value::UINT32) || count > MOST_SHAPE_DIMENSIONS as u64 {
            return Err(problem());
        }
        let size = |size: u32| usize::try_from(size).ok().filter(|_| size <= i32::MAX as u32);
        (0..count).map(|_| size(self.u32(key)?).ok_or_else(problem)).collect()
    }

    /// Reads the rest of a tensor's entry; the inner error says why the tensor cannot be read, if only its type is
    /// unsupported.
    fn tensor(&mut self, name: &str) -> Result<Result<Place, String>, String> {
        let what = format!("tensor {name}");
        let dimensions = self.u32(&what)? as usize;
        if dimensions > MOST_DIMENSIONS {
            return Err(format!("{what}: has {dimensions} dimensions, where {MOST_DIMENSIONS} are allowed"));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            let size = self.u64(&what)?;
            shape.push(usize::try_from(size).map_err(|_| format!("{what}: a side of {size}"))?);
        }
        // ggml puts the row length first.
        let row = shape.first().copied().unwrap_or(1);
        shape.reverse();
        let (number, offset) = (self.u32(&what)?, self.u64(&what)?);
        let Some(dtype) = element_type(number) else {
            return Ok(Err(format!(
                "its numbers are of ggml's type {number}, which cannot be read (q4_0 to q8_0 and q2_k to q6_k can)"
            )));
        };
        let size = dtype
            .bytes_of(row)
            .and_then(|_| dtype.bytes_of(element_count(&shape)?))
            .ok_or_else(|| format!("{what}: shape {shape:?} of {dtype} is no whole number of bytes"))?;
        Ok(Ok(Place { shape, dtype, size, offset }))
    }
}

/// The size of a metadata value type, if it is fixed.
fn value_size(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        value::UINT32 | value::INT32 | 6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
