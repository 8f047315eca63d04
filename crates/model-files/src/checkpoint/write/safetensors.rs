//! Writes safetensors: a JSON header, then the tensors in order of name.

use std::collections::BTreeMap;
use std::io::Write;

use safetensors::tensor::TensorInfo;
use serde::Serialize;

use super::plan::{NumberType, Plan, TensorToWrite, plan};
use crate::checkpoint::element::ElementType;
use crate::error::{Error, Result};

/// The format's alignment of data, in bytes.
pub(super) const ALIGNMENT: usize = 8;

/// Writes tensors as a safetensors file, with `metadata` in its header. `file` is used in errors. The same tensors
/// give the same bytes, since they are ordered by name. Weights in int8 get the scales of their rows beside them, as
/// `weight_scale` beside `weight`, and the factors of their input's channels, if they have any, as `pre_quant_scale`. The
/// format has no other quantized types, which are unpacked, to f32
/// unless another type is asked for.
///
/// `before_each` gets the number of tensors done, and can end the work with an error.
///
/// # Errors
/// If a tensor is missing, has another number of elements, cannot be converted, overflows the new type, is to be
/// quantized, or two have the same name; or if the file cannot be written.
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

/// The header with its length, padded with spaces.
fn header(file: &str, planned: &Plan, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum HeaderEntry<'a> {
        Metadata(&'a BTreeMap<String, String>),
        Tensor(TensorInfo),
    }

    let mut entries = BTreeMap::new();
    let mut end = 0;
    for (name, planned) in planned {
        // No quantized ones are left here.
        let ElementType::Plain(dtype) = planned.dtype else { continue };
        let start = end;
        end += planned.size(file)?;
        let shape = planned.shape().to_vec();
        entries.insert(&**name, HeaderEntry::Tensor(TensorInfo { dtype, shape, data_offsets: (start, end) }));
    }
    if !metadata.is_empty() {
        entries.insert("__metadata__", HeaderEntry::Metadata(metadata));
    }
    let mut json = serde_json::to_vec(&entries).map_err(|error| Error::format(file, error.to_string()))?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}
