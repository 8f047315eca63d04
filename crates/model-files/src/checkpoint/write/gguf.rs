//! Writes GGUF: counts, metadata and the table of tensors, then their data in order of name
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use safetensors::Dtype;

use super::plan::{NumberType, Plan, TensorToWrite, plan};
use crate::checkpoint::element::{ElementType, element_count};
use crate::checkpoint::gguf::{
    DEFAULT_ALIGNMENT, MAGIC, MOST_DIMENSIONS, SHAPE_KEY, VERSION, type_number, value,
};
use crate::error::{Error, Result};

/// The architecture, a required key.
const ARCHITECTURE_KEY: &str = "general.architecture";
/// The version of the quantized types, required if there are any.
const QUANTIZATION_KEY: &str = "general.quantization_version";
const QUANTIZATION_VERSION: u32 = 2;

/// Writes tensors as a GGUF file of this `architecture`, with strings as `metadata`. `file` is used in errors. The
/// same tensors give the same bytes, since they are ordered by name.
///
/// A quantized tensor is written as a matrix (first dimension, the rest), with blocks along its rows; its own shape
/// goes into the metadata, as `comfy.gguf.orig_shape.` and its name. The format has no float8, which is written as
/// f16 without loss.
///
/// `before_each` gets the number of tensors done, and can end the work with an error.
///
/// # Errors
/// If a tensor is missing, has another number of elements, cannot be converted, overflows the new type, has rows that
/// are not a multiple of the block size, or has a type that GGUF lacks; if two have the same name; or if the file
/// cannot be written.
pub fn write_gguf<E: From<Error>>(
    to: &mut impl Write,
    file: &str,
    architecture: &str,
    tensors: &[TensorToWrite],
    metadata: &BTreeMap<String, String>,
    mut before_each: impl FnMut(usize) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if let Some(int8) = tensors.iter().find(|tensor| tensor.dtype == Some(NumberType::Int8)) {
        let problem = format!(
            "tensor {}: GGUF holds no int8 with a scale for each row, expected safetensors",
            int8.name
        );
        return Err(Error::format(file, problem).into());
    }
    let mut planned = plan(file, tensors)?;
    // The format has no 8-bit floating-point types. f16 holds their values, except the powers of two of E8M0.
    for planned in planned.values_mut().filter(|planned| planned.dtype.is_float8()) {
        let is_power = planned.dtype == ElementType::Plain(Dtype::F8_E8M0);
        planned.dtype = if is_power { NumberType::F32 } else { NumberType::F16 }.element();
    }
    let mut table = table(file, architecture, &planned, metadata)?;
    pad(&mut table);
    to.write_all(&table).map_err(Error::io(file))?;
    for (done, planned) in planned.values().enumerate() {
        before_each(done)?;
        planned.write(to, file)?;
        let size = planned.size(file)?;
        let padding = vec![0; size.next_multiple_of(DEFAULT_ALIGNMENT) - size];
        to.write_all(&padding).map_err(Error::io(file))?;
    }
    Ok(())
}

fn table(
    file: &str,
    architecture: &str,
    planned: &Plan,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut values = vec![text_value(ARCHITECTURE_KEY, architecture)];
    if planned.values().any(|planned| matches!(planned.dtype, ElementType::Quantized(_))) {
        values.push(key_value(QUANTIZATION_KEY, value::UINT32, &QUANTIZATION_VERSION.to_le_bytes()));
    }
    values.extend(metadata.iter().map(|(key, text)| text_value(key, text)));

    let mut infos = Vec::new();
    let mut offset = 0u64;
    for (name, planned) in planned {
        let problem = |what: &str| Error::format(file, format!("tensor {name}: {what}"));
        let own = planned.shape();
        let shape = shape_in_file(planned.dtype, own).ok_or_else(|| problem("is too large"))?;
        if shape != own {
            let sizes = own.iter().map(|size| i32::try_from(*size).map(i32::to_le_bytes));
            let sizes =
                sizes.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| problem("is too large"))?;
            let mut array = value::INT32.to_le_bytes().to_vec();
            array.extend((sizes.len() as u64).to_le_bytes());
            array.extend(sizes.as_flattened());
            values.push(key_value(&format!("{SHAPE_KEY}{name}"), value::ARRAY, &array));
        }
        let row = shape.last().copied().unwrap_or(1);
        if let (ElementType::Quantized(kind), None) = (planned.dtype, planned.dtype.bytes_of(row)) {
            return Err(problem(&format!(
                "rows of {row} numbers do not divide into blocks of {}",
                kind.name()
            )));
        }
        let number = type_number(planned.dtype)
            .ok_or_else(|| problem(&format!("GGUF has no type for numbers of {}", planned.dtype)))?;
        infos.extend(string(name));
        let dimensions = u32::try_from(shape.len()).map_err(|_| problem("too many dimensions"))?;
        infos.extend(dimensions.to_le_bytes());
        // ggml puts the row length first.
        shape.iter().rev().for_each(|size| infos.extend((*size as u64).to_le_bytes()));
        infos.extend(number.to_le_bytes());
        infos.extend(offset.to_le_bytes());
        offset += planned.size(file)?.next_multiple_of(DEFAULT_ALIGNMENT) as u64;
    }

    let mut table = MAGIC.to_vec();
    table.extend(VERSION.to_le_bytes());
    table.extend((planned.len() as u64).to_le_bytes());
    table.extend((values.len() as u64).to_le_bytes());
    table.extend(values.concat());
    table.extend(infos);
    Ok(table)
}

/// The shape in the file: one to four dimensions, and a matrix if quantized. `None` if it overflows.
fn shape_in_file(dtype: ElementType, shape: &[usize]) -> Option<Cow<'_, [usize]>> {
    Some(match (dtype, shape) {
        (_, []) => Cow::Owned(vec![1]),
        (ElementType::Plain(_), shape) if shape.len() <= MOST_DIMENSIONS => Cow::Borrowed(shape),
        (_, [_] | [_, _]) => Cow::Borrowed(shape),
        (_, [first, rest @ ..]) => Cow::Owned(vec![*first, element_count(rest)?]),
    })
}

fn text_value(key: &str, text: &str) -> Vec<u8> {
    key_value(key, value::STRING, &string(text))
}

fn key_value(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), value].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
}
