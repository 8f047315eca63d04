//! Tensors of checkpoints into one safetensors file, a little at a time, so that no model has to fit into memory.

use std::collections::BTreeMap;
use std::io::{self, Write};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;

use super::{Checkpoint, Located, StoredTensor, convert};
use crate::error::{Error, Result};
use crate::source::FileData;

/// Elements that are converted at a time.
const ELEMENTS_AT_A_TIME: usize = 1 << 20;

/// The format wants its data to begin at a multiple of this many bytes.
const ALIGNMENT: usize = 8;

/// One tensor of a file that is to be written.
#[derive(Debug, Clone)]
pub struct TensorToWrite<'a> {
    /// Where it is read from.
    pub checkpoint: &'a Checkpoint,
    /// The name that it is found by there.
    pub source: String,
    /// Its name in the new file.
    pub name: String,
    /// Its shape in the new file, of as many elements as it has where it is read from.
    pub shape: Vec<usize>,
    /// What floating-point numbers are converted to: f32, f16 or bf16. `None` leaves them as they are, as numbers of
    /// other types always are.
    pub dtype: Option<DType>,
}

/// Writes tensors as a safetensors file, with `metadata` in its header. `file` is what errors call it. The same tensors
/// give the same bytes: they lie in the order of their names.
///
/// `before_each` is told how many tensors are done, and ends the work by an error.
///
/// # Errors
/// When a tensor is missing, has no such number of elements or no conversion, holds numbers too large for the new type,
/// or two have the same name; and when the file cannot be written.
pub fn write_safetensors<E: From<Error>>(
    to: &mut impl Write,
    file: &str,
    tensors: &[TensorToWrite],
    metadata: &BTreeMap<String, String>,
    mut before_each: impl FnMut(usize) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let planned = plan(file, tensors)?;
    let header = header(&planned, metadata).map_err(|error| Error::format(file, error.to_string()))?;
    to.write_all(&header).map_err(Error::io(file))?;
    for (done, planned) in planned.values().enumerate() {
        before_each(done)?;
        planned.write(to, file)?;
    }
    Ok(())
}

/// A tensor that was found, and what becomes of it.
struct Planned<'a> {
    tensor: &'a TensorToWrite<'a>,
    located: &'a Located,
    dtype: Dtype,
}

/// Finds every tensor, by its new name.
fn plan<'a>(file: &str, tensors: &'a [TensorToWrite]) -> Result<BTreeMap<&'a str, Planned<'a>>> {
    let mut planned = BTreeMap::new();
    for tensor in tensors {
        let contents = &tensor.checkpoint.contents;
        let located = contents.get(&tensor.source)?;
        let (stored, found) = (&located.tensor, contents.file(located).name());
        let elements = |shape: &[usize]| shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if elements(&stored.shape) != elements(&tensor.shape) {
            return Err(Error::ShapeMismatch {
                name: tensor.source.clone(),
                file: found.to_owned(),
                found: stored.shape.clone(),
                expected: tensor.shape.clone(),
            });
        }
        if convert::candle_dtype(stored.dtype).is_none() && stored.strides.is_some() {
            let problem =
                format!("tensor {}: elements of type {} in an odd order", tensor.source, stored.dtype);
            return Err(Error::format(found, problem));
        }
        let dtype = match tensor.dtype {
            Some(dtype) if is_float(stored.dtype) => stored_dtype(dtype)?,
            _ => stored.dtype,
        };
        if planned.insert(tensor.name.as_str(), Planned { tensor, located, dtype }).is_some() {
            return Err(Error::format(file, format!("two tensors would be called {}", tensor.name)));
        }
    }
    Ok(planned)
}

/// The length of the header and the header, filled up with spaces.
fn header(
    planned: &BTreeMap<&str, Planned>,
    metadata: &BTreeMap<String, String>,
) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        Metadata(&'a BTreeMap<String, String>),
        Tensor(TensorInfo),
    }

    let mut entries = BTreeMap::new();
    let mut end = 0;
    for (name, planned) in planned {
        let start = end;
        end += planned.tensor.shape.iter().product::<usize>() * planned.dtype.bitsize() / 8;
        let info = TensorInfo {
            dtype: planned.dtype,
            shape: planned.tensor.shape.clone(),
            data_offsets: (start, end),
        };
        entries.insert(*name, Entry::Tensor(info));
    }
    if !metadata.is_empty() {
        entries.insert("__metadata__", Entry::Metadata(metadata));
    }
    let mut json = serde_json::to_vec(&entries)?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

impl Planned<'_> {
    fn write(&self, to: &mut impl Write, file: &str) -> Result<()> {
        let contents = &self.tensor.checkpoint.contents;
        let (source, stored) = (contents.file(self.located), &self.located.tensor);
        let bytes = source.get(stored.bytes.clone()).unwrap_or_default();
        let width = stored.dtype.bitsize() / 8;
        if let Some(strides) = &stored.strides {
            let gathered =
                FileData::owned(source.name(), convert::gather(bytes, &stored.shape, strides, width));
            let gathered_bytes = 0..gathered.len();
            let stored = StoredTensor { strides: None, bytes: gathered_bytes, ..stored.clone() };
            return self.write_elements(to, file, &gathered, &stored, width);
        }
        self.write_elements(to, file, source, stored, width)
    }

    /// Writes a tensor whose elements lie one after the other.
    fn write_elements(
        &self,
        to: &mut impl Write,
        file: &str,
        source: &FileData,
        stored: &StoredTensor,
        width: usize,
    ) -> Result<()> {
        // Types of less than a byte have no conversion, and go as they are.
        let step = ELEMENTS_AT_A_TIME * width.max(1);
        let mut start = stored.bytes.start;
        while start < stored.bytes.end {
            let range = start..stored.bytes.end.min(start.saturating_add(step));
            if self.dtype == stored.dtype {
                let bytes = source.get(range.clone()).unwrap_or_default();
                to.write_all(bytes).map_err(Error::io(file))?;
            } else {
                let shape = vec![range.len() / width.max(1)];
                let part = StoredTensor { dtype: stored.dtype, shape, strides: None, bytes: range.clone() };
                self.write_converted(to, file, source, &part)?;
            }
            source.release(&range);
            start = range.end;
        }
        Ok(())
    }

    fn write_converted(
        &self,
        to: &mut impl Write,
        file: &str,
        source: &FileData,
        part: &StoredTensor,
    ) -> Result<()> {
        let read = |dtype| -> Result<Tensor> {
            convert::read_tensor(source, part, dtype, &Device::Cpu)?.ok_or_else(|| {
                let problem = format!("tensor {}: {} has no conversion", self.tensor.source, part.dtype);
                Error::format(source.name(), problem)
            })
        };
        let numbers = read(DType::F32)?.to_vec1::<f32>()?;
        let written = match self.dtype {
            Dtype::F16 => {
                let halves = read(DType::F16)?.to_vec1::<f16>()?;
                let overflow = numbers
                    .iter()
                    .zip(&halves)
                    .find(|(number, half)| number.is_finite() && !half.is_finite());
                if let Some((number, _)) = overflow {
                    let problem = format!(
                        "tensor {} holds {number}, which f16 cannot: use bf16 or f32",
                        self.tensor.source
                    );
                    return Err(Error::format(source.name(), problem));
                }
                write_all(to, halves.iter().map(|half| half.to_le_bytes()))
            }
            Dtype::BF16 => {
                let halves = read(DType::BF16)?.to_vec1::<bf16>()?;
                write_all(to, halves.iter().map(|half| half.to_le_bytes()))
            }
            _ => write_all(to, numbers.iter().map(|number| number.to_le_bytes())),
        };
        written.map_err(Error::io(file))
    }
}

fn write_all<const WIDTH: usize>(
    to: &mut impl Write,
    elements: impl Iterator<Item = [u8; WIDTH]>,
) -> io::Result<()> {
    to.write_all(&elements.flatten().collect::<Vec<u8>>())
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// The type in a file of one that models compute in.
fn stored_dtype(dtype: DType) -> Result<Dtype> {
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::F16 => Ok(Dtype::F16),
        DType::BF16 => Ok(Dtype::BF16),
        other => Err(Error::Input(format!("dtype: expected f32, f16 or bf16, found {}", other.as_str()))),
    }
}
