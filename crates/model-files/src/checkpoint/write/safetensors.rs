//! Writes safetensors: a header of JSON, then the tensors in the order of their names.

use std::collections::BTreeMap;
use std::io::Write;

use safetensors::tensor::TensorInfo;
use serde::Serialize;

use super::plan::{NumberType, Planned, TensorToWrite, plan};
use crate::checkpoint::element::ElementType;
use crate::error::{Error, Result};

/// The format wants its data to begin at a multiple of this many bytes.
const ALIGNMENT: usize = 8;

/// Writes tensors as a safetensors file, with `metadata` in its header. `file` is what errors call it. The same tensors
/// give the same bytes: they lie in the order of their names. Blocks, which the format does not have, are written as their
/// numbers, in f32 where nothing else is asked for.
///
/// `before_each` is told how many tensors are done, and ends the work by an error.
///
/// # Errors
/// When a tensor is missing, has no such number of elements or no conversion, holds numbers too large for the new type,
/// is asked for quantized, or two have the same name; and when the file cannot be written.
pub fn write_safetensors<E: From<Error>>(
    to: &mut impl Write,
    file: &str,
    tensors: &[TensorToWrite],
    metadata: &BTreeMap<String, String>,
    mut before_each: impl FnMut(usize) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if let Some(blocks) = tensors.iter().find(|tensor| matches!(tensor.dtype, Some(NumberType::Quantized(_))))
    {
        let problem =
            format!("tensor {}: safetensors hold no quantized weights, expected a GGUF file", blocks.name);
        return Err(Error::format(file, problem).into());
    }
    let mut planned = plan(file, tensors)?;
    for planned in planned.values_mut() {
        if let ElementType::Quantized(_) = planned.dtype {
            planned.dtype = NumberType::F32.element();
        }
    }
    let header = header(file, &planned, metadata)?;
    to.write_all(&header).map_err(Error::io(file))?;
    for (done, planned) in planned.values().enumerate() {
        before_each(done)?;
        planned.write(to, file)?;
    }
    Ok(())
}

/// The length of the header and the header, filled up with spaces.
fn header(
    file: &str,
    planned: &BTreeMap<&str, Planned>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        Metadata(&'a BTreeMap<String, String>),
        Tensor(TensorInfo),
    }

    let mut entries = BTreeMap::new();
    let mut end = 0;
    for (name, planned) in planned {
        // Of blocks there are none left.
        let ElementType::Plain(dtype) = planned.dtype else { continue };
        let start = end;
        end += planned.size(file)?;
        let shape = planned.tensor.shape.clone();
        entries.insert(*name, Entry::Tensor(TensorInfo { dtype, shape, data_offsets: (start, end) }));
    }
    if !metadata.is_empty() {
        entries.insert("__metadata__", Entry::Metadata(metadata));
    }
    let mut json = serde_json::to_vec(&entries).map_err(|error| Error::format(file, error.to_string()))?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}
